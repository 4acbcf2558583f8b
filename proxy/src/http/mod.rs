//! HTTP: one connection's requests, from the codec to the router and back.

pub mod body;
pub mod connection_manager;
pub mod date;
pub mod exchange;
mod h1;
mod h2;
pub mod host_selection;
pub mod informational;
pub mod local_reply;
mod replay;
pub mod request_headers;
mod request_id;
pub mod response_flags;
mod retry;
pub mod route;
mod router;
pub mod tunnel;
mod upstream_request;
