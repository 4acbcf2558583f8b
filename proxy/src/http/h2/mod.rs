//! HTTP/2, both sides of it (RFC 9113, with RFC 7541 for header compression and RFC 8441 for upgrades).
//!
//! From the socket inwards: `driver` moves bytes; `connection` holds what a connection knows, which `receive` changes
//! frame by frame and `send` turns into frames; `stream` is what the rest of the proxy reads from and writes to.
//! `server` and `client` stand at the ends. `frame`, `hpack`, `head` and `limits` are pure.
//!
//! Everything of a connection happens on its worker's thread: state is shared by `Rc`, never locked, and never borrowed
//! across an await. What a peer can make us keep is bounded: header blocks by the limits on headers, bodies by the
//! windows, answers by the limits on frames that wait to be written.

pub mod client;
mod connection;
mod driver;
mod error;
pub mod frame;
pub mod head;
pub mod hpack;
mod keepalive;
mod limits;
mod outbound;
mod premature_resets;
mod receive;
mod send;
mod sender;
mod server;
mod stream;
mod upgrade;

pub use connection::{Connection, Counters, Role, Settings, Shared};
pub use error::{ConnectionFault, StreamError};
pub use frame::Reason;
pub use head::HeaderLimits;
pub use sender::{SendError, send_body};
pub use server::serve;
pub use stream::{RecvStream, SendStream};

#[cfg(test)]
mod tests;
