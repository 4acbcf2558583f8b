//! Sockets: opening them, what the kernel tells of them, and the one stream type of both sides.

pub mod http2_keepalive;
pub mod linger;
pub mod local_address;
pub mod peek;
pub mod socket;
pub mod stream;
