//! Where a request is to go instead: paths and hosts rewritten by routes, and the addresses of redirects. Pure.

use std::borrow::Cow;

use http::{HeaderValue, request};

use crate::{
    config::{
        route::{HostRewrite, PathMatch, PathRewrite, Redirect, RedirectPath},
        substitution::Operator,
    },
    http::{
        exchange::Exchange,
        request_headers::{X_FORWARDED_PROTO, authority, scheme},
    },
    substitution::{self, Context, Subject},
};

/// The path and its query as the rewrite makes them of `target`, which `matched`.
pub fn rewritten_path(rewrite: &PathRewrite, matched: &PathMatch, target: &str) -> String {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    match rewrite {
        PathRewrite::Prefix(replacement) => {
            let length = match matched {
                PathMatch::Prefix(text) | PathMatch::Exact(text) | PathMatch::PathSeparatedPrefix(text) => text.len(),
                PathMatch::SafeRegex(_) | PathMatch::Template(_) | PathMatch::Connect => path.len(),
            };
            format!("{replacement}{}", &target[length.min(target.len())..])
        }
        PathRewrite::Regex(rewrite) => format!("{}{query}", rewrite.apply(path)),
        PathRewrite::Template(rewrite) => match matched {
            PathMatch::Template(template) => {
                format!("{}{query}", rewrite.apply(template, path).as_deref().unwrap_or(path))
            }
            _ => target.to_owned(), // it was read with a template
        },
        PathRewrite::Format(_) => target.to_owned(), // needs to know more: see `formatted_path`
    }
}

/// The path that a format makes, with the request's query; None: it is empty, and nothing is changed.
pub fn formatted_path(operators: &[Operator], exchange: &Exchange, head: &request::Parts) -> Option<String> {
    let path = written(operators, exchange, head)?;
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{path}{query}"))
}

/// None: empty, or no text.
fn written(operators: &[Operator], exchange: &Exchange, head: &request::Parts) -> Option<String> {
    let context = Context { request: Some(head), ..Context::of_connection(Subject::Http(exchange)) };
    let mut text = Vec::new();
    let access_logs = &exchange.connection.downstream.worker.access_logs;
    access_logs.with_clock(|clock| substitution::write_text(operators, &context, b"", clock, &mut text));
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}

/// None: it stays as it is.
pub fn host(rewrite: &HostRewrite, head: &request::Parts, exchange: &Exchange) -> Option<HeaderValue> {
    match rewrite {
        HostRewrite::Literal(host) => Some(host.clone()),
        HostRewrite::Header(name) => head.headers.get(name).filter(|host| !host.is_empty()).cloned(),
        HostRewrite::PathRegex(rewrite) => {
            HeaderValue::from_str(&rewrite.apply(head.uri.path())).ok().filter(|host| !host.is_empty())
        }
        HostRewrite::Format(operators) => HeaderValue::try_from(written(operators, exchange, head)?).ok(),
        HostRewrite::Auto => None, // the upstream host's, once it is chosen
    }
}

/// The `location` of a redirect (RFC 9110 section 10.2.2).
pub fn location(redirect: &Redirect, matched: &PathMatch, head: &request::Parts, exchange: &Exchange) -> String {
    let formatted = match &redirect.path {
        RedirectPath::Format(operators) => written(operators, exchange, head),
        RedirectPath::Same | RedirectPath::Replaced(_) | RedirectPath::Rewritten(_) => None,
    };
    location_with(redirect, formatted, matched, head)
}

/// `formatted`: what the redirect's format makes of the path.
fn location_with(redirect: &Redirect, formatted: Option<String>, matched: &PathMatch, head: &request::Parts) -> String {
    let new_scheme = redirect.scheme.as_deref().unwrap_or_else(|| scheme(head));
    let port = redirect.port.map(|port| format!(":{port}")).unwrap_or_default();
    let host = match &redirect.host {
        Some(host) => Cow::Borrowed(host.as_str()),
        None => String::from_utf8_lossy(authority(head)),
    };
    let host = match redirect.host {
        Some(_) => &host,
        None if redirect.keeps_port => &host,
        None => without_needless_port(&host, new_scheme, !port.is_empty(), head),
    };
    format!("{new_scheme}://{host}{port}{}", redirected_path(redirect, formatted, matched, head))
}

fn redirected_path(
    redirect: &Redirect,
    formatted: Option<String>,
    matched: &PathMatch,
    head: &request::Parts,
) -> String {
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let query = || target.find('?').map_or("", |at| &target[at..]);
    let mut path = match &redirect.path {
        RedirectPath::Replaced(path) if path.contains('?') => return path.clone(),
        RedirectPath::Replaced(path) => format!("{path}{}", query()),
        RedirectPath::Rewritten(rewrite) => rewritten_path(rewrite, matched, target),
        RedirectPath::Format(_) => formatted.map_or_else(
            || target.to_owned(),
            |path| if path.contains('?') { path } else { format!("{path}{}", query()) },
        ),
        RedirectPath::Same => target.to_owned(),
    };
    if redirect.strip_query
        && let Some(at) = path.find('?')
    {
        path.truncate(at);
    }
    path
}

/// The port goes where another takes its place, or where it was only the former scheme's own.
fn without_needless_port<'a>(host: &'a str, new_scheme: &str, has_new_port: bool, head: &request::Parts) -> &'a str {
    let at = match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => at,
        _ => return host,
    };
    let came_by = head.headers.get(X_FORWARDED_PROTO).map_or(&b""[..], HeaderValue::as_bytes);
    let was_default = (came_by == b"https" && &host[at..] == ":443") || (came_by == b"http" && &host[at..] == ":80");
    if has_new_port || (new_scheme.as_bytes() != came_by && was_default) { &host[..at] } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{matcher::RegexRewrite, testing::message};

    fn head(uri: &str, proto: &str) -> request::Parts {
        let request = http::Request::get(uri).header("host", "a.test:80").header("x-forwarded-proto", proto);
        request.body(()).expect("a request").into_parts().0
    }

    fn regex(pattern: &str, substitution: &str) -> RegexRewrite {
        let yaml = format!("{{pattern: {{regex: '{pattern}'}}, substitution: '{substitution}'}}");
        RegexRewrite::from_proto(message(&yaml)).expect("a rewrite")
    }

    #[test]
    fn prefixes_and_expressions() {
        let prefix = PathRewrite::Prefix("/new".into());
        assert_eq!(rewritten_path(&prefix, &PathMatch::Prefix("/old".into()), "/old/x?y=/old"), "/new/x?y=/old");
        assert_eq!(
            rewritten_path(&prefix, &PathMatch::SafeRegex(regex::Regex::new(".").expect("one")), "/old/x?y"),
            "/new?y"
        );
        let swap = PathRewrite::Regex(regex("/(a+)/(b+)", r"/\2/\1"));
        assert_eq!(rewritten_path(&swap, &PathMatch::Prefix("/".into()), "/aa/b/aa/b?/a/b"), "/b/aa/b/aa?/a/b");
    }

    #[test]
    fn locations() {
        let redirect = |yaml: &str| Redirect::from_proto(message(yaml)).expect("a redirect");
        let matched = PathMatch::Prefix("/old".into());
        let locate =
            |yaml: &str, proto: &str| location_with(&redirect(yaml), None, &matched, &head("/old/x?q=1", proto));
        assert_eq!(locate("https_redirect: true", "http"), "https://a.test/old/x?q=1");
        assert_eq!(locate("host_redirect: b", "http"), "http://b/old/x?q=1");
        assert_eq!(locate("port_redirect: 8", "http"), "http://a.test:8/old/x?q=1");
        assert_eq!(locate("path_redirect: /p", "http"), "http://a.test:80/p?q=1");
        assert_eq!(locate("path_redirect: '/p?r'", "http"), "http://a.test:80/p?r");
        assert_eq!(locate("{prefix_rewrite: /n, strip_query: true}", "http"), "http://a.test:80/n/x");
        assert_eq!(locate("scheme_redirect: ftp", "https"), "ftp://a.test:80/old/x?q=1");
    }
}
