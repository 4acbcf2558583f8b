//! HTTP/1 upstream: one exchange on a connection, driven by whoever waits for it. There is no task behind a connection: while
//! the response's head is awaited the request's future writes and reads, then the response's body does.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request, response};
use http_body::{Body as _, Frame};

use super::{
    chunked::TrailerLimits,
    decoder::{Decoder, Piece},
    encode::{self, BodyEncoder},
    options::ClientOptions,
    response_head::{self, Asked, ResponseHead},
    transport::Transport,
    violation::Violation,
};
use crate::{
    http::{
        body::{Body, BodyError},
        tunnel::Tunnel,
    },
    net::stream::Stream,
    upstream::pool::Http1Lease,
};

/// An open connection, between or within exchanges.
pub struct ClientConnection {
    transport: Transport,
}

impl ClientConnection {
    pub fn new(stream: Stream) -> ClientConnection {
        ClientConnection { transport: Transport::new(stream) }
    }

    /// Whether it can carry a request: the peer has neither closed it nor said anything unasked.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.transport.input.is_empty() && self.transport.poll_read(&mut cx).is_pending()
    }
}

/// A request on its way, until its response's head is here.
pub struct ClientExchange {
    lease: Http1Lease,
    options: ClientOptions,
    asked: Asked,
    sending: Option<Sending>,
    /// Bytes of the request written.
    written: u64,
    has_heard: bool,
}

/// The rest of a request.
struct Sending {
    body: Body,
    /// None: all of it is in the connection's buffer.
    encoder: Option<BodyEncoder>,
    options: ClientOptions,
    /// Of a tunnel that is not open yet: who refuses it might take its bytes for another request.
    is_held: bool,
    /// Of a CONNECT: the end of the connection is the only end there is.
    ends_connection: bool,
}

/// Why there is no response.
pub enum Failure {
    /// Nothing was written: the request can go elsewhere.
    Unsent(Body),
    ConnectionTermination,
    Violation(Violation),
    /// The request's own body has failed.
    RequestBody,
}

enum SendError {
    Source,
    Connection,
}

impl ClientExchange {
    pub fn begin(mut lease: Http1Lease, options: ClientOptions, head: &request::Parts, body: Body) -> Self {
        let tunnel = Tunnel::requested_by(head);
        let out = lease.connection().transport.tail();
        let is_bodiless = body.is_end_stream();
        let encoder = encode::request_head(head, tunnel, is_bodiless, options.format, out);
        let sending = Sending {
            body,
            encoder: Some(encoder),
            options,
            is_held: tunnel.is_some() && !is_bodiless,
            ends_connection: tunnel == Some(Tunnel::Connect),
        };
        ClientExchange {
            lease,
            options,
            asked: Asked::new(&head.method, tunnel),
            sending: Some(sending),
            written: 0,
            has_heard: false,
        }
    }

    /// The final response's head. Interim ones are given to `interim`, which may refuse more.
    pub async fn response(
        mut self,
        mut interim: impl FnMut(StatusCode, HeaderMap) -> bool,
    ) -> Result<(response::Parts, Body), Failure> {
        let head = std::future::poll_fn(|cx| self.poll_head(cx, &mut interim)).await?;
        Ok(self.into_body(head))
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut impl FnMut(StatusCode, HeaderMap) -> bool,
    ) -> Poll<Result<ResponseHead, Failure>> {
        let transport = &mut self.lease.connection().transport;
        if let Some(sending) = &mut self.sending {
            match sending.poll(transport, cx, &mut self.written) {
                Poll::Ready(Ok(())) => self.sending = None,
                Poll::Ready(Err(SendError::Source)) => return Poll::Ready(Err(Failure::RequestBody)),
                Poll::Ready(Err(SendError::Connection)) => {
                    let sending = self.sending.take();
                    if self.written == 0
                        && let Some(Sending { body, .. }) = sending
                    {
                        return Poll::Ready(Err(Failure::Unsent(body)));
                    }
                    // It may have been answered all the same.
                    self.lease.do_not_reuse();
                }
                Poll::Pending => {}
            }
        }
        let transport = &mut self.lease.connection().transport;
        loop {
            match response_head::parse_response(&mut transport.input, &self.options.rules, self.asked) {
                Err(violation) => return Poll::Ready(Err(Failure::Violation(violation))),
                Ok(Some(head)) if is_interim(head.parts.status) => {
                    self.has_heard = true;
                    if !interim(head.parts.status, head.parts.headers) {
                        return Poll::Ready(Err(Failure::Violation(Violation::Grammar)));
                    }
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => match ready!(transport.poll_read(cx)) {
                    Ok(read) if read > 0 => self.has_heard = true,
                    // RFC 9112 section 8: an incomplete message, in whichever way the connection ends.
                    _ if self.has_heard => return Poll::Ready(Err(Failure::Violation(Violation::Grammar))),
                    _ => return Poll::Ready(Err(Failure::ConnectionTermination)),
                },
            }
        }
    }

    fn into_body(self, head: ResponseHead) -> (response::Parts, Body) {
        let ClientExchange { mut lease, options, mut sending, asked, .. } = self;
        let ResponseHead { parts, length, keep_alive } = head;
        if !keep_alive {
            lease.do_not_reuse();
        }
        let opens_tunnel = asked.tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(parts.status));
        match &mut sending {
            Some(sending) if opens_tunnel => sending.is_held = false,
            Some(Sending { is_held: true, .. }) => {
                sending = None;
                lease.do_not_reuse();
            }
            _ => {}
        }
        let limits = TrailerLimits { bytes_max: options.rules.head_bytes_max, fields_max: options.rules.fields_max };
        let decoder = Decoder::new(length, limits);
        let mut body = UpstreamBody {
            lease: Some(lease),
            decoder,
            sending,
            passes_trailers: options.codec.enable_trailers,
            is_tunnel: opens_tunnel,
        };
        let body = match body.take_whole() {
            Some(whole) => whole,
            None => Body::Http1(Box::new(body)),
        };
        (parts, body)
    }
}

/// RFC 9110 section 15.2. 101 is final.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

impl Sending {
    /// Writes what the connection takes; ready when the request is written whole.
    fn poll(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let dry = self.fill(transport, cx).map_err(|_| SendError::Source)?;
            match transport.poll_write(cx, written) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(SendError::Connection)),
                Poll::Ready(Ok(())) if self.encoder.is_none() => {
                    if self.ends_connection {
                        let _ = ready!(transport.poll_shutdown(cx)); // Err: a peer that is gone needs no end
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if !dry => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether the source has no more at this time.
    fn fill(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Result<bool, SourceFailed> {
        if self.is_held {
            return Ok(true);
        }
        while let Some(encoder) = &mut self.encoder {
            if *encoder == BodyEncoder::Empty {
                return self.end(None, transport).map(|()| false);
            }
            if transport.output_bytes() >= self.options.buffer_bytes_max {
                return Ok(false);
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return Ok(true) };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => encoder.data(data, transport).map_err(|_| SourceFailed)?,
                Some(Ok(Err(frame))) => self.end(frame.into_trailers().ok(), transport)?,
                None => self.end(None, transport)?,
                Some(Err(_)) => return Err(SourceFailed),
            }
        }
        Ok(false)
    }

    fn end(&mut self, trailers: Option<HeaderMap>, transport: &mut Transport) -> Result<(), SourceFailed> {
        let trailers = trailers.filter(|_| self.options.codec.enable_trailers);
        match self.encoder.take() {
            Some(encoder) => encoder.end(trailers.as_ref(), transport).map_err(|_| SourceFailed),
            None => Ok(()),
        }
    }
}

/// The request's body broke off, or is not as long as its head said.
struct SourceFailed;

/// A response's body, read from its connection, and what is left to send of the request.
pub struct UpstreamBody {
    /// None: both directions are over.
    lease: Option<Http1Lease>,
    decoder: Decoder,
    sending: Option<Sending>,
    passes_trailers: bool,
    is_tunnel: bool,
}

impl UpstreamBody {
    /// A body that is here whole needs its connection no more.
    fn take_whole(&mut self) -> Option<Body> {
        let lease = self.lease.as_mut()?;
        let input = &mut lease.connection().transport.input;
        let body = match &self.decoder {
            Decoder::Done => Body::Empty,
            Decoder::Known(length) if *length <= input.len() as u64 => match self.decoder.decode(input).ok()? {
                Piece::Data(data) => Body::Full(data),
                _ => return None,
            },
            _ => return None,
        };
        self.finish();
        Some(body)
    }

    /// The response is over. Where the request is not, or more bytes came than asked for, so is the connection.
    fn finish(&mut self) {
        self.decoder = Decoder::Done;
        let request_sent = self.sending.take().is_none();
        if let Some(mut lease) = self.lease.take()
            && request_sent
            && lease.connection().transport.input.is_empty()
        {
            lease.give_back();
        }
    }

    /// Sends what is left of the request, as far as the connection takes it.
    pub fn poll_sending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let (Some(sending), Some(lease)) = (&mut self.sending, &mut self.lease) else { return Ok(()) };
        match sending.poll(&mut lease.connection().transport, cx, &mut 0) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sending = None,
            Poll::Ready(Err(SendError::Source)) => return Err(BodyError::Source),
            Poll::Ready(Err(SendError::Connection)) => {
                self.sending = None;
                lease.do_not_reuse();
            }
        }
        Ok(())
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Err(error) = self.poll_sending(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
            let transport = &mut lease.connection().transport;
            match self.decoder.decode(&mut transport.input) {
                Err(violation) => return Poll::Ready(Some(Err(BodyError::Http1(violation)))),
                Ok(Piece::Data(data)) => {
                    self.decoder.take_end(&mut transport.input);
                    if self.decoder.is_done() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Piece::Trailers(trailers)) => {
                    self.finish();
                    return Poll::Ready(self.passes_trailers.then(|| Ok(Frame::trailers(trailers))));
                }
                Ok(Piece::End) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Piece::More) => match ready!(transport.poll_read(cx)) {
                    Ok(read) if read > 0 => {}
                    // As in Envoy: what is inside knows when it is over, the connection's end tells nothing.
                    _ if self.is_tunnel => return Poll::Ready(Some(Err(BodyError::Disconnected))),
                    _ if self.decoder.ends_with_connection() => {
                        self.lease = None;
                        self.sending = None;
                        return Poll::Ready(None);
                    }
                    // RFC 9112 section 8: an incomplete message.
                    _ => return Poll::Ready(Some(Err(BodyError::Http1(Violation::Grammar)))),
                },
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }
}
