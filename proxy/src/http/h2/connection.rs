//! What a connection knows: its streams, both windows, the compression state, what waits to be written. Frames go in by
//! `receive`, which does no I/O; what they cause is found in the streams and in `outbound`.
//!
//! Invariants: a stream is in `streams` until both directions have ended or it was reset; `outbound` holds whole frames
//! in the order in which they are to be seen; nobody holds a borrow of the state across an await.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    task::Waker,
    time::Instant,
};

use bytes::BytesMut;

use super::{
    error::{ConnectionFault, OTHER_STREAMS_DETAILS, StreamError},
    frame::{self, FrameHeader, Kind, PAYLOAD_BYTES_DEFAULT, Reason, WINDOW_DEFAULT, setting},
    head::{HeaderLimits, RequestHead},
    hpack::{Decoder, Encoder},
    limits::{InboundLimits, OutboundLimits},
    outbound::Outbound,
    premature_resets::PrematureResets,
    stream::Stream,
};
use crate::{
    config::http_protocol::Http2Options,
    stats::{Http2Stat, Sharded, WorkerIndex},
};

/// The state of a connection, held by its driver and by the handles of its streams.
pub struct Shared(RefCell<Connection>);

/// What a connection is opened with.
#[derive(Clone)]
pub struct Settings {
    pub role: Role,
    pub options: Http2Options,
    pub headers: HeaderLimits,
    /// Of frames that wait for the socket.
    pub buffer_bytes_max: usize,
    /// Whether what is wrong with one message ends its stream only.
    pub stream_error_on_invalid_message: bool,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Downstream,
    Upstream,
}

/// Where a connection's `http2.*` are counted.
#[derive(Clone)]
pub struct Counters {
    pub cells: std::sync::Arc<Sharded<Http2Stat>>,
    pub worker: WorkerIndex,
}

impl Counters {
    pub fn count(&self, stat: Http2Stat) {
        self.cells.inc(self.worker, stat);
    }

    fn uncount(&self, stat: Http2Stat) {
        self.cells.dec(self.worker, stat);
    }
}

pub struct Connection {
    pub(super) settings: Settings,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) streams: HashMap<u32, Rc<Stream>, BuildHasherDefault<StreamIdHasher>>,
    /// Streams that were reset by us: what the peer had sent before it knew is to be ignored.
    pub(super) reset_ids: VecDeque<u32>,
    /// The highest that the peer opened.
    pub(super) peer_id_max: u32,
    /// The next that we open.
    pub(super) next_id: u32,
    pub(super) peer: PeerSettings,
    /// The peer has seen our SETTINGS: it is held to them.
    pub(super) settings_acked: bool,
    pub(super) receive_window: i64,
    /// Consumed, but the peer has not been told.
    pub(super) unreturned: u32,
    pub(super) send_window: i64,
    /// A header block that goes on.
    pub(super) block: Option<Block>,
    /// What there is of a frame that is not whole.
    partial: BytesMut,
    preface_left: usize,
    settings_seen: bool,
    pub(super) outbound: Outbound,
    /// Streams with data that only the connection's window or the socket keeps back.
    pub(super) blocked: VecDeque<Rc<Stream>>,
    pub(super) inbound_limits: InboundLimits,
    pub(super) accepted: VecDeque<Accepted>,
    waker: Option<Waker>,
    /// Our GOAWAY: streams above this are not served.
    pub(super) goaway_sent: Option<u32>,
    shutdown_ping: bool,
    pub(super) goaway_received: bool,
    /// Frames since the start: a sign of life.
    pub(super) frames_received: u64,
    pub(super) keepalive_acked: bool,
    pub(super) closed: Option<StreamError>,
    pub(super) premature_resets: PrematureResets,
    has_flooded: bool,
    ended_by_resets: bool,
}

/// RFC 9113 section 6.5.2.
#[derive(Debug)]
pub(super) struct PeerSettings {
    pub(super) initial_window: u32,
    pub(super) frame_bytes_max: usize,
    pub(super) max_concurrent_streams: Option<u32>,
    pub(super) extended_connect: bool,
}

/// The fragments of a header block.
pub(super) struct Block {
    pub(super) stream_id: u32,
    pub(super) ends_stream: bool,
    pub(super) continuations: u32,
    pub(super) bytes: BytesMut,
}

/// A stream that the peer has opened.
pub enum Accepted {
    Request(Box<RequestHead>, Rc<Stream>),
    /// It was refused, and ended with it: to be logged.
    Refused {
        details: &'static str,
        by_connection: bool,
    },
    /// As `Request`, but its target can't be used.
    UnusableTarget(Rc<Stream>),
}

/// Ids are small numbers in a row, and no peer can choose them so that they collide: they ascend.
#[derive(Default)]
pub(super) struct StreamIdHasher(u64);

impl Hasher for StreamIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }
    fn write_u32(&mut self, id: u32) {
        // The map takes its place from the low bits and its tag from the high ones.
        self.0 = (self.0 ^ u64::from(id >> 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) const SHUTDOWN_PING: [u8; 8] = *b"shutdown";
pub(super) const KEEPALIVE_PING: [u8; 8] = *b"keepaliv";
/// Of ids of streams that we reset.
const RESET_IDS_MAX: usize = 1024;

impl Shared {
    pub fn new(settings: Settings, now: Instant) -> Rc<Shared> {
        Rc::new(Shared(RefCell::new(Connection::new(settings, now))))
    }

    /// Takes bytes from the peer, however they are cut. A rule that they break ends the stream or the connection.
    pub fn receive(&self, bytes: &[u8]) {
        self.with(|connection| {
            if let Err(fault) = connection.receive(bytes) {
                tracing::debug!(%fault, "an HTTP/2 peer broke a rule");
                connection.fail(fault);
            }
        });
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        work(&mut self.0.borrow_mut())
    }
}

impl Connection {
    fn new(settings: Settings, now: Instant) -> Connection {
        let options = &settings.options;
        let is_downstream = settings.role == Role::Downstream;
        let mut connection = Connection {
            decoder: Decoder::new(options.hpack_table_size, options.header_field_bytes_max),
            encoder: Encoder::new(options.huffman),
            streams: HashMap::default(),
            reset_ids: VecDeque::new(),
            peer_id_max: 0,
            next_id: 1,
            peer: PeerSettings {
                initial_window: WINDOW_DEFAULT,
                frame_bytes_max: PAYLOAD_BYTES_DEFAULT,
                max_concurrent_streams: None,
                extended_connect: false,
            },
            settings_acked: false,
            receive_window: i64::from(options.initial_connection_window_size),
            unreturned: 0,
            send_window: i64::from(WINDOW_DEFAULT),
            block: None,
            partial: BytesMut::new(),
            preface_left: if is_downstream { frame::PREFACE.len() } else { 0 },
            settings_seen: false,
            outbound: Outbound::new(OutboundLimits::new(&options.floods)),
            blocked: VecDeque::new(),
            inbound_limits: InboundLimits::new(options.floods.clone(), now),
            accepted: VecDeque::new(),
            waker: None,
            goaway_sent: None,
            shutdown_ping: false,
            goaway_received: false,
            frames_received: 0,
            keepalive_acked: false,
            closed: None,
            premature_resets: PrematureResets::default(),
            has_flooded: false,
            ended_by_resets: false,
            settings,
        };
        connection.greet();
        connection
    }

    /// The preface of our side (RFC 9113 section 3.4).
    fn greet(&mut self) {
        let Settings { role, options, .. } = &self.settings;
        let mut own = Vec::with_capacity(8);
        if *role == Role::Upstream {
            own.push((setting::ENABLE_PUSH, 0));
        }
        own.extend(options.custom_settings.iter().copied());
        own.extend([
            (setting::HEADER_TABLE_SIZE, options.hpack_table_size),
            (setting::ENABLE_CONNECT_PROTOCOL, u32::from(options.allow_connect)),
            (setting::MAX_CONCURRENT_STREAMS, options.max_concurrent_streams),
            (setting::INITIAL_WINDOW_SIZE, options.initial_stream_window_size),
        ]);
        let more = options.initial_connection_window_size.saturating_sub(WINDOW_DEFAULT);
        let is_upstream = *role == Role::Upstream;
        self.outbound.frame(false, |out| {
            if is_upstream {
                out.extend_from_slice(frame::PREFACE);
            }
            frame::put_settings(out, &own);
        });
        if more > 0 {
            self.outbound.frame(false, |out| frame::put_window_update(out, 0, more));
        }
    }

    fn receive(&mut self, mut input: &[u8]) -> Result<(), ConnectionFault> {
        input = self.preface(input)?;
        while !input.is_empty() && self.closed.is_none() {
            if self.partial.is_empty() {
                let Some(header) = FrameHeader::parse(input) else { break };
                self.check_frame(header)?;
                let Some(payload) = input.get(frame::HEADER_BYTES..frame::HEADER_BYTES + header.length) else { break };
                self.frame(header, payload)?;
                input = &input[frame::HEADER_BYTES + header.length..];
            } else {
                input = self.complete_partial(input)?;
            }
        }
        if !input.is_empty() && self.closed.is_none() {
            self.partial.extend_from_slice(input);
        }
        Ok(())
    }

    /// RFC 9113 section 3.4.
    fn preface<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], ConnectionFault> {
        if self.preface_left == 0 {
            return Ok(input);
        }
        let wanted = &frame::PREFACE[frame::PREFACE.len() - self.preface_left..];
        let here = wanted.len().min(input.len());
        if input[..here] != wanted[..here] {
            return Err(ConnectionFault::protocol("bad connection preface"));
        }
        self.preface_left -= here;
        Ok(&input[here..])
    }

    /// First the header of the frame that has begun, then its payload. Returns what belongs to later ones.
    fn complete_partial<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], ConnectionFault> {
        let header = FrameHeader::parse(&self.partial);
        let whole = frame::HEADER_BYTES + header.map_or(0, |header| header.length);
        let taken = (whole - self.partial.len()).min(input.len());
        self.partial.extend_from_slice(&input[..taken]);
        if self.partial.len() < whole {
            return Ok(&input[taken..]);
        }
        match header {
            None => {
                let header = FrameHeader::parse(&self.partial).expect("nine bytes are there");
                self.check_frame(header)?;
                if header.length == 0 {
                    self.partial.clear();
                    self.frame(header, &[])?;
                }
            }
            Some(header) => {
                let partial = std::mem::take(&mut self.partial);
                self.frame(header, &partial[frame::HEADER_BYTES..])?;
            }
        }
        Ok(&input[taken..])
    }

    /// What is wrong with a frame whatever it says: RFC 9113 sections 3.4, 4.2 and 6.10.
    fn check_frame(&mut self, header: FrameHeader) -> Result<(), ConnectionFault> {
        if !self.settings_seen {
            if header.kind != Kind::Settings || header.has(frame::flag::ACK) {
                return Err(ConnectionFault::protocol("SETTINGS expected"));
            }
            self.settings_seen = true;
        }
        if header.length > PAYLOAD_BYTES_DEFAULT {
            return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "too large frame size"));
        }
        if let Some(block) = &self.block
            && (header.kind != Kind::Continuation || header.stream_id != block.stream_id)
        {
            return Err(ConnectionFault::protocol("unexpected non-CONTINUATION frame or stream_id is invalid"));
        }
        Ok(())
    }

    /// The connection is over: streams learn why, the peer is told.
    pub fn fail(&mut self, fault: ConnectionFault) {
        if self.closed.is_some() {
            return;
        }
        if let Some(stat) = fault.stat {
            self.settings.counters.count(stat);
        }
        if self.opening().is_some() {
            self.accepted.push_back(Accepted::Refused { details: fault.details, by_connection: true });
        }
        self.has_flooded = fault.is_flood;
        let last_id = self.peer_id_max;
        self.outbound.frame(false, |out| frame::put_goaway(out, last_id, fault.reason, fault.debug));
        self.close(StreamError::ConnectionViolation(OTHER_STREAMS_DETAILS));
    }

    /// Nothing more is read. What is in `outbound` may still be written.
    pub fn close(&mut self, why: StreamError) {
        if self.closed.is_none() {
            self.closed = Some(why);
        }
        self.blocked.clear();
        self.block = None;
        self.partial = BytesMut::new();
        for (_, stream) in self.streams.drain() {
            self.settings.counters.uncount(Http2Stat::StreamsActive);
            self.premature_resets.note(&stream);
            stream.end(why);
        }
        self.wake();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The peer did, and the connection ended for it. Asking for too much is something else.
    pub fn broke_a_rule(&self) -> bool {
        let was_told = matches!(self.closed, Some(StreamError::ConnectionViolation(_)));
        was_told && !self.has_flooded || self.ended_by_resets
    }

    /// The peer took back too many of its requests.
    pub fn had_premature_resets(&self) -> bool {
        self.premature_resets.are_too_many()
    }

    /// By the peer, or because nothing reaches it any more.
    pub fn is_disconnected(&self) -> bool {
        self.closed == Some(StreamError::Disconnected)
    }

    pub(super) fn add_stream(&mut self, id: u32) -> Rc<Stream> {
        let opened = (self.settings.role == Role::Downstream).then(Instant::now);
        let stream = Stream::new(
            id,
            opened,
            self.settings.options.initial_stream_window_size,
            i64::from(self.peer.initial_window),
        );
        self.settings.counters.count(Http2Stat::StreamsActive);
        self.streams.insert(id, stream.clone());
        stream
    }

    /// Both directions are over.
    pub(super) fn forget(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.settings.counters.uncount(Http2Stat::StreamsActive);
            let are_too_many = self.premature_resets.note(&stream);
            self.end_if(are_too_many);
            if self.goaway_sent.is_some() && self.streams.is_empty() {
                self.wake();
            }
        }
    }

    pub(super) fn end_if(&mut self, has_premature_resets: bool) {
        if has_premature_resets && self.closed.is_none() {
            self.ended_by_resets = true;
            self.close(StreamError::Disconnected);
        }
    }

    /// Ends a stream by our RST_STREAM.
    pub(super) fn reset(&mut self, stream: &Stream, reason: Reason, why: StreamError) {
        if !self.streams.contains_key(&stream.id) {
            return;
        }
        self.refuse(stream.id, reason);
        self.discard_received(stream);
        stream.end(why);
        self.forget(stream.id);
    }

    /// RST_STREAM of a stream that is not served, or not any more.
    pub(super) fn refuse(&mut self, id: u32, reason: Reason) {
        self.outbound.frame(true, |out| frame::put_rst_stream(out, id, reason));
        self.settings.counters.count(Http2Stat::TxReset);
        if self.reset_ids.len() == RESET_IDS_MAX {
            self.reset_ids.pop_front();
        }
        self.reset_ids.push_back(id);
        self.wake();
    }

    /// RFC 9113 section 6.8: first that no more requests are wanted, and a round trip later from which on they were lost.
    pub fn start_shutdown(&mut self) {
        if self.goaway_sent.is_none() && self.closed.is_none() {
            self.goaway_sent = Some(frame::STREAM_ID_MAX);
            self.shutdown_ping = true;
            self.outbound.frame(false, |out| {
                frame::put_goaway(out, frame::STREAM_ID_MAX, Reason::NO_ERROR, "");
                frame::put_ping(out, 0, SHUTDOWN_PING);
            });
            self.wake();
        }
    }

    /// No stream that comes from now on is served.
    pub fn finish_shutdown(&mut self) {
        if self.closed.is_none() && self.goaway_sent.is_none_or(|last_id| last_id == frame::STREAM_ID_MAX) {
            let last_id = self.peer_id_max;
            self.goaway_sent = Some(last_id);
            self.outbound.frame(false, |out| frame::put_goaway(out, last_id, Reason::NO_ERROR, ""));
            self.settings.counters.count(Http2Stat::GoawaySent);
            self.wake();
        }
    }

    pub(super) fn send_ping(&mut self, opaque: [u8; 8]) {
        self.outbound.frame(false, |out| frame::put_ping(out, 0, opaque));
    }

    pub(super) fn ping_acked(&mut self, opaque: &[u8]) {
        if opaque == SHUTDOWN_PING && std::mem::take(&mut self.shutdown_ping) {
            self.finish_shutdown();
        } else if opaque == KEEPALIVE_PING {
            self.keepalive_acked = true;
            self.wake();
        }
    }

    /// Told to end, and nothing is under way any more.
    pub fn is_finished(&self) -> bool {
        let refuses = self.goaway_sent.is_some_and(|last_id| last_id != frame::STREAM_ID_MAX);
        refuses && self.streams.is_empty() && self.accepted.is_empty()
    }

    /// For the driver: it is polled again when there is something to write, or to see.
    pub fn register(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) if known.will_wake(waker) => {}
            waiting => *waiting = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// No stream, no bytes to write or of a frame that has begun.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.outbound.is_empty() && self.partial.is_empty()
    }
}
