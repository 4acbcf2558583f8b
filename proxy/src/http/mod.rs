//! HTTP: one connection's requests, from the codec to the router and back.

pub mod body;
mod caller;
mod client_cert;
pub mod connection_manager;
pub mod date;
pub mod exchange;
pub mod filter;
pub mod h1;
pub mod h2;
pub mod header_mutation;
pub mod host_selection;
pub mod informational;
pub mod local_reply;
mod normalize;
mod replay;
pub mod request_headers;
pub mod request_id;
pub mod response_flags;
pub mod retry;
mod rewrite;
pub mod route;
mod router;
mod router_headers;
mod termination;
pub mod tunnel;
pub mod upstream_request;
