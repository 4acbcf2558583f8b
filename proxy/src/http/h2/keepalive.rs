//! PING as a sign of life (RFC 9113 section 6.7): `connection_keepalive`. Any frame is one, too, so that a busy
//! connection is not given up for an answer that stands in line.

use std::{pin::Pin, rc::Rc, task::Context, time::Duration};

use tokio::time::{Instant, Sleep};

use super::{
    connection::{KEEPALIVE_PING, Shared},
    error::StreamError,
};
use crate::{config::http_protocol::Http2Keepalive, stats::Http2Stat};

pub struct Keepalive {
    config: Http2Keepalive,
    timer: Pin<Box<Sleep>>,
    state: State,
    random: fastrand::Rng,
}

enum State {
    /// The next PING is due when the timer ends.
    Quiet,
    /// The peer has until the timer ends to show that it lives; frames that had come when it was set.
    Asked { frames_before: u64 },
}

impl Keepalive {
    /// None: nothing is configured.
    pub fn new(config: Option<&Http2Keepalive>) -> Option<Keepalive> {
        let config = config?.clone();
        let mut random = fastrand::Rng::new();
        let timer = Box::pin(tokio::time::sleep(config.next_interval(random.f64())));
        Some(Keepalive { config, timer, state: State::Quiet, random })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, shared: &Rc<Shared>) {
        loop {
            if shared.with(|connection| std::mem::take(&mut connection.keepalive_acked)) {
                self.state = State::Quiet;
                let interval = self.config.next_interval(self.random.f64());
                self.wait(interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            let frames = shared.with(|connection| connection.frames_received);
            match self.state {
                State::Asked { frames_before } if frames == frames_before => {
                    return shared.with(|connection| {
                        connection.settings.counters.count(Http2Stat::KeepaliveTimeout);
                        connection.close(StreamError::Disconnected);
                    });
                }
                State::Asked { .. } => {}
                State::Quiet => shared.with(|connection| connection.send_ping(KEEPALIVE_PING)),
            }
            self.state = State::Asked { frames_before: frames };
            self.wait(self.config.timeout);
        }
    }

    fn wait(&mut self, duration: Duration) {
        self.timer.as_mut().reset(Instant::now() + duration);
    }
}
