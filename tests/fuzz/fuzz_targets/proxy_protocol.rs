//! A connection's first bytes, taken for the PROXY protocol's header by every kind of filter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::listener::inspect::proxy_protocol::{self, Accepts};

fuzz_target!(|bytes: &[u8]| {
    for (v1, v2, no_header) in [(true, true, false), (true, true, true), (false, true, true), (true, false, false)] {
        let _ = proxy_protocol::inspect(bytes, Accepts { v1, v2, no_header });
    }
});
