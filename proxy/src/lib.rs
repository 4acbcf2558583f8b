//! weft-proxy: carries a pod's traffic by configuration in Envoy's shape.
//!
//! Read the modules in the order of a connection: `listener`, `http` or `tcp_proxy`, `upstream`; or in the order of a
//! change of configuration: `config`, `runtime`, `worker`.

pub mod access_log;
pub mod admin;
pub mod args;
pub mod authorization;
pub mod bootstrap;
pub mod config;
pub mod drain;
pub mod filter_state;
pub mod http;
pub mod jwt;
pub mod listener;
pub mod logging;
pub mod matching;
pub mod net;
pub mod runtime;
pub mod server;
pub mod stats;
pub mod substitution;
pub mod tcp_proxy;
pub mod tls;
pub mod token_bucket;
pub mod upstream;
pub mod worker;
pub mod xds;
