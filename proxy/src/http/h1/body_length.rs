//! How long a message's body is, as its head says (RFC 9112 section 6.3).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    Known(u64),
    Chunked,
    /// The connection's end is the body's end: some responses, and tunnels.
    UntilClose,
}
