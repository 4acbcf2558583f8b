//! What a peer may do before it counts as an attack: the floods that `Http2ProtocolOptions` of `envoy.config.core.v3`
//! bounds. Pure accounting; the connection asks after each frame and ends when told so.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::frame::{FrameHeader, Kind, flag};
use crate::{config::http_protocol::Http2FloodLimits, stats::Http2Stat};

/// Frames that came in and count.
#[derive(Debug)]
pub struct InboundLimits {
    limits: Http2FloodLimits,
    empty_in_a_row: u32,
    priority: u64,
    window_updates: u64,
    pub opened_streams: u64,
    pub data_frames_sent: u64,
    resets: TokenBucket,
}

/// The connection is at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    pub stat: Option<Http2Stat>,
    pub details: &'static str,
}

impl InboundLimits {
    pub fn new(limits: Http2FloodLimits, now: Instant) -> InboundLimits {
        InboundLimits {
            resets: TokenBucket { tokens: limits.stream_reset_burst, filled_at: now },
            limits,
            empty_in_a_row: 0,
            priority: 0,
            window_updates: 0,
            opened_streams: 0,
            data_frames_sent: 0,
        }
    }

    /// `payload_bytes` without padding.
    pub fn received(&mut self, header: FrameHeader, payload_bytes: usize) -> Result<(), Flood> {
        match header.kind {
            Kind::Data | Kind::Headers | Kind::Continuation => {
                let is_end = header.kind != Kind::Continuation && header.has(flag::END_STREAM);
                if payload_bytes > 0 || is_end {
                    self.empty_in_a_row = 0;
                    return Ok(());
                }
                self.empty_in_a_row += 1;
                if self.empty_in_a_row > self.limits.max_consecutive_inbound_frames_with_empty_payload {
                    return Err(Flood {
                        stat: Some(Http2Stat::InboundEmptyFramesFlood),
                        details: "http2.inbound_empty_frames_flood",
                    });
                }
            }
            Kind::Priority => {
                self.priority += 1;
                let allowed = u64::from(self.limits.max_inbound_priority_frames_per_stream) * (1 + self.opened_streams);
                if self.priority > allowed {
                    return Err(Flood {
                        stat: Some(Http2Stat::InboundPriorityFramesFlood),
                        details: "codec_error:Too_many_PRIORITY_frames",
                    });
                }
            }
            Kind::WindowUpdate => {
                self.window_updates += 1;
                let per_data = u64::from(self.limits.max_inbound_window_update_frames_per_data_frame_sent);
                if self.window_updates > 5 + 2 * (self.opened_streams + per_data * self.data_frames_sent) {
                    return Err(Flood {
                        stat: Some(Http2Stat::InboundWindowUpdateFramesFlood),
                        details: "codec_error:Too_many_WINDOW_UPDATE_frames",
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An RST_STREAM of a client (CVE-2023-44487).
    pub fn reset_received(&mut self, now: Instant) -> Result<(), Flood> {
        let (burst, rate) = (self.limits.stream_reset_burst, self.limits.stream_reset_rate);
        if self.resets.take(burst, rate, now) {
            return Ok(());
        }
        Err(Flood { stat: None, details: "codec_error:Too_many_RST_STREAM_frames" })
    }
}

#[derive(Debug)]
struct TokenBucket {
    tokens: u64,
    filled_at: Instant,
}

impl TokenBucket {
    fn take(&mut self, burst: u64, rate: u64, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled_at).as_secs();
        if seconds > 0 {
            self.tokens = burst.min(self.tokens.saturating_add(seconds.saturating_mul(rate)));
            self.filled_at += Duration::from_secs(seconds);
        }
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }
}

/// Frames written but not yet taken by the socket: how many of them there are, not how long they are.
#[derive(Debug)]
pub struct OutboundLimits {
    frames_max: usize,
    control_frames_max: usize,
    /// Where each ends in the stream of bytes, and whether it answers a frame of the peer.
    waiting: VecDeque<(u64, bool)>,
    control_frames: usize,
    written: u64,
    taken: u64,
}

impl OutboundLimits {
    pub fn new(limits: &Http2FloodLimits) -> OutboundLimits {
        OutboundLimits {
            frames_max: limits.max_outbound_frames as usize,
            control_frames_max: limits.max_outbound_control_frames as usize,
            waiting: VecDeque::new(),
            control_frames: 0,
            written: 0,
            taken: 0,
        }
    }

    /// `answers`: PING and SETTINGS acknowledgements and RST_STREAM, which a peer can make us send for nothing.
    pub fn written(&mut self, bytes: usize, answers: bool) {
        self.written += bytes as u64;
        self.waiting.push_back((self.written, answers));
        self.control_frames += usize::from(answers);
    }

    pub fn taken(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        if self.taken == self.written {
            self.waiting.clear();
            self.control_frames = 0;
            return;
        }
        while let Some(&(end, answers)) = self.waiting.front()
            && end <= self.taken
        {
            self.waiting.pop_front();
            self.control_frames -= usize::from(answers);
        }
    }

    pub fn check(&self) -> Result<(), Flood> {
        if self.waiting.len() > self.frames_max {
            return Err(Flood {
                stat: Some(Http2Stat::OutboundFlood),
                details: "codec_error:Too_many_frames_in_the_outbound_queue.",
            });
        }
        if self.control_frames > self.control_frames_max {
            return Err(Flood {
                stat: Some(Http2Stat::OutboundControlFlood),
                details: "codec_error:Too_many_control_frames_in_the_outbound_queue.",
            });
        }
        Ok(())
    }

    /// Nothing is waiting: the memory goes.
    pub fn shrink(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(now: Instant) -> InboundLimits {
        InboundLimits::new(Http2FloodLimits::default(), now)
    }

    fn frame(kind: Kind) -> FrameHeader {
        FrameHeader { length: 0, kind, flags: 0, stream_id: 1 }
    }

    #[test]
    fn a_second_empty_frame_in_a_row_is_one_too_many() {
        let mut limits = inbound(Instant::now());
        for payload_bytes in [0, 1, 0] {
            assert_eq!(limits.received(frame(Kind::Data), payload_bytes), Ok(()));
        }
        let last = FrameHeader { flags: flag::END_STREAM, ..frame(Kind::Data) };
        assert_eq!(limits.received(last, 0), Ok(()));
        assert_eq!(limits.received(frame(Kind::Headers), 0), Ok(()));
        let flood = limits.received(frame(Kind::Continuation), 0).unwrap_err();
        assert_eq!(flood.stat, Some(Http2Stat::InboundEmptyFramesFlood));
    }

    #[test]
    fn frames_about_streams_are_bounded_by_the_streams() {
        let mut limits = inbound(Instant::now());
        for _ in 0..100 {
            assert_eq!(limits.received(frame(Kind::Priority), 5), Ok(()));
        }
        assert!(limits.received(frame(Kind::Priority), 5).is_err());
        limits.opened_streams = 1;
        assert_eq!(limits.received(frame(Kind::Priority), 5), Ok(()));
        limits.data_frames_sent = 1;
        for _ in 0..5 + 2 * (1 + 10) {
            assert_eq!(limits.received(frame(Kind::WindowUpdate), 4), Ok(()));
        }
        assert!(limits.received(frame(Kind::WindowUpdate), 4).is_err());
    }

    #[test]
    fn resets_are_given_back_by_the_second() {
        let start = Instant::now();
        let mut limits = inbound(start);
        for _ in 0..1000 {
            assert_eq!(limits.reset_received(start), Ok(()));
        }
        assert!(limits.reset_received(start).is_err());
        let later = start + Duration::from_millis(1500);
        for _ in 0..33 {
            assert_eq!(limits.reset_received(later), Ok(()));
        }
        assert!(limits.reset_received(later).is_err());
    }

    #[test]
    fn frames_wait_until_their_last_byte_is_taken() {
        let options = Http2FloodLimits { max_outbound_frames: 4, max_outbound_control_frames: 2, ..Default::default() };
        let mut limits = OutboundLimits::new(&options);
        for _ in 0..3 {
            limits.written(17, true);
        }
        assert_eq!(limits.check().unwrap_err().stat, Some(Http2Stat::OutboundControlFlood));
        limits.taken(16);
        assert!(limits.check().is_err());
        limits.taken(1);
        assert_eq!(limits.check(), Ok(()));
        for _ in 0..3 {
            limits.written(100, false);
        }
        assert_eq!(limits.check().unwrap_err().stat, Some(Http2Stat::OutboundFlood));
        limits.taken(34 + 300);
        assert_eq!((limits.check(), limits.waiting.len()), (Ok(()), 0));
    }
}
