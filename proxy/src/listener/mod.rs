//! The downstream side of a connection until a filter chain has it: accept, original destination, first bytes, match, TLS.

pub mod accept;
pub mod active;
pub mod arrival;
pub mod balance;
pub mod connection;
pub mod filter_chain;
pub mod inspect;
pub mod network_filter;
pub mod open_limit;
pub mod origin;
pub mod registry;
pub mod server_first;
