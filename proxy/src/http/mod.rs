//! HTTP: one connection's requests, from the codec to the router and back.

pub mod body;
mod caller;
pub mod connection_manager;
pub mod date;
pub mod exchange;
pub mod filter;
pub mod grpc_status;
pub mod h1;
pub mod h2;
mod header_mutation;
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
pub mod tunnel;
mod upstream_request;
