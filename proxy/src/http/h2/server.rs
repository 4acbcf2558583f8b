//! HTTP/2 downstream: every stream is a task of its own.

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use tower::Service;

use super::{
    connection::{Accepted, Counters, Role, Settings, Shared},
    driver::Driver,
    error::StreamError,
    frame::Reason,
    head::{HeaderLimits, RequestHead},
    keepalive::Keepalive,
    sender::{SendError, send_body},
    stream::{SendStream, Stream, handles},
};
use crate::{
    http::{
        body::Body,
        connection_manager::{self, HttpConnection},
        exchange::{Exchange, ResponseBody},
        head_deadline::HeadDeadline,
    },
    listener::registry::Order,
    net::{linger::linger, stream::Stream as Socket},
    stats::HttpStat,
};

pub async fn serve(connection: &Rc<HttpConnection>, stream: Socket) {
    let config = &connection.active.config;
    let worker = &connection.downstream.worker;
    let settings = Settings {
        role: Role::Downstream,
        options: config.http2.clone(),
        headers: HeaderLimits {
            bytes_max: config.max_request_headers_bytes as usize,
            count_max: config.max_headers_count as usize,
        },
        buffer_bytes_max: connection.downstream.buffer_limit_bytes as usize,
        stream_error_on_invalid_message: config.http2.stream_error_on_invalid_message,
        counters: Counters { cells: connection.active.http2_stats.clone(), worker: worker.index },
    };
    let keepalive = Keepalive::new(config.http2.keepalive.as_ref());
    let shared = Shared::new(settings, Instant::now());
    let mut driver = Driver::new(shared.clone(), stream, keepalive);
    if let Err(error) = drive(connection, &shared, &mut driver).await {
        tracing::debug!(peer = %connection.downstream.remote_address, %error, "downstream connection ended");
    }
    let (broke_a_rule, had_premature_resets) = shared.with(|connection| {
        connection.close(StreamError::Disconnected);
        (connection.broke_a_rule(), connection.had_premature_resets())
    });
    if broke_a_rule {
        connection.count(HttpStat::CxProtocolError);
    }
    if had_premature_resets {
        connection.count(HttpStat::RqTooManyPrematureResets);
    }
    // The last GOAWAY has to reach the peer.
    linger(driver.into_stream(), config.delayed_close_timeout).await;
}

/// Until the connection is over, or told to end and at an end.
async fn drive(
    connection: &Rc<HttpConnection>,
    shared: &Rc<Shared>,
    driver: &mut Driver<Socket>,
) -> std::io::Result<()> {
    let serving = Serving { connection, shared, service: connection_manager::service(connection.clone()) };
    let worker = &connection.downstream.worker;
    let mut told = None;
    let mut late_head = LateHead::default();
    std::future::poll_fn(|cx| {
        told = follow(connection, shared, told, connection.downstream.order(cx));
        let mut scratch = worker.take_buffer();
        let polled = driver.poll(cx, &mut scratch);
        worker.give_buffer(scratch);
        while let Some(accepted) = shared.with(|connection| connection.accepted.pop_front()) {
            serving.begin(accepted);
        }
        if let Poll::Ready(deadline) = late_head.poll(cx, connection, shared) {
            serving.refuse_late(deadline);
        }
        polled
    })
    .await
}

/// Times a head that comes in pieces: a block that does not end would hold up all streams.
#[derive(Default)]
struct LateHead(Option<(u32, HeadDeadline, Pin<Box<tokio::time::Sleep>>)>);

impl LateHead {
    fn poll(&mut self, cx: &mut Context<'_>, connection: &HttpConnection, shared: &Shared) -> Poll<HeadDeadline> {
        let Some(id) = shared.with(|connection| connection.opening()) else {
            self.0 = None;
            return Poll::Pending;
        };
        if self.0.as_ref().is_none_or(|(timed, ..)| *timed != id) {
            let first = HeadDeadline::first(&connection.active.config);
            self.0 = first.map(|(which, after)| (id, which, Box::pin(tokio::time::sleep(after))));
        }
        let Some((_, which, timer)) = &mut self.0 else { return Poll::Pending };
        timer.as_mut().poll(cx).map(|()| *which)
    }
}

/// What the connection is told to do, once each.
fn follow(connection: &HttpConnection, shared: &Shared, told: Option<Order>, order: Option<Order>) -> Option<Order> {
    if told.is_none() && order.is_none() && connection.takes_no_more_requests() {
        shared.with(|connection| connection.start_shutdown());
    }
    if told == order {
        return told;
    }
    if let Some(order) = order {
        if told.is_none() {
            connection.count_order(order);
        }
        match order {
            // Nothing is under way on an idle one, and a request that crosses this is known to be unprocessed.
            Order::Close | Order::IdleTimeout => shared.with(|connection| connection.finish_shutdown()),
            Order::Drain(_) | Order::MaxDuration(_) => {
                shared.with(|connection| connection.start_shutdown());
            }
        }
    }
    order
}

/// What the streams of a connection have in common.
struct Serving<'a, H> {
    connection: &'a Rc<HttpConnection>,
    shared: &'a Rc<Shared>,
    service: H,
}

impl<H> Serving<'_, H>
where
    H: Service<(Rc<Exchange>, http::Request<Body>), Response = Response<ResponseBody>, Error = Infallible>
        + Clone
        + 'static,
    H::Future: 'static,
{
    fn begin(&self, accepted: Accepted) {
        match accepted {
            Accepted::Request(head, stream) => self.request(*head, stream),
            Accepted::UnusableTarget(stream) => {
                let (_, mut send) = handles(self.shared, stream, Role::Downstream);
                let (head, body) = self.connection.bad_target().into_parts();
                // Err: the stream has ended meanwhile.
                let _ = send.send_response(Response::from_parts(head, ()), true);
                body.sent();
            }
            Accepted::Refused { details, by_connection } => {
                self.connection.request_malformed(details, by_connection);
            }
        }
    }

    /// Answers a request whose head is not here in time.
    fn refuse_late(&self, deadline: HeadDeadline) {
        let Some(stream) = self.shared.with(|connection| connection.open_unfinished()) else { return };
        let (_, send) = handles(self.shared, stream, Role::Downstream);
        let exchange = self.connection.unread_exchange(http::Version::HTTP_2);
        exchange.count(deadline.stat());
        exchange.forget_outcome();
        let response = self.connection.answer_locally(&exchange, deadline.reply());
        tokio::task::spawn_local(async move {
            serve_stream(&exchange, Box::pin(std::future::ready(Ok(response))), send).await;
        });
    }

    fn request(&self, head: RequestHead, stream: Rc<Stream>) {
        let (recv, mut send) = handles(self.shared, stream, Role::Downstream);
        if expects_continue(&head.parts) {
            // Err: the stream has ended, which its task sees.
            let _ = send.send_informational(StatusCode::CONTINUE, HeaderMap::new());
        }
        let exchange = Exchange::new(self.connection.clone(), &head.parts);
        let request = http::Request::from_parts(head.parts, Body::Http2(recv));
        // On the heap until the response begins: its body may take long, and tasks move before they run.
        let answered = Box::pin(self.service.clone().call((exchange.clone(), request)));
        tokio::task::spawn_local(async move {
            serve_stream(&exchange, answered, send).await;
        });
    }
}

/// RFC 9110 section 10.1.1: said for the application, which gets the body as it comes.
fn expects_continue(head: &http::request::Parts) -> bool {
    head.headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Answers one request, unless its stream ends first.
async fn serve_stream(
    exchange: &Exchange,
    mut answered: Pin<Box<impl Future<Output = Result<Response<ResponseBody>, Infallible>>>>,
    mut send: SendStream,
) {
    let response = std::future::poll_fn(|cx| {
        let answered = answered.as_mut().poll(cx).map(|response| response.unwrap_or_else(|never| match never {}));
        while let Some((status, headers)) = exchange.informational.pop() {
            // Err: the stream has ended, which is seen below.
            let _ = send.send_informational(status, headers);
        }
        match (answered, send.poll_ended(cx)) {
            // Taken back before it was answered: that its own body failed is no outcome.
            (Poll::Ready(_), Poll::Ready(error)) => {
                exchange.forget_outcome();
                Poll::Ready(Err(error))
            }
            (Poll::Ready(response), Poll::Pending) => Poll::Ready(Ok(response)),
            (Poll::Pending, ended) => ended.map(Err),
        }
    })
    .await;
    drop(answered);
    let (mut head, mut body) = match response {
        Ok(response) => response.into_parts(),
        Err(error) => return exchange.downstream_ended(error),
    };
    head.version = http::Version::HTTP_2;
    if exchange.reset_reason() == Reason::CONNECT_ERROR {
        send.refuse_tunnel();
    }
    let ended = body.is_end_stream();
    if let Err(error) = send.send_response(Response::from_parts(head, ()), ended) {
        return exchange.downstream_ended(error);
    }
    if ended {
        return body.sent();
    }
    let stall_timeout = body.idle_timeout();
    match send_body(&mut body, &mut send, stall_timeout).await {
        Ok(()) => {}
        // Taken back: that it cannot be read on is only what follows.
        Err(SendError::Body) => match send.ended() {
            Some(error) => exchange.downstream_ended(error),
            None => send.reset(exchange.reset_reason()),
        },
        Err(SendError::Stream(error)) => exchange.downstream_ended(error),
        Err(SendError::Stalled) => {
            exchange.downstream_stalled();
            send.flush_timed_out();
        }
    }
}
