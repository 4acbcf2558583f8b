//! The mesh's certificate authority: signs workloads' certificates, and its own server's.
//!
//! A call comes in at `service`; `proof` says who the caller is (a token that `token` verified, or the certificate of its
//! connection), `request` takes the public key out of its signing request, `authority` signs. `files` keeps the authority's
//! key and certificates. Invariants: an identity comes from the proof and never from the request; nothing of a request but
//! its key gets into a certificate; keys are in no log, dump or error.

pub mod authority;
pub mod files;
pub mod request;
pub mod service;
pub mod token;
