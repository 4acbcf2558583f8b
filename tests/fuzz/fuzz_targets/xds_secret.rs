//! A secret as a control plane sends it, from its bytes to certificates and keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::decode;
use weft_proxy::config::tls::Secret;

fuzz_target!(|bytes: &[u8]| decode::<Secret>(bytes));
