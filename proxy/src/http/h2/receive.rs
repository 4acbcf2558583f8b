//! What each frame of the peer does to a connection: RFC 9113 section 6. A rule that is broken ends the stream where
//! that is enough, and the connection where the two ends could otherwise disagree on what follows.

use bytes::{Bytes, BytesMut};
use std::{rc::Rc, time::Instant};

use super::{
    connection::{Accepted, Block, Connection, Role},
    error::{ConnectionFault, Malformed, StreamError},
    frame::{self, FrameHeader, Kind, Reason, WINDOW_MAX, flag, setting},
    head::{Collector, RequestFault},
    stream::Stream,
};
use crate::stats::Http2Stat;

/// Frames that one header block may be spread over.
const CONTINUATIONS_MAX: u32 = 1024;
/// Of one SETTINGS frame: far more than there are settings.
const SETTINGS_MAX: usize = 32;
/// Interim responses that wait to be read; more are dropped.
const INFORMATIONAL_MAX: usize = 16;

/// What an id that is not in use stands for: RFC 9113 section 5.1.
enum Absent {
    Idle,
    /// Ended, and the peer may not know yet.
    Reset,
    Closed,
}

impl Connection {
    pub(super) fn frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        self.frames_received += 1;
        match header.kind {
            Kind::Data => self.data(header, payload)?,
            Kind::Headers => self.headers(header, payload)?,
            Kind::Priority => self.priority(header, payload)?,
            Kind::RstStream => self.rst_stream(header, payload)?,
            Kind::Settings => self.settings(header, payload)?,
            // We are no client that takes pushes, nor a server that could get one (RFC 9113 section 8.4).
            Kind::PushPromise => return Err(ConnectionFault::protocol("PUSH_PROMISE: not allowed")),
            Kind::Ping => self.ping(header, payload)?,
            Kind::GoAway => self.goaway(header, payload)?,
            Kind::WindowUpdate => self.window_update(header, payload)?,
            Kind::Continuation => self.continuation(header, payload)?,
            Kind::Unknown => {}
        }
        Ok(self.outbound.limits().check()?)
    }

    fn absent(&self, id: u32) -> Absent {
        let is_ours = id % 2 == 1;
        let opened = match self.settings.role {
            Role::Downstream => is_ours && id <= self.peer_id_max,
            Role::Upstream => is_ours && id < self.next_id,
        };
        match opened {
            false => Absent::Idle,
            true if self.reset_ids.contains(&id) => Absent::Reset,
            true => Absent::Closed,
        }
    }

    /// RFC 9113 section 6.1.
    fn data(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        if header.stream_id == 0 {
            return Err(ConnectionFault::protocol("DATA: stream_id == 0"));
        }
        let Some(data) = frame::unpadded(payload, header) else {
            return Err(ConnectionFault::protocol("DATA: invalid padding"));
        };
        let flood = self.inbound_limits.received(header, data.len());
        // Padding counts as much as what it pads (section 6.9.1).
        self.receive_window -= payload.len() as i64;
        if self.receive_window < 0 {
            return Err(ConnectionFault::new(Reason::FLOW_CONTROL_ERROR, "DATA: connection window exceeded"));
        }
        let Some(stream) = self.streams.get(&header.stream_id).cloned() else {
            flood?;
            return match self.absent(header.stream_id) {
                Absent::Idle => Err(ConnectionFault::protocol("DATA: stream in idle")),
                Absent::Closed => Err(ConnectionFault::new(Reason::STREAM_CLOSED, "DATA: stream closed")),
                Absent::Reset => {
                    self.return_to_connection(payload.len());
                    Ok(())
                }
            };
        };
        flood.map_err(|flood| blamed(&stream, flood.into()))?;
        self.stream_data(&stream, header, data, payload.len())
    }

    fn stream_data(
        &mut self,
        stream: &Rc<Stream>,
        header: FrameHeader,
        data: &[u8],
        flow_bytes: usize,
    ) -> Result<(), ConnectionFault> {
        enum Fate {
            Kept,
            Unwanted,
            Fault(ConnectionFault),
            Reset(Reason, &'static str),
        }
        let is_upstream = self.settings.role == Role::Upstream;
        let ends = header.has(flag::END_STREAM);
        let fate = stream.with(|state| {
            let receiving = &mut state.receiving;
            if receiving.is_complete {
                let fault = ConnectionFault::new(Reason::STREAM_CLOSED, "DATA: stream in half-closed(remote)");
                return Fate::Fault(ConnectionFault { details: "http2.unknown.nghttp2.error", ..fault });
            }
            receiving.window -= flow_bytes as i64;
            if receiving.window < 0 {
                return Fate::Reset(Reason::FLOW_CONTROL_ERROR, "http2.unknown.nghttp2.error");
            }
            // RFC 9113 section 8.1.1: what was announced is what comes.
            let left = receiving.expected.map(|expected| expected.checked_sub(data.len() as u64));
            let is_wrong = matches!(left, Some(None)) || ends && matches!(left, Some(Some(1..)));
            if is_wrong || is_upstream && !receiving.has_head {
                return Fate::Reset(Reason::PROTOCOL_ERROR, "http2.remote_reset");
            }
            receiving.expected = left.flatten();
            receiving.is_complete = ends;
            receiving.wake();
            if receiving.is_unwanted {
                return Fate::Unwanted;
            }
            if !data.is_empty() {
                receiving.data.push_back(Bytes::copy_from_slice(data));
            }
            Fate::Kept
        });
        match fate {
            Fate::Kept => self.return_to_stream(stream, flow_bytes - data.len()),
            Fate::Unwanted => self.return_to_stream(stream, flow_bytes),
            Fate::Fault(fault) => return Err(blamed(stream, fault)),
            Fate::Reset(reason, details) => {
                self.return_to_connection(flow_bytes);
                if details == "http2.remote_reset" {
                    self.settings.counters.count(Http2Stat::RxMessagingError);
                }
                self.reset(stream, reason, StreamError::Violation(details));
            }
        }
        self.settle(stream);
        Ok(())
    }

    /// RFC 9113 section 6.2.
    fn headers(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        if header.stream_id == 0 {
            return Err(ConnectionFault::protocol("HEADERS: stream_id == 0"));
        }
        let Some(mut fragment) = frame::unpadded(payload, header) else {
            return Err(ConnectionFault::protocol("HEADERS: invalid padding"));
        };
        if header.has(flag::PRIORITY) {
            let Some((priority, rest)) = fragment.split_at_checked(5) else {
                return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "HEADERS: invalid length"));
            };
            if frame::number31(priority) == Some(header.stream_id) {
                return Err(ConnectionFault::protocol("HEADERS: depends on itself"));
            }
            fragment = rest;
        }
        self.inbound_limits.received(header, fragment.len())?;
        let ends_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.header_block(header.stream_id, ends_stream, fragment);
        }
        let bytes = BytesMut::from(fragment);
        self.block = Some(Block { stream_id: header.stream_id, ends_stream, continuations: 0, bytes });
        Ok(())
    }

    /// RFC 9113 section 6.10. That it is of the right stream was checked.
    fn continuation(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        self.inbound_limits.received(header, payload.len())?;
        let bytes_max = 2 * self.settings.headers.bytes_max + frame::PAYLOAD_BYTES_DEFAULT;
        let Some(block) = &mut self.block else {
            return Err(ConnectionFault::protocol("CONTINUATION: unexpected"));
        };
        block.continuations += 1;
        if block.continuations > CONTINUATIONS_MAX || block.bytes.len() + payload.len() > bytes_max {
            let fault = ConnectionFault::new(Reason::ENHANCE_YOUR_CALM, "CONTINUATION: too many");
            let details = Malformed::TooMany.details();
            return Err(ConnectionFault { stat: Some(Http2Stat::HeaderOverflow), details, ..fault });
        }
        block.bytes.extend_from_slice(payload);
        if header.has(flag::END_HEADERS)
            && let Some(block) = self.block.take()
        {
            return self.header_block(block.stream_id, block.ends_stream, &block.bytes);
        }
        Ok(())
    }

    /// A whole header block. It is decoded whatever becomes of it: the compression state is the connection's.
    fn header_block(&mut self, id: u32, ends_stream: bool, block: &[u8]) -> Result<(), ConnectionFault> {
        let mut collector = Collector::new(self.settings.headers);
        let decoded = self.decoder.decode(block, |field, size| collector.add(field, size));
        if decoded.is_err() {
            self.peer_id_max = self.peer_id_max.max(if self.settings.role == Role::Downstream { id } else { 0 });
            return Err(ConnectionFault::new(Reason::COMPRESSION_ERROR, ""));
        }
        match (self.streams.get(&id).cloned(), self.settings.role) {
            (Some(stream), role) => {
                let (is_complete, has_head) =
                    stream.with(|state| (state.receiving.is_complete, state.receiving.has_head));
                if is_complete {
                    let fault = ConnectionFault::new(Reason::STREAM_CLOSED, "HEADERS: stream in half-closed(remote)");
                    return Err(blamed(&stream, ConnectionFault { details: "http2.unknown.nghttp2.error", ..fault }));
                }
                match role {
                    Role::Upstream if !has_head => self.response(&stream, collector, ends_stream),
                    Role::Upstream | Role::Downstream => self.trailers(&stream, collector, ends_stream),
                }
            }
            (None, Role::Downstream) if id % 2 == 1 && id > self.peer_id_max => {
                self.request(id, collector, ends_stream)
            }
            (None, _) => match self.absent(id) {
                Absent::Reset => Ok(()),
                Absent::Closed if self.settings.role == Role::Upstream => Ok(()),
                Absent::Closed => Err(ConnectionFault::new(Reason::STREAM_CLOSED, "HEADERS: stream closed")),
                Absent::Idle => Err(ConnectionFault::protocol("HEADERS: invalid stream_id")),
            },
        }
    }

    /// The stream that a header block means to open, while the block goes on and on.
    pub(super) fn opening(&self) -> Option<u32> {
        let block = self.block.as_ref()?;
        let is_new = self.settings.role == Role::Downstream && block.stream_id > self.peer_id_max;
        (is_new && block.stream_id % 2 == 1).then_some(block.stream_id)
    }

    /// Opens it before its head is whole, so that it can be answered. The rest of the block is read for the sake of the
    /// compression state.
    pub(super) fn open_unfinished(&mut self) -> Option<Rc<Stream>> {
        let id = self.opening().filter(|id| self.goaway_sent.is_none_or(|last_id| *id <= last_id))?;
        self.peer_id_max = id;
        Some(self.add_stream(id))
    }

    fn request(&mut self, id: u32, collector: Collector, ends_stream: bool) -> Result<(), ConnectionFault> {
        // RFC 9113 section 6.8: what comes after our last word is as if it had never been sent.
        if self.goaway_sent.is_some_and(|last_id| id > last_id) {
            return Ok(());
        }
        self.peer_id_max = id;
        if self.streams.len() >= self.settings.options.max_concurrent_streams as usize {
            self.settings.counters.count(Http2Stat::StreamRefusedErrors);
            self.refuse(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let head = match collector.request(self.settings.options.allow_connect) {
            Ok(head) => Ok(head),
            Err(RequestFault::UnusableTarget) => Err(()),
            Err(RequestFault::Malformed(fault)) => return self.malformed_request(id, fault),
        };
        // RFC 9113 section 8.1.1.
        if ends_stream && head.as_ref().is_ok_and(|head| head.content_length.is_some_and(|length| length > 0)) {
            return self.malformed_request(id, Malformed::Message);
        }
        let stream = self.add_stream(id);
        stream.with(|state| {
            state.receiving.is_complete = ends_stream;
            if let Ok(head) = &head {
                state.receiving.expected = head.content_length;
                state.sending.answers_upgrade = head.is_extended_connect;
            }
        });
        self.accepted.push_back(match head {
            Ok(head) => Accepted::Request(Box::new(head), stream),
            Err(()) => Accepted::UnusableTarget(stream),
        });
        Ok(())
    }

    fn malformed_request(&mut self, id: u32, fault: Malformed) -> Result<(), ConnectionFault> {
        let by_connection = self.ends_connection(fault);
        self.accepted.push_back(Accepted::Refused { details: fault.details(), by_connection });
        if by_connection {
            return Err(ConnectionFault::protocol(fault.details()));
        }
        self.refuse(id, reason_of(fault));
        let are_too_many = self.premature_resets.note_refused();
        self.end_if(are_too_many);
        Ok(())
    }

    /// Counts the fault. Whether the connection is to end, too, for what is wrong with one message.
    fn ends_connection(&self, fault: Malformed) -> bool {
        match fault {
            Malformed::Field | Malformed::Message => {
                self.settings.counters.count(Http2Stat::RxMessagingError);
                !self.settings.stream_error_on_invalid_message
            }
            Malformed::TooMany => {
                self.settings.counters.count(Http2Stat::HeaderOverflow);
                false
            }
            Malformed::TooLarge => {
                self.settings.counters.count(Http2Stat::HeaderListSizeTooLarge);
                false
            }
        }
    }

    /// The peer's message on a stream that is under way is malformed.
    fn malformed(&mut self, stream: &Rc<Stream>, fault: Malformed) -> Result<(), ConnectionFault> {
        if self.ends_connection(fault) {
            let fault = ConnectionFault { details: fault.details(), ..ConnectionFault::protocol(fault.details()) };
            return Err(blamed(stream, fault));
        }
        let error = match fault {
            Malformed::Field | Malformed::Message => StreamError::Violation(fault.details()),
            Malformed::TooMany | Malformed::TooLarge => StreamError::HeadersOverLimit(fault.details()),
        };
        self.reset(stream, reason_of(fault), error);
        Ok(())
    }

    fn trailers(&mut self, stream: &Rc<Stream>, collector: Collector, ends: bool) -> Result<(), ConnectionFault> {
        let trailers = match collector.trailers() {
            Ok(trailers) if ends => trailers,
            Ok(_) => return self.malformed(stream, Malformed::Message),
            Err(fault) => return self.malformed(stream, fault),
        };
        if stream.with(|state| matches!(state.receiving.expected, Some(1..))) {
            return self.malformed(stream, Malformed::Message);
        }
        self.settings.counters.count(Http2Stat::Trailers);
        stream.with(|state| {
            state.receiving.is_complete = true;
            state.receiving.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
            state.receiving.wake();
        });
        self.settle(stream);
        Ok(())
    }

    fn response(&mut self, stream: &Rc<Stream>, collector: Collector, ends: bool) -> Result<(), ConnectionFault> {
        let mut head = match collector.response() {
            // RFC 9113 section 8.1: an interim response is not the last of its stream.
            Ok(head) if head.parts.status.is_informational() && ends => {
                return self.malformed(stream, Malformed::Message);
            }
            Ok(head) => head,
            Err(fault) => return self.malformed(stream, fault),
        };
        let is_wrong = stream.with(|state| {
            let receiving = &mut state.receiving;
            if head.parts.status.is_informational() {
                if receiving.informational.len() < INFORMATIONAL_MAX {
                    receiving.informational.push_back(Box::new(head.parts));
                }
                receiving.wake();
                return false;
            }
            // RFC 9110 section 6.4.1: the length of these is what it would have been otherwise.
            let status = head.parts.status.as_u16();
            let has_no_body = receiving.is_head_request || status == 304;
            receiving.expected = head.content_length.filter(|_| !has_no_body);
            if ends && matches!(receiving.expected, Some(1..)) {
                return true;
            }
            if let Some(upgrade) = receiving.upgrade.take() {
                super::upgrade::accepted_by_upstream(&mut head.parts, upgrade);
            }
            receiving.has_head = true;
            receiving.head = Some(Box::new(head.parts));
            receiving.is_complete = ends;
            receiving.wake();
            false
        });
        if is_wrong {
            return self.malformed(stream, Malformed::Message);
        }
        self.settle(stream);
        Ok(())
    }

    /// RFC 9113 section 6.3: of no effect, but of a form.
    fn priority(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        if header.stream_id == 0 {
            return Err(ConnectionFault::protocol("PRIORITY: stream_id == 0"));
        }
        if payload.len() != 5 {
            return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "PRIORITY: invalid length"));
        }
        if frame::number31(payload) == Some(header.stream_id) {
            return Err(ConnectionFault::protocol("PRIORITY: depends on itself"));
        }
        Ok(self.inbound_limits.received(header, payload.len())?)
    }

    /// RFC 9113 section 6.4.
    fn rst_stream(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        let id = header.stream_id;
        if id == 0 {
            return Err(ConnectionFault::protocol("RST_STREAM: stream_id == 0"));
        }
        let (4, Some(reason)) = (payload.len(), frame::number32(payload)) else {
            return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "RST_STREAM: invalid length"));
        };
        let Some(stream) = self.streams.get(&id).cloned() else {
            return match self.absent(id) {
                Absent::Idle => Err(ConnectionFault::protocol("RST_STREAM: stream in idle")),
                Absent::Reset | Absent::Closed => Ok(()),
            };
        };
        self.settings.counters.count(Http2Stat::RxReset);
        stream.end(StreamError::RemoteReset(Reason(reason)));
        self.forget(id);
        if self.settings.role == Role::Downstream {
            self.inbound_limits.reset_received(Instant::now())?;
        }
        Ok(())
    }

    /// RFC 9113 section 6.5.
    fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        if header.stream_id != 0 {
            return Err(ConnectionFault::protocol("SETTINGS: stream_id != 0"));
        }
        if header.has(flag::ACK) && !payload.is_empty() || !payload.len().is_multiple_of(frame::SETTING_BYTES) {
            return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "SETTINGS: invalid length"));
        }
        if header.has(flag::ACK) {
            if !std::mem::replace(&mut self.settings_acked, true) {
                self.decoder.limit(self.settings.options.hpack_table_size);
            }
            return Ok(());
        }
        if payload.len() / frame::SETTING_BYTES > SETTINGS_MAX {
            return Err(ConnectionFault::new(Reason::ENHANCE_YOUR_CALM, "SETTINGS: too many setting entries"));
        }
        let window_before = self.peer.initial_window;
        for (id, value) in frame::settings(payload) {
            self.setting(id, value)?;
        }
        // Once a frame, however often it names the window: streams are many.
        self.initial_window_changed(i64::from(self.peer.initial_window) - i64::from(window_before))?;
        self.outbound.frame(true, frame::put_settings_ack);
        Ok(())
    }

    /// RFC 9113 section 6.9.2: it changes the windows of open streams, too.
    fn initial_window_changed(&mut self, change: i64) -> Result<(), ConnectionFault> {
        if change == 0 {
            return Ok(());
        }
        let streams: Vec<Rc<Stream>> = self.streams.values().cloned().collect();
        match streams.iter().all(|stream| self.widen(stream, change)) {
            true => Ok(()),
            false => Err(ConnectionFault::new(Reason::FLOW_CONTROL_ERROR, "SETTINGS: too large window")),
        }
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), ConnectionFault> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.limit(value),
            setting::ENABLE_PUSH if value > 1 || value == 1 && self.settings.role == Role::Upstream => {
                return Err(ConnectionFault::protocol("SETTINGS: invalid ENABLE_PUSH"));
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_concurrent_streams = Some(value),
            setting::INITIAL_WINDOW_SIZE => {
                if i64::from(value) > WINDOW_MAX {
                    return Err(ConnectionFault::new(Reason::FLOW_CONTROL_ERROR, "SETTINGS: too large window"));
                }
                self.peer.initial_window = value;
            }
            setting::MAX_FRAME_SIZE => {
                if !(frame::PAYLOAD_BYTES_DEFAULT as u32..=frame::PAYLOAD_BYTES_MAX).contains(&value) {
                    return Err(ConnectionFault::protocol("SETTINGS: invalid MAX_FRAME_SIZE"));
                }
                self.peer.frame_bytes_max = value as usize;
            }
            // RFC 8441 section 3: what was allowed stays allowed.
            setting::ENABLE_CONNECT_PROTOCOL => {
                if value > 1 || value == 0 && self.peer.extended_connect {
                    return Err(ConnectionFault::protocol("SETTINGS: invalid ENABLE_CONNECT_PROTOCOL"));
                }
                self.peer.extended_connect = value == 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9113 section 6.7.
    fn ping(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        if header.stream_id != 0 {
            return Err(ConnectionFault::protocol("PING: stream_id != 0"));
        }
        let Ok(opaque) = <[u8; 8]>::try_from(payload) else {
            return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "PING: invalid length"));
        };
        if header.has(flag::ACK) {
            self.ping_acked(&opaque);
        } else {
            self.outbound.frame(true, |out| frame::put_ping(out, flag::ACK, opaque));
        }
        Ok(())
    }

    /// RFC 9113 section 6.8.
    fn goaway(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        if header.stream_id != 0 {
            return Err(ConnectionFault::protocol("GOAWAY: stream_id != 0"));
        }
        let Some((last_id, _)) = frame::number31(payload).filter(|_| payload.len() >= 8).map(|id| (id, ())) else {
            return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "GOAWAY: invalid length"));
        };
        self.goaway_received = true;
        if self.settings.role == Role::Upstream {
            let lost: Vec<Rc<Stream>> = self.streams.values().filter(|stream| stream.id > last_id).cloned().collect();
            for stream in lost {
                stream.end(StreamError::Unprocessed);
                self.forget(stream.id);
            }
        }
        self.wake();
        Ok(())
    }

    /// RFC 9113 section 6.9.
    fn window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionFault> {
        let (4, Some(increment)) = (payload.len(), frame::number31(payload)) else {
            return Err(ConnectionFault::new(Reason::FRAME_SIZE_ERROR, "WINDOW_UPDATE: invalid length"));
        };
        self.inbound_limits.received(header, payload.len())?;
        if increment == 0 {
            return Err(ConnectionFault::protocol("WINDOW_UPDATE: window_size_increment == 0"));
        }
        if header.stream_id == 0 {
            self.send_window += i64::from(increment);
            if self.send_window > WINDOW_MAX {
                return Err(ConnectionFault::new(Reason::FLOW_CONTROL_ERROR, "WINDOW_UPDATE: too large window"));
            }
            return Ok(());
        }
        match self.streams.get(&header.stream_id).cloned() {
            Some(stream) => {
                if !self.widen(&stream, i64::from(increment)) {
                    let error = StreamError::Violation("http2.unknown.nghttp2.error");
                    self.reset(&stream, Reason::FLOW_CONTROL_ERROR, error);
                }
                Ok(())
            }
            None => match self.absent(header.stream_id) {
                Absent::Idle => Err(ConnectionFault::protocol("WINDOW_UPDATE: stream in idle")),
                Absent::Reset | Absent::Closed => Ok(()),
            },
        }
    }
}

/// The stream that is at fault learns what the connection ends for.
fn blamed(stream: &Stream, fault: ConnectionFault) -> ConnectionFault {
    stream.end(StreamError::ConnectionViolation(fault.details));
    fault
}

fn reason_of(fault: Malformed) -> Reason {
    match fault {
        Malformed::Field | Malformed::Message => Reason::PROTOCOL_ERROR,
        Malformed::TooMany | Malformed::TooLarge => Reason::INTERNAL_ERROR,
    }
}
