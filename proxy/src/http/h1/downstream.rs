//! HTTP/1 downstream: one request at a time is read, answered and written in the connection's own task (RFC 9112).
//!
//! A request that breaks the rules gets a response that says so, and the connection ends: where the next request begins
//! is anybody's guess. The same goes for a response that comes before its request is complete.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BufMut as _;
use http::{HeaderValue, Request, Response, Version, header, response};
use http_body::Body as _;
use tokio::time::Sleep;
use tower::Service;

use super::{
    chunked::TrailerLimits,
    decoder::Decoder,
    encode::{self, ResponseTo},
    incoming::{Fault, IncomingBody, Shared},
    request_head::{self, RequestHead, RequestRules},
    response_writer::{ResponseWriter, Written},
    transport::Transport,
    violation::Violation,
};
use crate::{
    config::http_protocol::HeaderCase,
    http::{
        body::Body,
        connection_manager::{self, HttpConnection},
        exchange::{Exchange, ResponseBody},
        head_deadline::HeadDeadline,
        local_reply::LocalReply,
        response_flags::ResponseFlags,
        tunnel::Tunnel,
    },
    listener::registry::Order,
    net::{linger::linger, stream::Stream},
    stats::HttpStat,
};

pub async fn serve(connection: &Rc<HttpConnection>, stream: Stream) {
    let mut service = connection_manager::service(connection.clone());
    let codec = Codec::new(connection, stream);
    let ending = loop {
        let after = match codec.next_request().await {
            Next::Request(head) => codec.exchange(*head, &mut service).await,
            Next::Refused(refusal) => codec.refuse_unread(&refusal).await,
            Next::Ended => After::Linger,
            Next::Gone => After::Close,
        };
        if after != After::NextRequest {
            break after;
        }
    };
    codec.close(ending).await;
}

struct Codec<'a> {
    connection: &'a Rc<HttpConnection>,
    shared: Rc<Shared>,
    rules: RequestRules,
    case: HeaderCase,
}

enum Next {
    Request(Box<RequestHead>),
    Refused(Refusal),
    /// Told to end while nothing was under way.
    Ended,
    /// The peer has closed.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    NextRequest,
    /// The peer expects the end.
    Close,
    /// The peer may still be sending.
    Linger,
}

/// A request that is refused by the codec.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Violation(Violation),
    /// Its head takes too long.
    Late(HeadDeadline),
}

/// What a head says that is needed until its response is written.
#[derive(Clone, Copy)]
struct Answering {
    to: ResponseTo,
    keep_alive: bool,
    /// Answered at once, before any of the request's body could be looked at.
    immediate: bool,
}

/// How a request was not answered by what is behind the codec.
enum Cut {
    Disconnected,
    Violation(Violation),
}

impl From<Fault> for Cut {
    fn from(fault: Fault) -> Cut {
        match fault {
            Fault::Disconnected => Cut::Disconnected,
            Fault::Violation(violation) => Cut::Violation(violation),
        }
    }
}

impl Codec<'_> {
    fn new(connection: &Rc<HttpConnection>, stream: Stream) -> Codec<'_> {
        let config = &connection.active.config;
        Codec {
            connection,
            shared: Rc::new(Shared {
                transport: RefCell::new(Transport::new(stream)),
                decoder: RefCell::new(Decoder::Done),
                fault: Cell::new(None),
                passes_trailers: config.http1.codec.enable_trailers,
            }),
            rules: RequestRules {
                head_bytes_max: config.max_request_headers_bytes as usize,
                fields_max: config.max_headers_count as usize,
                accept_http_10: config.http1.accept_http_10,
                allow_chunked_length: config.http1.codec.allow_chunked_length,
                allow_custom_methods: config.http1.allow_custom_methods,
                preserve_case: config.http1.codec.preserve_case,
            },
            case: config.http1.codec.header_case,
        }
    }

    /// Waits for a request's head.
    async fn next_request(&self) -> Next {
        let mut deadline: Option<(HeadDeadline, Pin<Box<Sleep>>)> = None;
        std::future::poll_fn(|cx| {
            loop {
                let mut transport = self.shared.transport.borrow_mut();
                match request_head::parse_request(&mut transport.input, &self.rules) {
                    Ok(Some(head)) => return Poll::Ready(Next::Request(Box::new(head))),
                    Err(violation) => return Poll::Ready(Next::Refused(Refusal::Violation(violation))),
                    Ok(None) => {}
                }
                if let Some(order @ (Order::IdleTimeout | Order::Close)) = self.connection.downstream.order(cx) {
                    self.connection.count_order(order);
                    return Poll::Ready(Next::Ended);
                }
                match transport.poll_read(cx) {
                    Poll::Ready(Ok(read)) if read > 0 => {}
                    Poll::Ready(_) => {
                        if !transport.input.is_empty() {
                            // A request that never became one is one all the same, in the counts and the log.
                            drop(self.connection.unread_exchange(Version::HTTP_11));
                        }
                        return Poll::Ready(Next::Gone);
                    }
                    Poll::Pending if transport.input.is_empty() => return Poll::Pending,
                    Poll::Pending => {
                        let Some((which, timer)) = deadline.as_mut() else {
                            deadline = self.head_deadline();
                            if deadline.is_none() {
                                return Poll::Pending;
                            }
                            continue;
                        };
                        return timer.as_mut().poll(cx).map(|()| Next::Refused(Refusal::Late(*which)));
                    }
                }
            }
        })
        .await
    }

    fn head_deadline(&self) -> Option<(HeadDeadline, Pin<Box<Sleep>>)> {
        let (which, after) = HeadDeadline::first(&self.connection.active.config)?;
        Some((which, Box::pin(tokio::time::sleep(after))))
    }

    async fn refuse_unread(&self, refusal: &Refusal) -> After {
        let exchange = self.connection.unread_exchange(Version::HTTP_11);
        self.refuse(&exchange, refusal, UNREAD).await
    }

    async fn refuse(&self, exchange: &Rc<Exchange>, refusal: &Refusal, answering: Answering) -> After {
        self.count_refusal(refusal);
        exchange.forget_outcome();
        let response = self.connection.answer_locally(exchange, refusal.reply());
        self.write_response(exchange, response, Answering { keep_alive: false, ..answering }).await;
        After::Linger
    }

    fn count_refusal(&self, refusal: &Refusal) {
        self.connection.count(match refusal {
            Refusal::Violation(violation) => {
                let peer = self.connection.downstream.remote_address;
                tracing::debug!(%peer, %violation, "request refused");
                HttpStat::CxProtocolError
            }
            Refusal::Late(deadline) => deadline.stat(),
        });
    }

    /// One request, from its head to the last byte of its response.
    async fn exchange<S>(&self, head: RequestHead, service: &mut S) -> After
    where
        S: Service<(Rc<Exchange>, Request<Body>), Response = Response<ResponseBody>, Error = Infallible>,
    {
        let RequestHead { mut parts, length, keep_alive, tunnel } = head;
        let exchange = Exchange::new(self.connection.clone(), &parts);
        let limits = TrailerLimits { bytes_max: self.rules.head_bytes_max, fields_max: self.rules.fields_max };
        *self.shared.decoder.borrow_mut() = Decoder::new(length, limits);
        let body = if self.shared.is_request_complete() {
            Body::Empty
        } else {
            Body::Incoming(IncomingBody::new(&self.shared))
        };
        let to = ResponseTo { is_head: parts.method == http::Method::HEAD, version: parts.version, tunnel };
        self.continue_expected(&mut parts);
        // On the heap as long as the request is under way: an idle connection is spared the room.
        let answered = Box::pin(service.call((exchange.clone(), Request::from_parts(parts, body))));
        let answering = Answering { to, keep_alive, immediate: false };
        match self.answer(&exchange, to, answered).await {
            Ok((response, immediate)) => {
                self.write_response(&exchange, response, Answering { immediate, ..answering }).await
            }
            Err(Cut::Disconnected) => {
                exchange.forget_outcome();
                After::Close
            }
            Err(Cut::Violation(violation)) => self.refuse(&exchange, &Refusal::Violation(violation), answering).await,
        }
    }

    /// RFC 9110 section 10.1.1: the proxy answers the expectation itself, unless that is left to the upstream.
    fn continue_expected(&self, parts: &mut http::request::Parts) {
        let expected = parts.headers.get(header::EXPECT);
        if !expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
            || self.connection.active.config.proxy_100_continue
        {
            return;
        }
        parts.headers.remove(header::EXPECT);
        if parts.version == Version::HTTP_11 {
            self.shared.transport.borrow_mut().tail().put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// The response, and whether it came without waiting for anything.
    async fn answer(
        &self,
        exchange: &Exchange,
        to: ResponseTo,
        mut answered: Pin<Box<impl Future<Output = Result<Response<ResponseBody>, Infallible>>>>,
    ) -> Result<(Response<ResponseBody>, bool), Cut> {
        let mut immediate = true;
        std::future::poll_fn(|cx| {
            self.connection.downstream.order(cx); // woken by an order, the response says `connection: close`
            let polled = answered.as_mut().poll(cx);
            if let Some(fault) = self.shared.fault.get() {
                return Poll::Ready(Err(fault.into()));
            }
            while let Some((status, headers)) = exchange.informational.pop() {
                // RFC 9110 section 15.2: not to HTTP/1.0.
                if to.version == Version::HTTP_11 {
                    encode::interim_head(status, &headers, self.case, self.shared.transport.borrow_mut().tail());
                }
            }
            if let Poll::Ready(response) = polled {
                // Who has closed its end, be it only one half, gets nothing more: as in Envoy.
                if !immediate && self.poll_gone(cx, to.tunnel).is_ready() {
                    return Poll::Ready(Err(Cut::Disconnected));
                }
                let response = response.unwrap_or_else(|never| match never {});
                return Poll::Ready(Ok((response, immediate)));
            }
            immediate = false;
            if self.poll_flush(cx).is_err() || self.poll_gone(cx, to.tunnel).is_ready() {
                return Poll::Ready(Err(Cut::Disconnected));
            }
            Poll::Pending
        })
        .await
    }

    /// Interim responses are written as they come. An error: the peer is gone.
    fn poll_flush(&self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let mut transport = self.shared.transport.borrow_mut();
        if transport.output_bytes() == 0 {
            return Ok(());
        }
        match transport.poll_write(cx, &mut 0) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// What is meant for a tunnel is not read before that is open.
    fn poll_gone(&self, cx: &mut Context<'_>, tunnel: Option<Tunnel>) -> Poll<()> {
        if self.shared.is_request_complete() || tunnel.is_some() {
            self.shared.poll_disconnected(cx)
        } else {
            Poll::Pending
        }
    }

    async fn write_response(
        &self,
        exchange: &Rc<Exchange>,
        response: Response<ResponseBody>,
        answering: Answering,
    ) -> After {
        let (mut head, body) = response.into_parts();
        // Nobody else holds it: nobody will read it.
        let is_unwanted = Rc::strong_count(&self.shared) == 1;
        if !self.shared.is_request_complete() && !answering.immediate && is_unwanted {
            self.discard_request(exchange).await;
        }
        let opens_tunnel = answering.to.tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(head.status));
        let is_complete = self.shared.is_request_complete();
        let is_bodiless = body.is_end_stream();
        // RFC 9112 section 6.3: without a length, only the end of the connection can end a response to HTTP/1.0.
        let has_length = is_bodiless || head.headers.contains_key(header::CONTENT_LENGTH) || answering.to.is_head;
        let keep_alive = answering.keep_alive
            && is_complete
            && !says_close(&head)
            && (has_length || answering.to.version == Version::HTTP_11);
        if !opens_tunnel {
            say_whether_kept(&mut head, keep_alive, answering.to.version);
        }
        head.headers.remove(header::TRANSFER_ENCODING);
        let encoder = {
            let mut transport = self.shared.transport.borrow_mut();
            encode::response_head(&head, answering.to, is_bodiless, self.case, transport.tail())
        };
        let writer = ResponseWriter {
            connection: self.connection,
            shared: &self.shared,
            body,
            encoder: Some(encoder),
            stalled: None,
            progress: 0,
        };
        match writer.write().await {
            Written::Whole if keep_alive && !opens_tunnel => After::NextRequest,
            // It has said that it sends nothing more, and everything that it sent was read.
            Written::Whole if !answering.keep_alive && is_complete && !opens_tunnel => After::Close,
            Written::Whole | Written::Cut => After::Linger,
            Written::Disconnected => After::Close,
        }
    }

    /// What has arrived of a request that nobody reads to its end counts as received.
    async fn discard_request(&self, exchange: &Exchange) {
        let bytes_max = self.connection.downstream.buffer_limit_bytes as usize;
        let discarded = std::future::poll_fn(|cx| Poll::Ready(self.shared.discard_arrived(cx, bytes_max))).await;
        exchange.bytes_received.set(exchange.bytes_received.get() + discarded);
        if self.shared.is_request_complete() {
            exchange.request_complete();
        }
    }

    async fn close(self, ending: After) {
        let Codec { shared, connection, .. } = self;
        // Whoever still holds it, holds a body that nobody reads any more.
        let Some(shared) = Rc::into_inner(shared) else { return };
        let stream = shared.transport.into_inner().into_stream();
        let patience = match ending {
            After::Linger => connection.active.config.delayed_close_timeout,
            After::Close | After::NextRequest => Duration::ZERO,
        };
        linger(stream, patience).await;
    }
}

/// Of a request whose head was not understood.
const UNREAD: Answering = Answering {
    to: ResponseTo { is_head: false, version: Version::HTTP_11, tunnel: None },
    keep_alive: false,
    immediate: true,
};

fn says_close(head: &response::Parts) -> bool {
    head.headers.get(header::CONNECTION).is_some_and(|value| value == "close")
}

/// RFC 9112 section 9.6; section 9.3 for HTTP/1.0, where staying open is what has to be said.
fn say_whether_kept(head: &mut response::Parts, keep_alive: bool, version: Version) {
    let word = match (keep_alive, version) {
        (false, _) => "close",
        (true, Version::HTTP_10) => "keep-alive",
        (true, _) => return,
    };
    head.headers.insert(header::CONNECTION, HeaderValue::from_static(word));
}

impl Refusal {
    fn reply(&self) -> LocalReply {
        match self {
            Refusal::Violation(violation @ Violation::Fragment) => {
                LocalReply::new(violation.status(), ResponseFlags::default(), violation.details())
            }
            Refusal::Violation(violation) => {
                let status = violation.status();
                LocalReply::new(status, ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, violation.details())
                    .with_body(status.canonical_reason().unwrap_or_default())
            }
            Refusal::Late(deadline) => deadline.reply(),
        }
    }
}
