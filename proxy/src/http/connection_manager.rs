//! The HTTP connection manager: one downstream connection's codec, and each of its requests from head to response.

use std::{cell::Cell, convert::Infallible, rc::Rc, sync::Arc, task::Poll, time::Instant};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use tower::Service;

use crate::{
    config::{
        access_log::LogType,
        http_connection_manager::{CodecType, ServerHeaderTransformation},
        route::RouteAction,
        upgrade,
    },
    http::{
        body::Body,
        exchange::{Exchange, RequestBody, ResponseBody, Restart},
        filter::{self, ConnectionBuckets, CountedFilters},
        h1, h2,
        local_reply::LocalReply,
        request_headers::{self, X_REQUEST_ID},
        response_flags::ResponseFlags,
        tunnel::Tunnel,
    },
    listener::{
        active::ActiveHttp,
        connection::Downstream,
        inspect::http::is_http2_preface,
        registry::{ConnectionLimits, Order},
    },
    net::{
        peek::peek_more,
        stream::{Metered, Stream},
    },
    stats::HttpStat,
};

/// One downstream connection of a connection manager.
pub struct HttpConnection {
    pub active: Arc<ActiveHttp>,
    pub downstream: Rc<Downstream>,
    /// Of the filters that limit each connection.
    pub buckets: ConnectionBuckets,
    requests: Cell<u32>,
    requests_under_way: Cell<u32>,
    /// After what is under way; HTTP/2 only, where that is not said by a response.
    is_ending: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Http1,
    Http2,
}

pub async fn serve(active: Arc<ActiveHttp>, downstream: Rc<Downstream>, stream: Stream) {
    let config = &active.config;
    downstream.control.limits.set(ConnectionLimits {
        idle_timeout: config.idle_timeout,
        max_duration: config.max_connection_duration,
        drain_timeout: config.drain_timeout,
    });
    let connection = Rc::new(HttpConnection {
        downstream,
        buckets: ConnectionBuckets::default(),
        requests: Cell::new(0),
        requests_under_way: Cell::new(0),
        is_ending: Cell::new(false),
        active: active.clone(),
    });
    connection.count(HttpStat::CxTotal);
    let _open = connection.gauge(HttpStat::CxActive);
    if stream.is_tls() {
        connection.count(HttpStat::CxSslTotal);
    }
    let _secured = stream.is_tls().then(|| connection.gauge(HttpStat::CxSslActive));
    let index = connection.downstream.worker.index;
    let stream = stream.counted(Metered::Downstream(active.stats.clone()), index);
    let choosing = connection.unless_ordered(choose_codec(config.codec_type, &stream));
    match choosing.await {
        Some(Some(Codec::Http1)) => {
            connection.count(HttpStat::CxHttp1Total);
            let _open = connection.gauge(HttpStat::CxHttp1Active);
            h1::serve(&connection, stream).await;
        }
        Some(Some(Codec::Http2)) => {
            connection.count(HttpStat::CxHttp2Total);
            let _open = connection.gauge(HttpStat::CxHttp2Active);
            h2::serve(&connection, stream).await;
        }
        Some(None) | None => {} // closed, or told to end, before its first byte
    }
    connection.count(HttpStat::CxDestroy);
    active.stats.cx_length.record(index, connection.downstream.started.elapsed());
}

/// None: the peer closed before it could be told.
async fn choose_codec(configured: CodecType, stream: &Stream) -> Option<Codec> {
    match configured {
        CodecType::Http1 => return Some(Codec::Http1),
        CodecType::Http2 => return Some(Codec::Http2),
        CodecType::Auto => {}
    }
    let Some(plain) = stream.as_plain() else {
        let is_http2 = stream.alpn_protocol().is_some_and(|protocol| protocol == b"h2" || protocol == b"istio-h2");
        return Some(if is_http2 { Codec::Http2 } else { Codec::Http1 });
    };
    let mut buffer = [0; 24];
    let mut seen = 0;
    loop {
        let now = peek_more(plain, &mut buffer, seen).await.ok()?;
        match is_http2_preface(&buffer[..now]) {
            Some(true) => return Some(Codec::Http2),
            Some(false) => return Some(Codec::Http1),
            None if now <= seen => return (now > 0).then_some(Codec::Http1),
            None => seen = now,
        }
    }
}

/// The seam between codecs and what is behind them: a request in, a response out, never an error. The codec begins the
/// exchange, and sends on what its `informational` holds while it waits.
pub fn service(
    connection: Rc<HttpConnection>,
) -> impl Service<
    (Rc<Exchange>, Request<Body>),
    Response = Response<ResponseBody>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<ResponseBody>, Infallible>> + 'static,
> + Clone
+ 'static {
    tower::service_fn(move |(exchange, request)| {
        let connection = connection.clone();
        async move { Ok(connection.handle(exchange, request).await) }
    })
}

impl HttpConnection {
    async fn handle(self: Rc<Self>, exchange: Rc<Exchange>, request: Request<Body>) -> Response<ResponseBody> {
        let (mut head, body) = request.into_parts();
        if let Some(interval) = self.active.config.access_log_options.flush_interval {
            exchange.log_every(interval);
        }
        let body = RequestBody::wrap(body, &exchange);
        let mut response = match request_headers::prepare(&mut head, &exchange) {
            Err(refused) => {
                exchange.keep_request(&head);
                refused.into_response(&exchange)
            }
            Ok(()) => {
                let request_id = self.echoed_request_id(&head.headers);
                let mut response = self.filtered(&exchange, &mut head, body).await;
                if let Some(id) = request_id {
                    response.headers_mut().insert(X_REQUEST_ID, id);
                }
                response
            }
        };
        self.finish(&exchange, &mut response);
        response
    }

    async fn filtered(
        &self,
        exchange: &Rc<Exchange>,
        head: &mut http::request::Parts,
        body: Body,
    ) -> Response<ResponseBody> {
        exchange.set_route(exchange.resolve_route(head));
        if self.active.config.access_log_options.flush_on_new_request {
            filter::note_cluster(exchange, exchange.route().as_ref(), head);
            exchange.keep_request(head);
            let name = exchange.route().map(|route| route.route().name.clone());
            *exchange.route_name.borrow_mut() = name.filter(|name| !name.is_empty());
            exchange.log(LogType::DownstreamStart);
        }
        let filters = match exchange.tunnel {
            None => Some(self.own_filters()),
            Some(tunnel) => self.filters_of_tunnel(tunnel, exchange, head),
        };
        let Some(filters) = filters else {
            filter::note_cluster(exchange, exchange.route().as_ref(), head);
            exchange.keep_request(head);
            // What follows might be meant for the tunnel, and must not be taken for a request.
            exchange.ends_connection.set(true);
            let refused = LocalReply::new(StatusCode::FORBIDDEN, ResponseFlags::default(), "upgrade_failed");
            return refused.into_response(exchange);
        };
        let mut response = filter::run(filters, exchange, head, body).await;
        while let Some(restart) = exchange.take_restart() {
            let Restart { head: next, body, route } = *restart;
            *head = next;
            exchange.set_route(Some(route));
            // The future is large, and few requests are redirected.
            response = Box::pin(filter::run(filters, exchange, head, body)).await;
        }
        response
    }

    /// What the route says of a protocol counts more than what the connection manager says. None: it is not allowed.
    fn filters_of_tunnel(
        &self,
        tunnel: Tunnel,
        exchange: &Exchange,
        head: &http::request::Parts,
    ) -> Option<CountedFilters<'_>> {
        let config = &self.active.config;
        let route = exchange.route();
        let protocol = match (tunnel, head.headers.get(header::UPGRADE)) {
            // Only a route for CONNECT matches one; that there is none is for the router to say.
            (Tunnel::Connect, _) if route.is_none() => return Some(self.own_filters()),
            (Tunnel::Connect, _) => upgrade::CONNECT.as_bytes(),
            (Tunnel::Upgrade, Some(protocol)) => protocol.as_bytes(),
            (Tunnel::Upgrade, None) => return Some(self.own_filters()),
        };
        let of_route = route.as_ref().and_then(|route| match &route.route().action {
            RouteAction::Forward(action) => action.upgrades.of(protocol).map(|upgrade| upgrade.enabled),
            _ => None,
        });
        let of_manager = config.upgrades.of(protocol);
        let is_allowed = of_route.or(of_manager.map(|upgrade| upgrade.enabled)).unwrap_or(false);
        let filters =
            match (of_manager.and_then(|upgrade| upgrade.filters.as_ref()), config.upgrades.filters_place(protocol)) {
                (Some(filters), Some(at)) => CountedFilters { filters, stats: &self.active.upgrade_filter_stats[at] },
                _ => self.own_filters(),
            };
        is_allowed.then_some(filters)
    }

    fn own_filters(&self) -> CountedFilters<'_> {
        CountedFilters { filters: &self.active.config.http_filters, stats: &self.active.filter_stats }
    }

    /// Of a request whose head is none, or not here: nothing is known of it but that it came.
    pub fn unread_exchange(self: &Rc<Self>, version: Version) -> Rc<Exchange> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.version = version;
        Exchange::new(self.clone(), &head)
    }

    /// A request that was refused by the codec.
    pub fn request_malformed(self: &Rc<Self>, details: &'static str, by_connection: bool) {
        let exchange = self.unread_exchange(Version::HTTP_2);
        exchange.add_flag(match by_connection {
            true => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            false => ResponseFlags::DOWNSTREAM_REMOTE_RESET,
        });
        *exchange.details.borrow_mut() = details.into();
    }

    /// The answer to a request whose target can be read, but not looked up.
    pub fn bad_target(self: &Rc<Self>) -> Response<ResponseBody> {
        let exchange = self.unread_exchange(Version::HTTP_2);
        let reply = LocalReply::new(StatusCode::BAD_REQUEST, ResponseFlags::default(), "path_normalization_failed");
        let mut response = reply.into_response(&exchange);
        self.finish(&exchange, &mut response);
        response
    }

    fn echoed_request_id(&self, headers: &http::HeaderMap) -> Option<HeaderValue> {
        self.active.config.request_id.always_set_in_response.then(|| headers.get(X_REQUEST_ID).cloned()).flatten()
    }

    /// A response to a request that the codec refuses.
    pub fn answer_locally(&self, exchange: &Rc<Exchange>, reply: LocalReply) -> Response<ResponseBody> {
        let mut response = reply.into_response(exchange);
        self.finish(exchange, &mut response);
        response
    }

    /// What every response gets.
    fn finish(&self, exchange: &Exchange, response: &mut Response<ResponseBody>) {
        let config = &self.active.config;
        let opens_tunnel = exchange.tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(response.status()));
        let headers = response.headers_mut();
        match config.server_header_transformation {
            ServerHeaderTransformation::Overwrite => {
                headers.insert(header::SERVER, config.server_name.clone());
            }
            ServerHeaderTransformation::AppendIfAbsent => {
                headers.entry(header::SERVER).or_insert_with(|| config.server_name.clone());
            }
            ServerHeaderTransformation::PassThrough => {}
        }
        let now = Instant::now();
        headers.entry(header::DATE).or_insert_with(|| self.downstream.worker.dates.value(now));
        if let Some(via) = &config.via {
            request_headers::append_via(headers, via);
        }
        // RFC 9113 section 8.2.2: no `connection` in HTTP/2, whose GOAWAY says the same.
        if exchange.protocol >= Version::HTTP_2 {
            self.is_ending.set(self.is_ending.get() || exchange.ends_connection.get());
        } else if self.takes_no_more() && !opens_tunnel {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            self.count(HttpStat::CxDrainClose);
        } else if exchange.ends_connection.get() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.status.set(Some(response.status()));
        exchange.response_begun.set(Some(exchange.started.elapsed()));
        exchange.keep_response(response);
        if opens_tunnel && config.access_log_options.flush_on_tunnel {
            exchange.log(LogType::DownstreamTunnelSuccessfullyEstablished);
        }
    }

    /// The connection ends after the requests under way.
    fn takes_no_more(&self) -> bool {
        self.downstream.is_draining() || self.has_reached_request_limit()
    }

    /// For HTTP/2 to say so ahead of time.
    pub fn takes_no_more_requests(&self) -> bool {
        self.is_ending.get() || self.has_reached_request_limit()
    }

    fn has_reached_request_limit(&self) -> bool {
        self.active.config.max_requests_per_connection.is_some_and(|max| self.requests.get() >= max)
    }

    pub fn request_begun(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
        self.requests_under_way.set(self.requests_under_way.get() + 1);
        self.downstream.control.set_busy();
    }

    pub fn request_ended(&self) {
        self.requests_under_way.set(self.requests_under_way.get() - 1);
        if self.requests_under_way.get() == 0 {
            self.downstream.control.set_idle(Instant::now());
        }
    }

    pub fn count(&self, stat: HttpStat) {
        self.active.stats.cells.inc(self.downstream.worker.index, stat);
    }

    fn gauge(self: &Rc<Self>, stat: HttpStat) -> Gauge {
        self.count(stat);
        Gauge(self.clone(), stat)
    }

    /// Counts what an order is about.
    pub fn count_order(&self, order: Order) {
        match order {
            Order::IdleTimeout => self.count(HttpStat::CxIdleTimeout),
            Order::MaxDuration(_) => self.count(HttpStat::CxMaxDuration),
            Order::Drain(_) | Order::Close => {}
        }
    }

    /// The future's output; None: the connection was told to end first.
    pub async fn unless_ordered<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.downstream.order(cx) {
            Some(Order::IdleTimeout | Order::Close) => Poll::Ready(None),
            Some(Order::Drain(_) | Order::MaxDuration(_)) | None => future.as_mut().poll(cx).map(Some),
        })
        .await
    }
}

/// Counts one while it lives.
struct Gauge(Rc<HttpConnection>, HttpStat);

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.active.stats.cells.dec(self.0.downstream.worker.index, self.1);
    }
}
