//! What the library promises, seen from outside. One binary, as linking Envoy's messages is what takes long.

#![expect(clippy::unwrap_used, reason = "the whole crate is a test, its helpers too")]

mod bootstrap;
mod json_mapping;
mod unpacking;
mod validation;
mod versions;
mod yaml;
