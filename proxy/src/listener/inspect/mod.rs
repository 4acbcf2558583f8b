//! What the first bytes of a connection tell: is it TLS, and for whom; is it HTTP, and which; does it begin with a PROXY
//! protocol header. Pure functions over what has been seen so far: whatever a peer sends, they end, and never panic.

pub mod client_hello;
pub mod http;
pub mod proxy_protocol;

/// What can be said of a connection whose first bytes these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// More bytes may change the answer.
    NeedMore,
    Done(T),
}
