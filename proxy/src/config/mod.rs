//! Configuration, typed: what the data path reads. One file a resource kind, each with the types and the conversion from
//! Envoy's messages into them. Constructed types are valid; what is not supported is refused with the path of its field.
//!
//! Together with `xds/` this is the only place that names generated protobuf types.

pub mod access_log;
pub mod address;
pub mod admin;
pub mod authorization;
pub mod bootstrap;
pub mod check;
pub mod cluster;
pub mod config_source;
pub mod data_source;
pub mod endpoint;
pub mod field;
pub mod filter_chain;
pub mod fraction;
pub mod grpc_service;
pub mod header_mutation;
pub mod http_connection_manager;
pub mod http_filter;
pub mod http_protocol;
pub mod listener;
pub mod match_tree;
pub mod matcher;
pub mod message_file;
pub mod metadata;
pub mod mirror;
pub mod network_filter;
pub mod overload;
pub mod proxy_protocol;
pub mod rate_limit;
pub mod retry_policy;
pub mod route;
pub mod runtime_values;
pub mod socket_option;
pub mod stats;
pub mod substitution;
pub mod tcp_proxy;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod token_bucket;
pub mod upgrade;
pub mod value_matcher;

pub use weft_xds::FieldError;
