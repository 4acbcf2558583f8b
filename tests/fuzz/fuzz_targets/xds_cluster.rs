//! A cluster as a control plane sends it, from its bytes to typed configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::decode;
use weft_proxy::config::cluster::ClusterConfig;

fuzz_target!(|bytes: &[u8]| decode::<ClusterConfig>(bytes));
