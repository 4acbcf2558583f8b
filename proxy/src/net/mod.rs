//! Sockets: opening them, what the kernel tells of them, and the one stream type of both sides.

pub mod linger;
pub mod local_address;
pub mod peek;
pub mod socket;
pub mod socket_option;
pub mod stream;
