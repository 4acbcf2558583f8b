//! The HTTP filters of a connection manager: a request passes them in order, the router answers, and the response passes them
//! in the other direction. One file a filter; the set is closed.
//!
//! A filter may answer a request itself: then the response passes all of them, also those that never saw the request, as in
//! Envoy. Where only the router is configured nothing here runs.

mod basic_auth;
mod body;
mod buffer;
mod cors;
mod csrf;
mod ext_authz;
mod fault;
mod grpc_web;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod jwt_authn;
mod local_rate_limit;
mod rate_limit;
mod rbac;
mod set_metadata;
mod stateful_session;
mod stats;

use std::{rc::Rc, task::Poll};

use http::{Response, request};

pub use self::{
    body::FilteredBody,
    local_rate_limit::ConnectionBuckets,
    stats::{FilterStats, RbacStats},
};
use crate::{
    config::http_filter::{HttpFilter, HttpFilters, NamedFilter, RouteFilter},
    http::{
        body::Body,
        exchange::{Deadlines, Exchange, ResponseBody},
        local_reply::LocalReply,
        request_headers::{X_FORWARDED_PROTO, authority},
        route::resolved::ResolvedRoute,
        router,
    },
};

/// A request on its way through the filters.
pub struct Passing<'a> {
    pub exchange: &'a Rc<Exchange>,
    /// None: no route matches, which the router will say.
    pub route: Option<&'a ResolvedRoute>,
    pub head: &'a mut request::Parts,
    pub body: Body,
}

/// What a filter keeps of the request for the response.
enum Pass {
    /// It is off for this route.
    Off,
    /// It has nothing to keep, or never saw the request.
    Nothing,
    Cors(cors::Pass),
    ExtAuthz(ext_authz::Pass),
    Fault(fault::Pass),
    GrpcWeb(grpc_web::Pass),
    LocalRateLimit(local_rate_limit::Pass),
    StatefulSession(stateful_session::Pass),
    RateLimit(rate_limit::Pass),
}

/// Filters, and what is counted of each of them.
#[derive(Clone, Copy)]
pub struct CountedFilters<'a> {
    pub filters: &'a HttpFilters,
    pub stats: &'a [FilterStats],
}

/// From a request to its response, by all filters.
pub async fn run(
    CountedFilters { filters, stats: filter_stats }: CountedFilters<'_>,
    exchange: &Rc<Exchange>,
    head: &mut request::Parts,
    body: Body,
) -> Response<ResponseBody> {
    if filters.filters.is_empty() {
        return router::route(&filters.router, exchange, head, body).await;
    }
    let mut route = exchange.route();
    note_cluster(exchange, route.as_ref(), head);
    let mut passes = Vec::with_capacity(filters.filters.len());
    let mut refused = None;
    let mut body = body;
    while passes.len() < filters.filters.len() {
        // As long as the route is the same.
        let mut passing = Passing { exchange, route: route.as_ref(), head, body };
        let asked = passes.len();
        for (filter, stats) in filters.filters.iter().zip(filter_stats).skip(asked) {
            if is_off(filter, passing.route) {
                passes.push(Pass::Off);
            } else if refused.is_some() {
                passes.push(Pass::Nothing);
            } else {
                let (pass, refusal) = within_deadlines(filter, stats, &mut passing).await;
                passes.push(pass);
                refused = refusal;
            }
            if exchange.is_route_cleared() {
                break;
            }
        }
        body = passing.body;
        if exchange.take_route_cleared() {
            route = exchange.resolve_route(head);
            exchange.set_route(route.clone());
            note_cluster(exchange, route.as_ref(), head);
        }
    }
    let mut response = match refused {
        Some(Refusal::Reply(reply)) => {
            exchange.keep_request(head);
            reply.into_response(exchange)
        }
        Some(Refusal::Response(response)) => {
            exchange.keep_request(head);
            response.map(|()| ResponseBody::local(Body::Empty, exchange.clone()))
        }
        None => router::route(&filters.router, exchange, head, body).await,
    };
    if exchange.is_restarted() {
        return response; // that nobody sees
    }
    for (filter, pass) in filters.filters.iter().zip(passes).rev() {
        respond(filter, pass, exchange, route.as_ref(), &mut response).await;
    }
    response
}

/// Whoever answers, the log says where the request was to go.
pub fn note_cluster(exchange: &Exchange, route: Option<&ResolvedRoute>, head: &request::Parts) {
    let worker = &exchange.connection.downstream.worker;
    let cluster = route.and_then(|route| route.cluster_name(head)).filter(|name| worker.cluster(name).is_some());
    *exchange.upstream_cluster.borrow_mut() = cluster;
}

/// How a filter ends a request.
enum Refusal {
    Reply(Box<LocalReply>),
    /// A response of the filter's own making, without a body.
    Response(Response<()>),
}

impl From<LocalReply> for Refusal {
    fn from(reply: LocalReply) -> Refusal {
        Refusal::Reply(Box::new(reply))
    }
}

/// What a route says about a filter beats the filter's own `disabled`.
fn is_off(filter: &NamedFilter, route: Option<&ResolvedRoute>) -> bool {
    let said = route.and_then(|route| route.filter_configs(&filter.name).next());
    said.map_or(filter.disabled, |config| config.disabled)
}

/// The filter's turn, unless the request is not there in time.
async fn within_deadlines(
    filter: &NamedFilter,
    stats: &FilterStats,
    passing: &mut Passing<'_>,
) -> (Pass, Option<Refusal>) {
    let exchange = passing.exchange;
    let config = &exchange.connection.active.config;
    let mut deadlines = Deadlines::new(config.request_timeout, None, config.stream_idle_timeout);
    let mut asked = std::pin::pin!(ask(filter, stats, passing));
    std::future::poll_fn(|cx| match asked.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer),
        Poll::Pending => deadlines
            .poll(exchange, cx)
            .map(|over| (Pass::Nothing, Some(router::deadline_reply(exchange, over).into()))),
    })
    .await
}

async fn ask(filter: &NamedFilter, stats: &FilterStats, passing: &mut Passing<'_>) -> (Pass, Option<Refusal>) {
    let name = &filter.name;
    match &filter.filter {
        HttpFilter::Buffer { request_bytes_max } => {
            (Pass::Nothing, buffer::request(name, *request_bytes_max, passing).await.err().map(Refusal::from))
        }
        HttpFilter::Cors => {
            let (pass, preflight) = cors::request(name, passing);
            (Pass::Cors(pass), preflight.map(Refusal::Response))
        }
        HttpFilter::Fault(fault) => {
            let (pass, abort) = fault::request(name, fault, passing).await;
            (Pass::Fault(pass), abort.map(Refusal::from))
        }
        HttpFilter::Csrf(policy) => (Pass::Nothing, csrf::request(name, policy, passing).err().map(Refusal::from)),
        HttpFilter::HeaderToMetadata(config) => {
            header_to_metadata::request(name, config, passing);
            (Pass::Nothing, None)
        }
        HttpFilter::RateLimit(limit) => {
            // Few requests are asked about; the future of those that are is large.
            let (pass, limited) = Box::pin(rate_limit::request(name, limit, passing)).await;
            (Pass::RateLimit(pass), limited.map(Refusal::from))
        }
        HttpFilter::SetFilterState(config) => {
            set_metadata::filter_state(config, passing);
            (Pass::Nothing, None)
        }
        HttpFilter::SetMetadata(config) => {
            set_metadata::metadata(config, passing.exchange);
            (Pass::Nothing, None)
        }
        HttpFilter::GrpcWeb => (grpc_web::request(passing).map_or(Pass::Nothing, Pass::GrpcWeb), None),
        HttpFilter::HeaderMutation { mutations, most_specific_wins } => {
            let refused = header_mutation::request(name, mutations, *most_specific_wins, passing);
            (Pass::Nothing, refused.err().map(Refusal::from))
        }
        HttpFilter::BasicAuth(config) => {
            let refused = basic_auth::request(name, config, stats.basic_auth(), passing);
            (Pass::Nothing, refused.err().map(Refusal::from))
        }
        HttpFilter::ExtAuthz(config) => {
            let (pass, refused) = ext_authz::request(name, config, stats.ext_authz(), passing).await;
            (Pass::ExtAuthz(pass), refused.map(Refusal::from))
        }
        HttpFilter::JwtAuthn(config) => {
            let refused = jwt_authn::request(name, config, stats.jwt_authn(), passing).await;
            (Pass::Nothing, refused.err().map(Refusal::from))
        }
        HttpFilter::Rbac(config) => {
            let refused = rbac::request(name, config, stats.rbac(), passing);
            (Pass::Nothing, refused.err().map(Refusal::from))
        }
        HttpFilter::LocalRateLimit(limit) => {
            let (pass, limited) = local_rate_limit::request(name, limit, passing);
            (Pass::LocalRateLimit(pass), limited.map(Refusal::from))
        }
        HttpFilter::HealthCheck(filter) => (Pass::Nothing, health_check::request(filter, passing).map(Refusal::from)),
        HttpFilter::StatefulSession(session) => {
            let pass = stateful_session::request(name, session, passing);
            (pass.map_or(Pass::Nothing, Pass::StatefulSession), None)
        }
    }
}

async fn respond(
    filter: &NamedFilter,
    pass: Pass,
    exchange: &Rc<Exchange>,
    route: Option<&ResolvedRoute>,
    response: &mut Response<ResponseBody>,
) {
    match (&filter.filter, pass) {
        (_, Pass::Off) => {}
        (HttpFilter::Cors, Pass::Cors(pass)) => cors::response(pass, response),
        (HttpFilter::ExtAuthz(_), Pass::ExtAuthz(pass)) => ext_authz::response(pass, response),
        (HttpFilter::Fault(_), Pass::Fault(pass)) => fault::response(pass, response),
        (HttpFilter::GrpcWeb, Pass::GrpcWeb(pass)) => grpc_web::response(pass, exchange, response).await,
        (HttpFilter::LocalRateLimit(_), Pass::LocalRateLimit(pass)) => local_rate_limit::response(&pass, response),
        (HttpFilter::HealthCheck(filter), _) => health_check::response(filter, exchange, response),
        (HttpFilter::StatefulSession(_), Pass::StatefulSession(pass)) => {
            stateful_session::response(&pass, exchange, response);
        }
        (HttpFilter::RateLimit(_), Pass::RateLimit(pass)) => rate_limit::response(pass, response),
        (HttpFilter::HeaderToMetadata(config), _) => {
            header_to_metadata::response(&filter.name, config, (exchange, route), response);
        }
        (HttpFilter::HeaderMutation { mutations, most_specific_wins }, _) => {
            header_mutation::response(&filter.name, mutations, *most_specific_wins, (exchange, route), response);
        }
        (_, _) => {}
    }
}

/// The address that the caller asked for, as refusals name it.
fn realm(head: &request::Parts) -> String {
    let scheme = head.headers.get(X_FORWARDED_PROTO).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let host = String::from_utf8_lossy(authority(head));
    let original = head.headers.get("x-envoy-original-path").and_then(|value| value.to_str().ok());
    let path = original.or_else(|| head.uri.path_and_query().map(|path| path.as_str())).unwrap_or_default();
    let end = path.char_indices().map(|(at, _)| at).take_while(|at| *at <= REALM_PATH_BYTES_MAX).last().unwrap_or(0);
    let path = if path.len() <= REALM_PATH_BYTES_MAX { path } else { &path[..end] };
    format!("{scheme}://{host}{path}")
}

const REALM_PATH_BYTES_MAX: usize = 256;

/// What the most specific place in the route table that says something says about the filter.
fn override_of<'a>(route: Option<&'a ResolvedRoute>, name: &str) -> Option<&'a RouteFilter> {
    route?.filter_configs(name).find_map(|config| config.filter.as_ref())
}
