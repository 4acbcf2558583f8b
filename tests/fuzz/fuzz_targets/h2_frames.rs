//! What a peer sends on an HTTP/2 connection, either end: the first byte says which, and how the rest is cut.
#![no_main]

use std::{sync::Arc, time::Instant};

use libfuzzer_sys::fuzz_target;
use weft_proxy::{
    config::http_protocol::Http2Options,
    http::h2::{Counters, HeaderLimits, Role, Settings, Shared, frame::PREFACE},
    stats::{Sharded, WorkerIndex},
};

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let role = if first & 1 == 0 { Role::Downstream } else { Role::Upstream };
    let settings = Settings {
        role,
        options: Http2Options { allow_connect: true, ..Http2Options::default() },
        headers: HeaderLimits { bytes_max: 60 * 1024, count_max: 100 },
        buffer_bytes_max: 1 << 20,
        stream_error_on_invalid_message: first & 2 == 0,
        counters: Counters { cells: Arc::new(Sharded::new(1)), worker: WorkerIndex(0) },
    };
    let shared = Shared::new(settings, Instant::now());
    if role == Role::Downstream {
        shared.receive(PREFACE);
    }
    // SETTINGS come first; without them nothing else would be looked at.
    shared.receive(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for part in bytes.chunks(usize::from(first >> 2) + 1) {
        shared.receive(part);
    }
});
