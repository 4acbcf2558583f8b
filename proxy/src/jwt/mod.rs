//! JSON Web Tokens (RFC 7519) in compact form, their keys (RFC 7517) and signatures (RFC 7518, RFC 8037). Pure: bytes in,
//! verdict out; the wording of failures is Envoy's, which clients and dashboards know.

mod failure;
mod keys;
mod token;

pub use failure::Failure;
pub use keys::KeySet;
pub use token::Token;
