//! HTTP/2 downstream, by the h2 crate: every stream is a task of its own (RFC 9113).

use std::{rc::Rc, task::Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use http_body::Body as _;
use tower::Service;

use crate::{
    http::{
        body::Body,
        connection_manager::{self, HttpConnection},
        exchange::{Exchange, ResponseBody},
        informational::{Informational, Interim},
        upstream_request::send_body,
    },
    net::{http2_keepalive::until_dead, stream::Stream},
    stats::HttpStat,
};

pub async fn serve(connection: &Rc<HttpConnection>, stream: Stream) {
    if let Err(error) = run(connection, stream).await {
        if error.is_library() {
            connection.count(HttpStat::CxProtocolError);
        }
        tracing::debug!(peer = %connection.downstream.remote_address, %error, "downstream connection ended");
    }
}

async fn run(connection: &Rc<HttpConnection>, stream: Stream) -> Result<(), h2::Error> {
    let config = &connection.active.config;
    let options = &config.http2;
    let mut builder = h2::server::Builder::new();
    builder
        .header_table_size(options.hpack_table_size)
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size)
        .max_header_list_size(config.max_request_headers_bytes)
        .max_send_buffer_size(connection.downstream.buffer_limit_bytes as usize);
    let handshake = connection.unless_ordered(builder.handshake::<_, Bytes>(stream));
    let Some(accepted) = handshake.await else { return Ok(()) };
    let mut codec = accepted?;
    let service = connection_manager::service(connection.clone());
    let mut alive = std::pin::pin!(until_dead(codec.ping_pong(), options.keepalive.as_ref()));
    let mut ending = false;
    loop {
        let accepted = std::future::poll_fn(|cx| {
            let order = connection.downstream.order(cx);
            if !ending && (order.is_some() || connection.has_reached_request_limit()) {
                // GOAWAY that lets everything under way end, and whatever the peer sent before it saw it.
                ending = true;
                codec.graceful_shutdown();
                if let Some(order) = order {
                    connection.count_order(order);
                }
            }
            match codec.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(accepted),
                Poll::Pending => alive.as_mut().poll(cx).map(|()| None), // closes as if the peer had
            }
        });
        let Some(accepted) = accepted.await else { return Ok(()) };
        let (request, respond) = accepted?;
        let mut service = service.clone();
        let connection = connection.clone();
        tokio::task::spawn_local(async move {
            let (head, body) = request.into_parts();
            let exchange = Exchange::new(connection, &head);
            let informational = exchange.clone();
            let answered = service.call((exchange, http::Request::from_parts(head, Body::Http2(body))));
            serve_stream(
                &informational.informational,
                async { answered.await.unwrap_or_else(|never| match never {}) },
                respond,
            )
            .await;
        });
    }
}

/// Answers one request, unless its stream ends first.
async fn serve_stream(
    informational: &Informational,
    answered: impl Future<Output = Response<ResponseBody>>,
    mut respond: SendResponse<Bytes>,
) {
    let response = {
        let mut answered = std::pin::pin!(answered);
        std::future::poll_fn(|cx| {
            let answered = answered.as_mut().poll(cx);
            while let Some(interim) = informational.pop() {
                send_informational(&mut respond, interim);
            }
            match answered {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        })
        .await
    };
    let Some(response) = response else { return };
    let (mut head, mut body) = response.into_parts();
    head.version = http::Version::HTTP_2;
    let ended = body.is_end_stream();
    let Ok(mut sending) = respond.send_response(Response::from_parts(head, ()), ended) else { return };
    if ended {
        body.sent();
    } else if send_body(&mut body, &mut sending).await.is_none() {
        sending.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

/// Interim responses have no body and end nothing; if the stream is gone, the final response learns it.
fn send_informational(respond: &mut SendResponse<Bytes>, (status, headers): Interim) {
    let mut interim = Response::new(());
    *interim.status_mut() = status;
    *interim.headers_mut() = headers;
    if let Err(error) = respond.send_informational(interim) {
        tracing::debug!(%error, "interim response not sent");
    }
}
