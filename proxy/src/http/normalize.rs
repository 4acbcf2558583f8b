//! A request's path and host in their normal form, as configuration asks for it: pure.

use crate::config::http_connection_manager::{EscapedSlashes, HostOptions, PathOptions, StripPort};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NormalPath {
    /// As it is already.
    Unchanged,
    Changed(String),
    /// The caller is to ask again, with this one.
    Redirect(String),
    /// With what it would have been, for the log.
    Rejected(String),
}

/// `target`: the path with its query.
pub fn path(options: PathOptions, target: &str) -> NormalPath {
    let (path, query) = target.split_at(target.find(['?', '#']).unwrap_or(target.len()));
    let mut changed = path.to_owned();
    let mut redirects = false;
    if options.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(path)
    {
        match options.escaped_slashes {
            EscapedSlashes::Reject => return NormalPath::Rejected(unescaped + query),
            EscapedSlashes::UnescapeAndRedirect => redirects = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
        }
        changed = unescaped;
    }
    if options.normalize {
        match canonical(&changed) {
            Some(canonical) => changed = canonical,
            None => return NormalPath::Rejected(changed + query),
        }
    }
    if options.merge_slashes {
        changed = merge_slashes(&changed);
    }
    if changed == path {
        NormalPath::Unchanged
    } else if redirects {
        NormalPath::Redirect(changed + query)
    } else {
        NormalPath::Changed(changed + query)
    }
}

/// None: there is none.
fn unescape_slashes(path: &str) -> Option<String> {
    let is_slash = |escape: &str| ["2f", "5c"].iter().any(|slash| escape.eq_ignore_ascii_case(slash));
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match rest.get(1..3) {
            Some(escape) if is_slash(escape) => {
                out.push(if escape.starts_with('2') { '/' } else { '\\' });
                rest = &rest[3..];
            }
            _ => {
                out.push('%');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    (out.len() != path.len()).then_some(out)
}

/// RFC 3986 section 6.2.2: dot segments go, and escapes of unreserved characters; a backslash is a slash. None: not a path.
fn canonical(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(dot) = dot_length(&bytes[at..])
            && out.last() == Some(&b'/')
        {
            at += dot;
            match after_dot(&bytes[at..]) {
                AfterDot::NoSegment => out.push(b'.'),
                AfterDot::Same(consumed) => at += consumed,
                AfterDot::Up(consumed) => {
                    at += consumed;
                    back_up(&mut out);
                }
            }
            continue;
        }
        at += push_canonical(&bytes[at..], &mut out)?;
    }
    String::from_utf8(out).ok()
}

/// Of a dot, escaped or not.
fn dot_length(text: &[u8]) -> Option<usize> {
    match text {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    }
}

enum AfterDot {
    /// `.x`
    NoSegment,
    /// `.` and so many bytes that end it.
    Same(usize),
    /// `..` the same.
    Up(usize),
}

fn after_dot(text: &[u8]) -> AfterDot {
    if let Some(end) = segment_end(text) {
        return AfterDot::Same(end);
    }
    let up = dot_length(text).and_then(|dot| Some(dot + segment_end(&text[dot..])?));
    up.map_or(AfterDot::NoSegment, AfterDot::Up)
}

/// How much belongs to a segment that is over but for its parameters, which applications leave out when they look for dots; with
/// the slash behind it. None: it goes on.
fn segment_end(text: &[u8]) -> Option<usize> {
    match text {
        [] => Some(0),
        [b'/' | b'\\', ..] => Some(1),
        [b';', ..] => {
            let slash = text.iter().position(|byte| matches!(byte, b'/' | b'\\'));
            Some(slash.map_or(text.len(), |slash| slash + 1))
        }
        _ => None,
    }
}

/// `out` ends with a slash: its last segment goes. The root stays.
fn back_up(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.pop();
        while out.last().is_some_and(|&byte| byte != b'/') {
            out.pop();
        }
    }
}

/// How many bytes it took. None: a byte that no path has.
fn push_canonical(text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let hex = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match *text {
        [b'\\', ..] => out.push(b'/'),
        [b'%', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
            let value = hex(high)? << 4 | hex(low)?;
            if value == 0 {
                return None;
            }
            match is_unreserved(value) {
                true => out.push(value),
                false => out.extend_from_slice(&[b'%', high, low]),
            }
            return Some(3);
        }
        [byte, ..] if byte <= b' ' || byte >= 0x7f || b"\"<>^`{|}".contains(&byte) => {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
        [byte, ..] => out.push(byte),
        [] => {}
    }
    Some(1)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte)
}

/// The first and the last slash stay.
fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

/// None: as it is already. `listener_port`: where the caller came in.
pub fn host<'a>(options: HostOptions, host: &'a str, listener_port: u16) -> Option<std::borrow::Cow<'a, str>> {
    let (name, port) = split_port(host);
    let strips_port = match (options.strip_port, port) {
        (StripPort::Any, Some(_)) => true,
        (StripPort::Matching, Some(port)) => port == listener_port,
        (StripPort::No, _) | (_, None) => false,
    };
    let bare = name.strip_suffix('.').filter(|_| options.strip_trailing_dot);
    match (strips_port, bare) {
        (true, bare) => Some(bare.unwrap_or(name).into()),
        (false, Some(bare)) => Some(format!("{bare}{}", &host[name.len()..]).into()),
        (false, None) => None,
    }
}

fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        // A colon within brackets belongs to an IPv6 address.
        Some((name, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(escaped_slashes: EscapedSlashes, normalize: bool, merge_slashes: bool) -> PathOptions {
        PathOptions { escaped_slashes, normalize, merge_slashes }
    }

    #[test]
    fn dots_and_escapes() {
        let normal = options(EscapedSlashes::Keep, true, false);
        for (given, expected) in [
            ("/a/../b", "/b"),
            ("/a/./b/.", "/a/b/"),
            ("/../..", "/"),
            ("/a/b/%2E%2e/c?x=/../y", "/a/c?x=/../y"),
            ("/a/...", "/a/..."),
            ("/a\\b", "/a/b"),
            ("/%41%7e%2F%3a", "/A~%2F%3a"),
            ("/a..", "/a.."),
            ("/.;/admin", "/admin"),
            ("/x/..;a=b/admin", "/admin"),
            ("/x/%2e%2E;/admin", "/admin"),
            ("/x;y/../z", "/z"),
            ("/x/..;y", "/"),
            ("/a/...;/b", "/a/...;/b"),
            ("/a/..;x/..;y/c", "/c"),
            ("/a//b", "/a//b"),
            ("/x\"y", "/x%22y"),
        ] {
            let expected =
                if given == expected { NormalPath::Unchanged } else { NormalPath::Changed(expected.to_owned()) };
            assert_eq!(path(normal, given), expected, "{given}");
        }
        assert_eq!(path(normal, "*"), NormalPath::Rejected("*".to_owned()));
        assert_eq!(path(normal, "/%00"), NormalPath::Rejected("/%00".to_owned()));
    }

    #[test]
    fn slashes() {
        let merged = options(EscapedSlashes::Keep, false, true);
        assert_eq!(path(merged, "//a///b//?x=//"), NormalPath::Changed("/a/b/?x=//".to_owned()));
        let escaped = |action| path(options(action, false, false), "/a%2fb%5Cc?%2f");
        assert_eq!(escaped(EscapedSlashes::Keep), NormalPath::Unchanged);
        assert_eq!(escaped(EscapedSlashes::Reject), NormalPath::Rejected("/a/b\\c?%2f".to_owned()));
        assert_eq!(escaped(EscapedSlashes::UnescapeAndForward), NormalPath::Changed("/a/b\\c?%2f".to_owned()));
        assert_eq!(escaped(EscapedSlashes::UnescapeAndRedirect), NormalPath::Redirect("/a/b\\c?%2f".to_owned()));
        let all = options(EscapedSlashes::UnescapeAndForward, true, true);
        assert_eq!(path(all, "/a%2f..%2f/b"), NormalPath::Changed("/b".to_owned()));
    }

    #[test]
    fn hosts() {
        let strip = |strip_port, strip_trailing_dot, given| {
            host(HostOptions { strip_port, strip_trailing_dot }, given, 80).map(std::borrow::Cow::into_owned)
        };
        assert_eq!(strip(StripPort::No, false, "a:80"), None);
        assert_eq!(strip(StripPort::Matching, false, "a:80").as_deref(), Some("a"));
        assert_eq!(strip(StripPort::Matching, false, "a:81"), None);
        assert_eq!(strip(StripPort::Any, false, "[::1]:81").as_deref(), Some("[::1]"));
        assert_eq!(strip(StripPort::Any, false, "[::1]"), None);
        assert_eq!(strip(StripPort::No, true, "a.:80").as_deref(), Some("a:80"));
        assert_eq!(strip(StripPort::Any, true, "a.:80").as_deref(), Some("a"));
    }
}
