//! HTTP/1 on both sides, by a codec of the proxy's own (RFC 9112).
//!
//! The parsers are pure and strict: `request_head`, `response_head` and `chunked` take bytes and give parts of a message or a
//! `violation`. Around them stand a connection's bytes (`transport`), a downstream's requests and responses (`downstream`,
//! `incoming`, `response_writer`) and an upstream's exchanges (`upstream`). No task, channel or lock is needed between the
//! two sides: whoever waits for bytes drives the connection that they come from.

mod body_length;
pub mod chunked;
mod decoder;
mod downstream;
mod encode;
mod fields;
mod header_case;
mod incoming;
mod options;
pub mod request_head;
pub mod response_head;
mod response_writer;
mod transport;
mod upstream;
mod violation;

pub use body_length::BodyLength;
pub use downstream::serve;
pub use incoming::IncomingBody;
pub use options::ClientOptions;
pub use upstream::{ClientConnection, ClientExchange, Failure, UpstreamBody};
pub use violation::Violation;

#[cfg(test)]
mod tests;
