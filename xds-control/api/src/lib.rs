//! Envoy's messages for the proxy, the control plane and the command line: typed, read from and written to JSON and YAML,
//! validated, and encoded deterministically.
//!
//! A bootstrap is read by [`json::from_yaml`] and checked by [`validate::validate`]; an extension's configuration inside it is
//! taken out by [`any::unpack_valid`]; what is pushed is packed by [`any::pack`] and versioned by [`canonical::hash`]. All
//! refusals are a [`FieldError`], which names the field.
//!
//! Everything but the typed messages themselves works on protobuf's wire bytes, guided by descriptor tables that `build.rs`
//! makes and the binary embeds (0.4 MB, of which a process touches what it uses). No descriptors are loaded or built at run
//! time: reading a large bootstrap takes about a millisecond.

pub mod any;
pub mod ca;
pub mod canonical;
mod error;
pub mod json;
#[cfg(test)]
mod properties;
mod tables;
pub mod type_url;
pub mod unknown;
pub mod validate;
mod wire;

pub use envoy_types::pb;
pub use error::FieldError;

/// The message that these bytes encode.
pub fn decode<T: prost::Name + Default>(bytes: &[u8]) -> Result<T, FieldError> {
    json::decode(bytes)
}
