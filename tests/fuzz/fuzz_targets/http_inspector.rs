//! A connection's first bytes, taken for HTTP.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::listener::inspect::http;

fuzz_target!(|bytes: &[u8]| {
    let _ = http::inspect(bytes);
});
