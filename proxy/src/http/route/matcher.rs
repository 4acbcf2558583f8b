//! Whether a route matches a request: pure predicates over its head.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, StatusCode, request};

use crate::{
    config::{
        matcher::{HeaderMatch, HeaderMatcher, HeaderMatcherName},
        route::{CookieMatcher, PathMatch, QueryParameterMatcher, QueryParameterValue, RouteMatch, TlsContextMatch},
    },
    http::{
        exchange::is_grpc,
        request_headers::{authority, scheme},
        route::table::RouteQuery,
    },
    tls::TlsSession,
};

/// `request_path`: what of the request's path counts.
pub fn matches(rule: &RouteMatch, request_path: &str, query: &RouteQuery<'_>) -> bool {
    let RouteMatch {
        path,
        case_sensitive,
        headers,
        query_parameters,
        cookies,
        share,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
    } = rule;
    let (head, facts) = (query.head, &query.facts);
    let authority = authority(head);
    target_matches(path, *case_sensitive, request_path, head)
        && (!grpc || is_grpc(&head.headers))
        && headers.iter().all(|header| header_matches(header, head, authority))
        && query_parameters.iter().all(|parameter| query_matches(parameter, head.uri.query().unwrap_or_default()))
        && cookies.iter().all(|cookie| cookie_matches(cookie, &head.headers))
        && share.includes(query.random)
        && tls_context.is_none_or(|wanted| tls_matches(wanted, facts.tls))
        && dynamic_metadata.iter().all(|matcher| facts.metadata.is_some_and(|metadata| matcher.matches(metadata)))
        && filter_state.iter().all(|matcher| facts.filter_state.is_some_and(|state| matcher.matches(state)))
}

/// A CONNECT has no path that could match anything.
fn target_matches(rule: &PathMatch, case_sensitive: bool, path: &str, head: &request::Parts) -> bool {
    if head.uri.path_and_query().is_none() || matches!(rule, PathMatch::Connect) {
        return matches!(rule, PathMatch::Connect) && head.method == Method::CONNECT;
    }
    path_matches(rule, case_sensitive, path)
}

fn path_matches(rule: &PathMatch, case_sensitive: bool, path: &str) -> bool {
    let same = |a: &[u8], b: &[u8]| if case_sensitive { a == b } else { a.eq_ignore_ascii_case(b) };
    let starts_with =
        |prefix: &str| path.as_bytes().get(..prefix.len()).is_some_and(|start| same(start, prefix.as_bytes()));
    match rule {
        PathMatch::Prefix(prefix) => starts_with(prefix),
        PathMatch::Exact(exact) => same(path.as_bytes(), exact.as_bytes()),
        PathMatch::PathSeparatedPrefix(prefix) => {
            starts_with(prefix) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
        }
        PathMatch::SafeRegex(regex) => regex.is_match(path), // anchored when it was compiled
        PathMatch::Template(template) => template.matches(path),
        PathMatch::Connect => false,
    }
}

/// Whoever comes in plain text has shown nothing.
fn tls_matches(wanted: TlsContextMatch, tls: Option<&TlsSession>) -> bool {
    let presented = tls.is_some_and(|tls| !tls.peer_chain().is_empty());
    let validated = tls.is_some_and(TlsSession::is_peer_validated);
    wanted.presented.is_none_or(|wanted| wanted == presented)
        && wanted.validated.is_none_or(|wanted| wanted == validated)
}

pub fn header_matches(matcher: &HeaderMatcher, head: &request::Parts, authority: &[u8]) -> bool {
    value_matches(matcher, header_bytes(&matcher.name, head, authority).as_deref())
}

/// None: it is not there.
fn header_bytes<'a>(name: &HeaderMatcherName, head: &'a request::Parts, authority: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    Some(match name {
        HeaderMatcherName::Header(name) => return header_value_of(&head.headers, name),
        HeaderMatcherName::Method => head.method.as_str().as_bytes().into(),
        HeaderMatcherName::Authority => authority.into(),
        HeaderMatcherName::Path => head.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes().into(),
        HeaderMatcherName::Scheme => scheme(head).as_bytes().into(),
        HeaderMatcherName::Status => return None,
    })
}

/// None: it is not there, or no text.
pub fn header_text<'a>(name: &HeaderMatcherName, head: &'a request::Parts) -> Option<Cow<'a, str>> {
    match header_bytes(name, head, authority(head))? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// The same of a response.
pub fn response_header_matches(matcher: &HeaderMatcher, status: StatusCode, headers: &HeaderMap) -> bool {
    match &matcher.name {
        HeaderMatcherName::Header(name) => value_matches(matcher, header_value_of(headers, name).as_deref()),
        HeaderMatcherName::Status => value_matches(matcher, Some(status.as_str().as_bytes())),
        HeaderMatcherName::Method
        | HeaderMatcherName::Authority
        | HeaderMatcherName::Path
        | HeaderMatcherName::Scheme => value_matches(matcher, None),
    }
}

/// For decisions about access: of several fields of a name each is looked at by itself, so that none hides behind another.
pub fn some_header_matches(matcher: &HeaderMatcher, head: &request::Parts, authority: &[u8]) -> bool {
    let HeaderMatcherName::Header(name) = &matcher.name else { return header_matches(matcher, head, authority) };
    if !head.headers.contains_key(name) {
        return value_matches(matcher, None);
    }
    let mut values = head.headers.get_all(name).iter();
    let is_inverted = matcher.invert_match;
    values.any(|value| value_matches(matcher, Some(value.as_bytes())) != is_inverted) != is_inverted
}

/// The same where there is no request at all.
pub fn missing_header_matches(matcher: &HeaderMatcher) -> bool {
    value_matches(matcher, None)
}

fn value_matches(matcher: &HeaderMatcher, value: Option<&[u8]>) -> bool {
    let value = if matcher.treat_missing_header_as_empty { value.or(Some(b"")) } else { value };
    let Some(value) = value else {
        // A header that is not there matches nothing but its own absence: what it would say is not inverted.
        return match matcher.value {
            HeaderMatch::Present(present) => present == matcher.invert_match,
            HeaderMatch::String(_) | HeaderMatch::Range { .. } => false,
        };
    };
    let text = || std::str::from_utf8(value).ok();
    let matched = match &matcher.value {
        HeaderMatch::Present(present) => *present,
        HeaderMatch::String(string) => text().is_some_and(|text| string.matches(text)),
        HeaderMatch::Range { start, end } => {
            text().and_then(|text| text.parse::<i64>().ok()).is_some_and(|number| (*start..*end).contains(&number))
        }
    };
    matched != matcher.invert_match
}

/// Several fields of a name count as one, joined by commas.
pub fn header_value_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    let first = values.next()?;
    let rest: Vec<&[u8]> = values.collect();
    if rest.is_empty() {
        return Some(first.into());
    }
    Some([&[first], &rest[..]].concat().join(&b","[..]).into())
}

/// RFC 6265 section 4.2.1.
fn cookie_matches(matcher: &CookieMatcher, headers: &HeaderMap) -> bool {
    let crumbs = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = crumbs.flat_map(|crumbs| crumbs.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(name, _)| *name == matcher.name).map(|(_, value)| value.trim_matches('"'));
    value.is_some_and(|value| matcher.value.matches(value)) != matcher.invert_match
}

pub fn query_matches(matcher: &QueryParameterMatcher, query: &str) -> bool {
    let found = query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == matcher.name).then_some(value)
    });
    match &matcher.value {
        QueryParameterValue::Present(present) => found.is_some() == *present,
        QueryParameterValue::Match(string) => found.is_some_and(|value| string.matches(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matcher::{StringMatcher, StringPattern};

    fn head(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_connect_matches_its_own_rule_alone() {
        let head = |method: Method, uri: &str| {
            http::Request::builder().method(method).uri(uri).body(()).expect("a request").into_parts().0
        };
        let (connect, get) = (head(Method::CONNECT, "a.test:80"), head(Method::GET, "/"));
        assert!(target_matches(&PathMatch::Connect, true, connect.uri.path(), &connect));
        assert!(!target_matches(&PathMatch::Connect, true, get.uri.path(), &get));
        assert!(!target_matches(&PathMatch::Prefix(String::new()), true, connect.uri.path(), &connect));
        assert!(target_matches(&PathMatch::Prefix(String::new()), true, get.uri.path(), &get));
    }

    #[test]
    fn paths() {
        let path = |rule: PathMatch, path: &str| path_matches(&rule, true, path);
        assert!(path(PathMatch::Prefix("/a".into()), "/ab"));
        assert!(!path(PathMatch::Prefix("/a".into()), "/A"));
        assert!(path_matches(&PathMatch::Prefix("/a".into()), false, "/AB"));
        assert!(path(PathMatch::Exact("/a".into()), "/a") && !path(PathMatch::Exact("/a".into()), "/a/"));
        let separated = || PathMatch::PathSeparatedPrefix("/a".into());
        assert!(path(separated(), "/a") && path(separated(), "/a/b") && !path(separated(), "/ab"));
        assert!(!path(PathMatch::Prefix("/é".into()), "/\u{e8}"));
    }

    #[test]
    fn headers() {
        let request = head("/p?q=1", &[("x", "5"), ("y", "a"), ("y", "b")]);
        let check = |name: &str, value: HeaderMatch, invert_match: bool, treat_missing_header_as_empty: bool| {
            let name = match name {
                ":method" => HeaderMatcherName::Method,
                ":path" => HeaderMatcherName::Path,
                name => HeaderMatcherName::Header(name.parse().expect("a name")),
            };
            header_matches(&HeaderMatcher { name, value, invert_match, treat_missing_header_as_empty }, &request, b"h")
        };
        let exact = |text: &str| {
            HeaderMatch::String(StringMatcher { pattern: StringPattern::Exact(text.into()), ignore_case: false })
        };
        assert!(check("x", HeaderMatch::Range { start: 5, end: 6 }, false, false));
        assert!(!check("x", HeaderMatch::Range { start: 6, end: 9 }, false, false));
        assert!(check("y", exact("a,b"), false, false));
        assert!(check("z", exact(""), false, true) && !check("z", exact(""), false, false));
        assert!(!check("z", exact("v"), true, false) && check("z", exact("v"), true, true));
        assert!(check("z", HeaderMatch::Present(false), false, false));
        assert!(check("z", HeaderMatch::Present(true), true, false));
        assert!(!check("x", HeaderMatch::Present(true), true, false));
        assert!(check(":method", exact("GET"), false, false) && check(":path", exact("/p?q=1"), false, false));
    }

    #[test]
    fn cookies() {
        let check = |name: &str, invert_match, header: &str| {
            let value = StringMatcher { pattern: StringPattern::Exact("1".into()), ignore_case: false };
            let matcher = CookieMatcher { name: name.into(), value, invert_match };
            cookie_matches(&matcher, &head("/", &[("cookie", header)]).headers)
        };
        assert!(check("a", false, "b=2; a=1") && check("a", false, "a=\"1\"") && !check("a", false, "b=1"));
        assert!(check("a", true, "b=1") && !check("a", true, "a=1"));
    }

    #[test]
    fn query_parameters() {
        let check = |name: &str, value| query_matches(&QueryParameterMatcher { name: name.into(), value }, "a=1&b&a=2");
        let prefix = StringMatcher { pattern: StringPattern::Prefix("1".into()), ignore_case: false };
        assert!(check("a", QueryParameterValue::Match(prefix)));
        assert!(check("b", QueryParameterValue::Present(true)) && !check("c", QueryParameterValue::Present(true)));
    }
}
