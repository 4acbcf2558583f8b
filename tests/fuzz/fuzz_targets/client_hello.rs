//! A connection's first bytes, taken for a ClientHello.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::listener::inspect::client_hello;

fuzz_target!(|bytes: &[u8]| {
    let _ = client_hello::inspect(bytes);
});
