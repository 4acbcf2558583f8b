//! The data plane of Weft: carries a pod's traffic by Envoy's configuration.

pub mod config;
