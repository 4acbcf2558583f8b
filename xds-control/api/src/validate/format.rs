//! The textual forms that a rule can ask for: addresses, URIs, header names and the like.

use crate::tables::layout::Format;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `value` has the form, and if not what it should have been.
pub(super) fn check(format: Format, value: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(value).ok();
    let (good, what) = match format {
        Format::Email => (text.is_some_and(is_email), "value must be a valid email address"),
        Format::Hostname => (text.is_some_and(is_hostname), "value must be a valid hostname"),
        Format::Ip => (is_ip(value, text), "value must be a valid IP address"),
        Format::Ipv4 => (is_ipv4(value, text), "value must be a valid IPv4 address"),
        Format::Ipv6 => (is_ipv6(value, text), "value must be a valid IPv6 address"),
        Format::Uri => (text.is_some_and(is_uri), "value must be a valid URI"),
        Format::UriRef => (text.is_some_and(is_uri_reference), "value must be a valid URI reference"),
        Format::Address => (text.is_some_and(is_address), "value must be a valid hostname or IP address"),
        Format::Uuid => (is_uuid(value), "value must be a valid UUID"),
        Format::HeaderName => (is_header_name(value), "value must be a valid HTTP header name"),
        Format::HeaderValue => (value.iter().all(|byte| !is_control(*byte)), "value must be a valid HTTP header value"),
        Format::HeaderNameLoose => (is_one_line(value), "value must be an HTTP header name without NUL, CR or LF"),
        Format::HeaderValueLoose => (is_one_line(value), "value must be an HTTP header value without NUL, CR or LF"),
    };
    if good { Ok(()) } else { Err(what) }
}

/// A token of RFC 9110, with a colon in front for pseudo-headers. The comma is the rule's own: its character class has the
/// range from `+` to `.` in it.
fn is_header_name(value: &[u8]) -> bool {
    let name = value.strip_prefix(b":").unwrap_or(value);
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_|~`".contains(byte);
    !name.is_empty() && name.iter().all(token)
}

/// A control character that a header value may not have; the tab is allowed.
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

fn is_one_line(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r'))
}

/// A string holds an address's text; a bytes field its 4 or 16 bytes.
fn is_ip(value: &[u8], text: Option<&str>) -> bool {
    is_ipv4(value, text) || is_ipv6(value, text)
}

fn is_ipv4(value: &[u8], text: Option<&str>) -> bool {
    text.is_some_and(|text| text.parse::<Ipv4Addr>().is_ok()) || (text.is_none() && value.len() == 4)
}

fn is_ipv6(value: &[u8], text: Option<&str>) -> bool {
    text.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok()) || (text.is_none() && value.len() == 16)
}

/// RFC 1034: labels of letters, digits and inner dashes, at most 63 characters each and 253 in all.
fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && name.split('.').all(label)
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_hostname(text)
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte);
    let local_is_good = local.split('.').all(|part| !part.is_empty() && part.bytes().all(atom));
    text.len() <= 254 && local.len() <= 64 && local_is_good && is_hostname(domain)
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// RFC 3986, section 3: a scheme and something after it.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let scheme_is_good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    scheme_is_good && has_uri_characters(rest)
}

/// RFC 3986, section 4.1: a URI, or a reference relative to one, whose first segment has no colon.
fn is_uri_reference(text: &str) -> bool {
    let first_segment = text.split(['/', '?', '#']).next().unwrap_or_default();
    is_uri(text) || (!first_segment.contains(':') && has_uri_characters(text))
}

fn has_uri_characters(text: &str) -> bool {
    let bytes = text.as_bytes();
    let good = |(index, byte): (usize, &u8)| match byte {
        b'%' => bytes.get(index + 1..index + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(byte),
    };
    bytes.iter().enumerate().all(good) && text.matches('#').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_takes_the_good_and_refuses_the_bad() {
        let cases: [(Format, &[&str], &[&str]); 13] = [
            (Format::Email, &["a@b.c", "first.last+tag@example.com"], &["a", "@b", "a@", "a..b@c", "a b@c", "a@-c"]),
            (Format::Hostname, &["a", "a.b-c.d", "a.b.", "1.2"], &["", ".", "-a", "a-", "a..b", "a_b", "ä.de"]),
            (Format::Ip, &["1.2.3.4", "::1"], &["1.2.3", "1.2.3.4.5", "a", ""]),
            (Format::Ipv4, &["1.2.3.4"], &["::1", "256.1.1.1"]),
            (Format::Ipv6, &["::1", "2001:db8::1"], &["1.2.3.4", "::g"]),
            (
                Format::Uri,
                &["http://a/b?c=d#e", "spiffe://x/ns/y", "urn:a:b"],
                &["a", "/a", "1a:b", "http://a b", "http://%zz"],
            ),
            (Format::UriRef, &["a", "/a/b", "?q", "http://a", ""], &["a b", "1:2", "%1"]),
            (Format::Address, &["1.2.3.4", "::1", "a.b"], &["a_b", ""]),
            (Format::Uuid, &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567e89b12d3a456426614174000", "x"]),
            (Format::HeaderName, &["x-a", ":path", "A_b"], &["", ":", "a b", "a:b", "a\n"]),
            (Format::HeaderNameLoose, &["", "a b", ":x"], &["a\n", "a\0"]),
            (Format::HeaderValue, &["", "a\tb", "ä"], &["a\n", "\u{7f}"]),
            (Format::HeaderValueLoose, &["", "a\u{1}"], &["a\r", "\0"]),
        ];
        for (format, good, bad) in cases {
            for text in good {
                assert_eq!(check(format, text.as_bytes()), Ok(()), "{format:?} {text:?}");
            }
            for text in bad {
                assert!(check(format, text.as_bytes()).is_err(), "{format:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_bytes_field_holds_an_address_in_binary() {
        assert_eq!(check(Format::Ip, &[192, 168, 0, 255]), Ok(()));
        assert!(check(Format::Ipv4, &[0xff; 16]).is_err());
        assert_eq!(check(Format::Ipv6, &[0xff; 16]), Ok(()));
    }
}
