//! A bootstrap file, from its text to typed configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::config::bootstrap::Bootstrap;

fuzz_target!(|text: &str| {
    let _ = Bootstrap::parse(text);
});
