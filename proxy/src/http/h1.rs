//! HTTP/1 downstream, by hyper: one request at a time (RFC 9112).

use std::rc::Rc;

use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tower::ServiceExt;

use crate::{
    http::{
        body::Body,
        connection_manager::{self, HttpConnection},
        exchange::Exchange,
    },
    listener::registry::Order,
    net::{linger::Linger, stream::Stream},
    stats::HttpStat,
};

pub async fn serve(connection: &Rc<HttpConnection>, stream: Stream) {
    let config = &connection.active.config;
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .max_headers(config.max_headers_count as usize)
        .max_header_size(config.max_request_headers_bytes as usize)
        .header_read_timeout(config.request_headers_timeout);
    if config.request_headers_timeout.is_some() {
        builder.timer(TokioTimer::new());
    }
    let owner = connection.clone();
    let service =
        connection_manager::service(connection.clone()).map_request(move |request: http::Request<Incoming>| {
            let (head, body) = request.into_parts();
            let exchange = Exchange::new(owner.clone(), &head);
            (exchange, http::Request::from_parts(head, Body::Http1(body)))
        });
    let served = builder.serve_connection(
        TokioIo::new(Linger::new(stream, config.delayed_close_timeout)),
        TowerToHyperService::new(service),
    );
    let mut served = std::pin::pin!(served);
    let mut ending = false;
    let result = std::future::poll_fn(|cx| {
        match connection.downstream.order(cx) {
            Some(order @ (Order::IdleTimeout | Order::Close)) if !ending => {
                ending = true;
                connection.count_order(order);
                served.as_mut().graceful_shutdown();
            }
            // Responses say `connection: close` from now on; a client that sends nothing more is closed by `Order::Close`.
            Some(_) | None => {}
        }
        served.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result {
        if error.is_parse() {
            connection.count(HttpStat::CxProtocolError);
        }
        tracing::debug!(peer = %connection.downstream.remote_address, %error, "downstream connection ended");
    }
}
