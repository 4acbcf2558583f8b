//! What a connection sends: heads, bodies within the windows (RFC 9113 section 5.2), and what it gives back of its own.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request, response};

use super::{
    connection::{Connection, Role, Shared},
    error::StreamError,
    frame::{self, Kind, Reason, WINDOW_MAX, flag},
    hpack::{Encoder, Indexing},
    stream::{RecvStream, SendStream, Stream, handles},
    upgrade,
};
use crate::stats::Http2Stat;

/// Streams before the peer's SETTINGS say otherwise: RFC 9113 section 6.5.2 recommends to allow at least this many.
const STREAMS_BEFORE_SETTINGS: usize = 100;

impl Connection {
    /// How many streams may be under way on this connection.
    pub fn streams_max(&self) -> usize {
        let ours = self.settings.options.max_concurrent_streams as usize;
        let theirs = match self.peer.max_concurrent_streams {
            Some(max) => max as usize,
            None if self.settings_acked => usize::MAX,
            None => STREAMS_BEFORE_SETTINGS,
        };
        ours.min(theirs)
    }

    /// Whether another request may be sent: RFC 9113 sections 5.1.1 and 6.8.
    pub fn takes_requests(&self) -> bool {
        let is_open = self.closed.is_none() && !self.goaway_received && self.goaway_sent.is_none();
        is_open && self.next_id <= frame::STREAM_ID_MAX
    }

    fn send_request(&mut self, head: &request::Parts, ended: bool) -> Rc<Stream> {
        let id = self.next_id;
        self.next_id += 2;
        let stream = self.add_stream(id);
        let upgrade = upgrade::asked_of_upstream(head);
        let end = if ended { flag::END_STREAM } else { 0 };
        self.block(id, end, |encoder, out| put_request(encoder, out, head, upgrade));
        self.inbound_limits.opened_streams += 1;
        stream.with(|state| {
            state.receiving.is_head_request = head.method == http::Method::HEAD;
            state.receiving.upgrade = upgrade.cloned();
            state.sending.is_finished = ended;
            state.sending.is_complete = ended;
        });
        self.wake();
        stream
    }

    pub(super) fn send_response(
        &mut self,
        stream: &Rc<Stream>,
        mut head: response::Parts,
        ended: bool,
    ) -> Result<(), StreamError> {
        let answers_upgrade = stream.with(|state| {
            if let Some(error) = state.ended {
                return Err(error);
            }
            state.sending.has_head = true;
            state.sending.is_finished = ended;
            state.sending.is_complete = ended;
            Ok(state.sending.answers_upgrade)
        })?;
        if answers_upgrade {
            upgrade::accepted_for_downstream(&mut head);
        }
        let end = if ended { flag::END_STREAM } else { 0 };
        self.block(stream.id, end, |encoder, out| put_response(encoder, out, head.status, &head.headers));
        self.inbound_limits.opened_streams += 1;
        self.settle(stream);
        self.wake();
        Ok(())
    }

    pub(super) fn send_informational(
        &mut self,
        stream: &Rc<Stream>,
        status: StatusCode,
        headers: HeaderMap,
    ) -> Result<(), StreamError> {
        if let Some(error) = stream.with(|state| state.ended) {
            return Err(error);
        }
        self.block(stream.id, 0, |encoder, out| put_response(encoder, out, status, &headers));
        self.wake();
        Ok(())
    }

    pub(super) fn send_data(&mut self, stream: &Rc<Stream>, data: Bytes, ended: bool) -> Result<(), StreamError> {
        stream.with(|state| {
            if let Some(error) = state.ended {
                return Err(error);
            }
            debug_assert!(state.sending.pending.is_empty(), "data is handed over when the stream is ready");
            state.sending.pending = data;
            state.sending.is_finished = ended;
            Ok(())
        })?;
        self.push(stream, usize::MAX);
        self.wake();
        Ok(())
    }

    pub(super) fn send_trailers(&mut self, stream: &Rc<Stream>, trailers: HeaderMap) -> Result<(), StreamError> {
        stream.with(|state| {
            if let Some(error) = state.ended {
                return Err(error);
            }
            state.sending.trailers = Some(trailers);
            state.sending.is_finished = true;
            Ok(())
        })?;
        self.push(stream, usize::MAX);
        self.wake();
        Ok(())
    }

    /// Frames up to `bytes_max` of what is pending on a stream; what has to wait is queued if it isn't for the stream's
    /// own window.
    fn push(&mut self, stream: &Rc<Stream>, mut bytes_max: usize) {
        let full = self.outbound.len() >= self.settings.buffer_bytes_max;
        loop {
            let connection_room = if full { 0 } else { self.send_window.max(0) as usize };
            let frame_max = self.peer.frame_bytes_max.min(bytes_max);
            let next = stream.with(|state| {
                let sending = &mut state.sending;
                if sending.is_complete || sending.pending.is_empty() {
                    return None;
                }
                let room = connection_room.min(sending.window.max(0) as usize).min(frame_max);
                if room == 0 {
                    let is_for_connection = sending.window > 0;
                    let queue = is_for_connection && !std::mem::replace(&mut sending.is_blocked, is_for_connection);
                    return Some((Bytes::new(), queue));
                }
                let length = room.min(sending.pending.len());
                sending.window -= length as i64;
                Some((sending.pending.split_to(length), false))
            });
            match next {
                None => return self.finish_pending(stream),
                Some((data, queue)) if data.is_empty() => {
                    if queue {
                        self.blocked.push_back(stream.clone());
                    }
                    return;
                }
                Some((data, _)) => {
                    self.send_window -= data.len() as i64;
                    bytes_max = bytes_max.saturating_sub(data.len());
                    self.data_frame(stream, data);
                }
            }
        }
    }

    fn data_frame(&mut self, stream: &Rc<Stream>, data: Bytes) {
        let ends = stream.with(|state| {
            let sending = &mut state.sending;
            sending.is_complete = sending.is_finished && sending.pending.is_empty() && sending.trailers.is_none();
            sending.is_complete
        });
        let (length, end) = (data.len(), if ends { flag::END_STREAM } else { 0 });
        self.outbound.frame_with(data, |out| frame::put_header(out, length, Kind::Data, end, stream.id));
        self.inbound_limits.data_frames_sent += 1;
    }

    /// All data was framed: what ends the stream, if it ends, and the sender may go on.
    fn finish_pending(&mut self, stream: &Rc<Stream>) {
        let (ends, trailers) = stream.with(|state| {
            let sending = &mut state.sending;
            let ends = sending.is_finished && !sending.is_complete;
            sending.is_complete |= ends;
            sending.wake();
            (ends, sending.trailers.take())
        });
        match trailers.filter(|trailers| !trailers.is_empty()) {
            Some(trailers) if ends => {
                self.block(stream.id, flag::END_STREAM, |encoder, out| put_fields(encoder, out, &trailers));
            }
            _ if ends => {
                let id = stream.id;
                self.outbound.frame(false, |out| frame::put_header(out, 0, Kind::Data, flag::END_STREAM, id));
                self.inbound_limits.data_frames_sent += 1;
            }
            _ => {}
        }
        self.settle(stream);
    }

    /// Frames what was kept back, a frame of each stream in turn, as far as the connection's window and buffer allow.
    pub fn flush_blocked(&mut self) {
        while self.send_window > 0
            && self.outbound.len() < self.settings.buffer_bytes_max
            && let Some(stream) = self.blocked.pop_front()
        {
            stream.with(|state| state.sending.is_blocked = false);
            if self.streams.contains_key(&stream.id) {
                let turn = self.peer.frame_bytes_max;
                self.push(&stream, turn);
            }
        }
    }

    /// The peer allows more, or less, on a stream. False: more than there can be.
    pub(super) fn widen(&mut self, stream: &Rc<Stream>, change: i64) -> bool {
        let (valid, has_pending) = stream.with(|state| {
            state.sending.window += change;
            (state.sending.window <= WINDOW_MAX, state.sending.window > 0 && !state.sending.pending.is_empty())
        });
        if valid && has_pending {
            self.push(stream, usize::MAX);
        }
        valid
    }

    /// A header block as HEADERS and, where it is long, CONTINUATION (RFC 9113 section 4.3).
    fn block(&mut self, id: u32, end: u8, write: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        let Connection { encoder, outbound, peer, .. } = self;
        let frame_max = peer.frame_bytes_max;
        outbound.frame(false, |out| {
            let start = out.len();
            frame::put_header(out, 0, Kind::Headers, end | flag::END_HEADERS, id);
            let block = out.len();
            encoder.begin(out);
            write(encoder, out);
            let length = out.len() - block;
            if length <= frame_max {
                let [_, length @ ..] = (length as u32).to_be_bytes();
                out[start..start + 3].copy_from_slice(&length);
                return;
            }
            let whole = out.split_off(block);
            out.truncate(start);
            let count = whole.chunks(frame_max).len();
            for (at, part) in whole.chunks(frame_max).enumerate() {
                let (kind, first) = if at == 0 { (Kind::Headers, end) } else { (Kind::Continuation, 0) };
                let last = if at + 1 == count { flag::END_HEADERS } else { 0 };
                frame::put_header(out, part.len(), kind, first | last, id);
                out.extend_from_slice(part);
            }
        });
    }

    /// The rest of the proxy has taken `bytes` of a stream's data.
    pub(super) fn consumed(&mut self, stream: &Stream, bytes: usize) {
        self.return_to_stream(stream, bytes);
    }

    /// Gives window back to the peer, on the stream and on the connection, once it is worth a frame.
    pub(super) fn return_to_stream(&mut self, stream: &Stream, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let initial = self.settings.options.initial_stream_window_size;
        let update = stream.with(|state| {
            let receiving = &mut state.receiving;
            if receiving.is_complete || state.ended.is_some() {
                return None;
            }
            receiving.unreturned += bytes as u32;
            if receiving.unreturned < initial / 2 {
                return None;
            }
            receiving.window += i64::from(receiving.unreturned);
            Some(std::mem::take(&mut receiving.unreturned))
        });
        if let Some(increment) = update
            && self.closed.is_none()
        {
            self.outbound.frame(false, |out| frame::put_window_update(out, stream.id, increment));
            self.wake();
        }
        self.return_to_connection(bytes);
    }

    pub(super) fn return_to_connection(&mut self, bytes: usize) {
        self.unreturned += bytes as u32;
        if self.unreturned >= self.settings.options.initial_connection_window_size / 2 && self.closed.is_none() {
            let increment = std::mem::take(&mut self.unreturned);
            self.receive_window += i64::from(increment);
            self.outbound.frame(false, |out| frame::put_window_update(out, 0, increment));
            self.wake();
        }
    }

    pub(super) fn discard_received(&mut self, stream: &Stream) {
        let discarded = stream.with(|state| state.receiving.data.drain(..).map(|data| data.len()).sum());
        self.return_to_connection(discarded);
    }

    /// Nobody reads a stream any more.
    pub(super) fn unwanted(&mut self, stream: &Rc<Stream>) {
        let is_complete = stream.with(|state| {
            state.receiving.is_unwanted = true;
            state.receiving.trailers = None;
            state.receiving.is_complete
        });
        self.discard_received(stream);
        if self.settings.role == Role::Upstream && !is_complete {
            self.reset(stream, Reason::CANCEL, StreamError::LocalReset(Reason::CANCEL));
        } else {
            self.settle(stream);
        }
    }

    /// Nobody sends on a stream any more.
    pub(super) fn unfinished(&mut self, stream: &Rc<Stream>, reason: Reason) {
        if stream.with(|state| !state.sending.is_finished && state.ended.is_none()) {
            self.reset(stream, reason, StreamError::LocalReset(reason));
        }
    }

    pub(super) fn flush_timed_out(&mut self, stream: &Rc<Stream>) {
        self.settings.counters.count(Http2Stat::TxFlushTimeout);
        self.reset(stream, Reason::CANCEL, StreamError::LocalReset(Reason::CANCEL));
    }

    /// Lets a stream go that has ended. RFC 9113 section 8.1: a complete response to a request that nobody reads on ends
    /// the stream without an error.
    pub(super) fn settle(&mut self, stream: &Rc<Stream>) {
        let (is_over, is_answered, reason) = stream.with(|state| {
            let is_answered = state.sending.is_complete && state.receiving.is_unwanted && state.ended.is_none();
            (state.is_complete(), is_answered, state.sending.reset_when_answered)
        });
        if is_over {
            self.forget(stream.id);
        } else if is_answered && self.settings.role == Role::Downstream {
            self.reset(stream, reason, StreamError::LocalReset(reason));
        }
    }
}

impl Shared {
    /// Opens a stream. None: the connection takes no more.
    pub(super) fn open(self: &Rc<Self>, head: &request::Parts, ended: bool) -> Option<(RecvStream, SendStream)> {
        let stream =
            self.with(|connection| connection.takes_requests().then(|| connection.send_request(head, ended)))?;
        Some(handles(self, stream, Role::Upstream))
    }
}

fn put_request(encoder: &mut Encoder, out: &mut BytesMut, head: &request::Parts, upgrade: Option<&HeaderValue>) {
    let method = if upgrade.is_some() { "CONNECT" } else { head.method.as_str() };
    encoder.field(out, ":method", method.as_bytes(), Indexing::Yes);
    if let Some(protocol) = upgrade {
        encoder.field(out, ":protocol", protocol.as_bytes(), Indexing::Yes);
    }
    // RFC 9113 section 8.5: CONNECT names an authority and nothing else.
    if upgrade.is_some() || head.method != http::Method::CONNECT {
        let scheme = head.uri.scheme_str().unwrap_or("http");
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        encoder.field(out, ":scheme", scheme.as_bytes(), Indexing::Yes);
        encoder.field(out, ":path", path.as_bytes(), Indexing::No);
    }
    if let Some(authority) = head.uri.authority() {
        encoder.field(out, ":authority", authority.as_str().as_bytes(), Indexing::Yes);
    }
    put_fields(encoder, out, &head.headers);
}

fn put_response(encoder: &mut Encoder, out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    encoder.field(out, ":status", status.as_str().as_bytes(), Indexing::Yes);
    put_fields(encoder, out, headers);
}

fn put_fields(encoder: &mut Encoder, out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        match *name {
            // RFC 9113 section 8.2.2: HTTP/2 says none of this with fields.
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => continue,
            header::TE if value != "trailers" => continue,
            _ if matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings") => continue,
            _ => encoder.field(out, name.as_str(), value.as_bytes(), indexing(name, value)),
        }
    }
}

fn indexing(name: &HeaderName, value: &HeaderValue) -> Indexing {
    if value.is_sensitive() {
        return Indexing::Never;
    }
    match *name {
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION | header::COOKIE => Indexing::Never,
        header::AGE
        | header::CONTENT_LENGTH
        | header::CONTENT_RANGE
        | header::ETAG
        | header::EXPIRES
        | header::IF_MODIFIED_SINCE
        | header::IF_NONE_MATCH
        | header::LAST_MODIFIED
        | header::LOCATION
        | header::SET_COOKIE => Indexing::No,
        _ => match name.as_str() {
            "x-request-id" | "traceparent" | "tracestate" | "x-b3-traceid" | "x-b3-spanid" | "x-b3-parentspanid"
            | "grpc-timeout" => Indexing::No,
            _ => Indexing::Yes,
        },
    }
}
