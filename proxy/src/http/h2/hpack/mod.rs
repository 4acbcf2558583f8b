//! Header compression for HTTP/2 (RFC 7541). Pure: bytes to fields and back, with no idea of connections.

mod decoder;
mod encoder;
pub mod huffman;
mod table;

pub use decoder::{DecodeError, Decoder};
pub use encoder::{Encoder, Indexing};
pub use table::{ENTRY_OVERHEAD, Field, Pseudo};
