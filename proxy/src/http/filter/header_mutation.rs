//! `envoy.filters.http.header_mutation`: changes headers and query parameters on the way in, headers on the way out.

use std::rc::Rc;

use http::Response;

use super::Passing;
use crate::{
    config::{
        header_mutation::AppendAction,
        http_filter::{HeaderMutations, ParameterMutation, RouteFilter},
    },
    http::{
        exchange::{Exchange, ResponseBody},
        header_mutation,
        local_reply::LocalReply,
        request_headers::set_path,
        route::resolved::ResolvedRoute,
    },
    substitution::{self, Context, Subject},
};

pub(super) fn request(
    name: &str,
    mutations: &HeaderMutations,
    most_specific_wins: bool,
    passing: &mut Passing<'_>,
) -> Result<(), LocalReply> {
    let route = passing.route;
    for mutations in in_order(name, mutations, most_specific_wins, route) {
        header_mutation::mutate_request(&mutations.request, passing.exchange, passing.head)?;
        if !mutations.query_parameters.is_empty() {
            change_query(&mutations.query_parameters, passing)?;
        }
    }
    Ok(())
}

pub(super) fn response(
    name: &str,
    mutations: &HeaderMutations,
    most_specific_wins: bool,
    (exchange, route): (&Rc<Exchange>, Option<&ResolvedRoute>),
    response: &mut Response<ResponseBody>,
) {
    for mutations in in_order(name, mutations, most_specific_wins, route) {
        header_mutation::mutate_response(&mutations.response, exchange, response);
    }
}

/// The filter's own first, then the routes' from the most specific on, or towards it if that is to win.
fn in_order<'a>(
    name: &str,
    own: &'a HeaderMutations,
    most_specific_wins: bool,
    route: Option<&'a ResolvedRoute>,
) -> Vec<&'a HeaderMutations> {
    let mut all: Vec<&HeaderMutations> = Vec::new();
    for config in route.into_iter().flat_map(|route| route.filter_configs(name)) {
        if let Some(RouteFilter::HeaderMutation(mutations)) = &config.filter {
            all.push(mutations);
        }
    }
    if most_specific_wins {
        all.reverse();
    }
    all.insert(0, own);
    all
}

fn change_query(mutations: &[ParameterMutation], passing: &mut Passing<'_>) -> Result<(), LocalReply> {
    let head = &*passing.head;
    let path = head.uri.path().to_owned();
    let mut parameters: Vec<(String, String)> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    for mutation in mutations {
        let (key, value, action) = match mutation {
            ParameterMutation::Remove(key) => {
                parameters.retain(|(name, _)| name != key);
                continue;
            }
            ParameterMutation::Append { key, value, action } => {
                let context =
                    Context { request: Some(head), ..Context::of_connection(Subject::Http(passing.exchange)) };
                let mut text = Vec::new();
                passing.exchange.connection.downstream.worker.access_logs.with_clock(|clock| {
                    substitution::write_text(value, &context, b"", clock, &mut text);
                });
                (key, String::from_utf8_lossy(&text).into_owned(), *action)
            }
        };
        let is_there = parameters.iter().any(|(name, _)| name == key);
        let overwrites = match action {
            AppendAction::AppendIfExistsOrAdd => false,
            AppendAction::AddIfAbsent if is_there => continue,
            AppendAction::AddIfAbsent => false,
            AppendAction::OverwriteIfExists if !is_there => continue,
            AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => true,
        };
        if overwrites {
            parameters.retain(|(name, _)| name != key);
        }
        parameters.push((key.clone(), value));
    }
    // By name, as Envoy writes them.
    parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
    let query: Vec<String> = parameters.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let path = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
    set_path(passing.head, &path)
}
