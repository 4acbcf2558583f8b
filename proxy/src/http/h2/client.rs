//! HTTP/2 upstream: a connection opened by us, and the requests that go out on it.

use std::{rc::Rc, time::Instant};

use http::request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    connection::{Settings, Shared},
    driver::Driver,
    keepalive::Keepalive,
    stream::{RecvStream, SendStream},
};

/// What requests are sent by. Dropped, it lets the connection close once the streams on it have ended.
pub struct Requests(Rc<Shared>);

/// Of the buffer that bytes are read into; idle connections have none.
const SCRATCH_BYTES: usize = 32 * 1024;

/// A connection and the future that drives it until it ends.
pub fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    settings: Settings,
    stream: S,
) -> (Requests, impl Future<Output = std::io::Result<()>>) {
    let keepalive = Keepalive::new(settings.options.keepalive.as_ref());
    let shared = Shared::new(settings, Instant::now());
    let mut driver = Driver::new(shared.clone(), stream, keepalive);
    let requests = Requests(shared.clone());
    let mut scratch = Vec::new();
    let driven = std::future::poll_fn(move |cx| {
        scratch.resize(SCRATCH_BYTES, 0);
        let polled = driver.poll(cx, &mut scratch);
        if shared.with(|connection| connection.is_idle()) {
            scratch = Vec::new();
        }
        polled
    });
    (requests, driven)
}

impl Requests {
    /// How many streams the two ends allow at a time.
    pub fn streams_max(&self) -> usize {
        self.0.with(|connection| connection.streams_max())
    }

    /// The connection is open, and the peer hasn't said that it goes away.
    pub fn is_open(&self) -> bool {
        self.0.with(|connection| connection.takes_requests())
    }

    /// Sends a request's head; `ended`: there is nothing more to it. None: the connection takes no more, and nothing was
    /// sent.
    pub fn send(&self, head: &request::Parts, ended: bool) -> Option<(RecvStream, SendStream)> {
        self.0.open(head, ended)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.0.with(|connection| connection.finish_shutdown());
    }
}
