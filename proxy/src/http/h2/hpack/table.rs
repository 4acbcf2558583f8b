//! The tables of header fields that a connection's two ends share (RFC 7541 section 2.3).

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// A field as a header block carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Pseudo(Pseudo, Bytes),
    Header(HeaderName, HeaderValue),
    /// A name or value that HTTP does not allow. It takes its place in the table all the same, or the two ends would
    /// disagree from then on.
    Invalid(Bytes),
}

/// RFC 9113 section 8.3, RFC 8441 section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
}

impl Pseudo {
    pub fn of(name: &[u8]) -> Option<Pseudo> {
        Some(match name {
            b":method" => Pseudo::Method,
            b":scheme" => Pseudo::Scheme,
            b":authority" => Pseudo::Authority,
            b":path" => Pseudo::Path,
            b":protocol" => Pseudo::Protocol,
            b":status" => Pseudo::Status,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Pseudo::Method => ":method",
            Pseudo::Scheme => ":scheme",
            Pseudo::Authority => ":authority",
            Pseudo::Path => ":path",
            Pseudo::Protocol => ":protocol",
            Pseudo::Status => ":status",
        }
    }
}

impl Field {
    /// RFC 9113 sections 8.2 and 8.2.1: names are lower case tokens; values hold no control characters, and neither
    /// start nor end with white space, which is taken off rather than refused.
    pub fn new(name: &[u8], value: Bytes) -> Field {
        if name.first() == Some(&b':') {
            return match Pseudo::of(name) {
                Some(pseudo) => Field::Pseudo(pseudo, value),
                None => Field::Invalid(Bytes::copy_from_slice(name)),
            };
        }
        let lower_case = !name.iter().any(u8::is_ascii_uppercase);
        match (HeaderName::from_bytes(name), header_value(value)) {
            (Ok(name), Some(value)) if lower_case => Field::Header(name, value),
            _ => Field::Invalid(Bytes::copy_from_slice(name)),
        }
    }

    /// The same name with another value.
    pub fn with_value(&self, value: Bytes) -> Field {
        match self {
            Field::Pseudo(pseudo, _) => Field::Pseudo(*pseudo, value),
            Field::Header(name, _) => match header_value(value) {
                Some(value) => Field::Header(name.clone(), value),
                None => Field::Invalid(Bytes::copy_from_slice(name.as_str().as_bytes())),
            },
            Field::Invalid(name) => Field::Invalid(name.clone()),
        }
    }
}

fn header_value(value: Bytes) -> Option<HeaderValue> {
    let trimmed = match (value.first(), value.last()) {
        (Some(b' ' | b'\t'), _) | (_, Some(b' ' | b'\t')) => value.slice_ref(value.trim_ascii()),
        _ => value,
    };
    HeaderValue::from_maybe_shared(trimmed).ok()
}

/// What an entry counts for beyond its name and value (RFC 7541 section 4.1).
pub const ENTRY_OVERHEAD: usize = 32;

/// The dynamic table of the end that decodes: newest first.
pub struct DynamicTable {
    /// With their sizes.
    entries: VecDeque<(Field, usize)>,
    size: usize,
    size_max: usize,
}

impl DynamicTable {
    pub fn new(size_max: usize) -> DynamicTable {
        DynamicTable { entries: VecDeque::new(), size: 0, size_max }
    }

    /// Counted from 0, the newest.
    pub fn find(&self, at: usize) -> Option<&(Field, usize)> {
        self.entries.get(at)
    }

    /// RFC 7541 section 4.4: what is larger than the whole table empties it.
    pub fn insert(&mut self, field: Field, size: usize) {
        self.evict(self.size_max.saturating_sub(size));
        if size <= self.size_max {
            self.size += size;
            self.entries.push_front((field, size));
        }
    }

    pub fn size_max(&self) -> usize {
        self.size_max
    }

    pub fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(size_max);
    }

    fn evict(&mut self, wanted: usize) {
        while self.size > wanted {
            let Some((_, size)) = self.entries.pop_back() else { return };
            self.size -= size;
        }
    }
}

const fn pseudo(pseudo: Pseudo, value: &'static str) -> Field {
    Field::Pseudo(pseudo, Bytes::from_static(value.as_bytes()))
}

const fn header(name: HeaderName, value: &'static str) -> Field {
    Field::Header(name, HeaderValue::from_static(value))
}

/// RFC 7541 appendix A; index 1 is the first.
pub static STATIC: [Field; 61] = {
    use http::header::{
        ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, AGE,
        ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
        CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, COOKIE, DATE, ETAG, EXPECT, EXPIRES, FROM, HOST, IF_MATCH,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LINK, LOCATION, MAX_FORWARDS,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, REFERER, REFRESH, RETRY_AFTER, SERVER, SET_COOKIE,
        STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING, USER_AGENT, VARY, VIA, WWW_AUTHENTICATE,
    };
    [
        pseudo(Pseudo::Authority, ""),
        pseudo(Pseudo::Method, "GET"),
        pseudo(Pseudo::Method, "POST"),
        pseudo(Pseudo::Path, "/"),
        pseudo(Pseudo::Path, "/index.html"),
        pseudo(Pseudo::Scheme, "http"),
        pseudo(Pseudo::Scheme, "https"),
        pseudo(Pseudo::Status, "200"),
        pseudo(Pseudo::Status, "204"),
        pseudo(Pseudo::Status, "206"),
        pseudo(Pseudo::Status, "304"),
        pseudo(Pseudo::Status, "400"),
        pseudo(Pseudo::Status, "404"),
        pseudo(Pseudo::Status, "500"),
        header(ACCEPT_CHARSET, ""),
        header(ACCEPT_ENCODING, "gzip, deflate"),
        header(ACCEPT_LANGUAGE, ""),
        header(ACCEPT_RANGES, ""),
        header(ACCEPT, ""),
        header(ACCESS_CONTROL_ALLOW_ORIGIN, ""),
        header(AGE, ""),
        header(ALLOW, ""),
        header(AUTHORIZATION, ""),
        header(CACHE_CONTROL, ""),
        header(CONTENT_DISPOSITION, ""),
        header(CONTENT_ENCODING, ""),
        header(CONTENT_LANGUAGE, ""),
        header(CONTENT_LENGTH, ""),
        header(CONTENT_LOCATION, ""),
        header(CONTENT_RANGE, ""),
        header(CONTENT_TYPE, ""),
        header(COOKIE, ""),
        header(DATE, ""),
        header(ETAG, ""),
        header(EXPECT, ""),
        header(EXPIRES, ""),
        header(FROM, ""),
        header(HOST, ""),
        header(IF_MATCH, ""),
        header(IF_MODIFIED_SINCE, ""),
        header(IF_NONE_MATCH, ""),
        header(IF_RANGE, ""),
        header(IF_UNMODIFIED_SINCE, ""),
        header(LAST_MODIFIED, ""),
        header(LINK, ""),
        header(LOCATION, ""),
        header(MAX_FORWARDS, ""),
        header(PROXY_AUTHENTICATE, ""),
        header(PROXY_AUTHORIZATION, ""),
        header(RANGE, ""),
        header(REFERER, ""),
        header(REFRESH, ""),
        header(RETRY_AFTER, ""),
        header(SERVER, ""),
        header(SET_COOKIE, ""),
        header(STRICT_TRANSPORT_SECURITY, ""),
        header(TRANSFER_ENCODING, ""),
        header(USER_AGENT, ""),
        header(VARY, ""),
        header(VIA, ""),
        header(WWW_AUTHENTICATE, ""),
    ]
};

/// The first static entry of a name.
pub fn static_name(name: &str) -> Option<usize> {
    Some(match name {
        ":authority" => 1,
        ":method" => 2,
        ":path" => 4,
        ":scheme" => 6,
        ":status" => 8,
        "accept-charset" => 15,
        "accept-encoding" => 16,
        "accept-language" => 17,
        "accept-ranges" => 18,
        "accept" => 19,
        "access-control-allow-origin" => 20,
        "age" => 21,
        "allow" => 22,
        "authorization" => 23,
        "cache-control" => 24,
        "content-disposition" => 25,
        "content-encoding" => 26,
        "content-language" => 27,
        "content-length" => 28,
        "content-location" => 29,
        "content-range" => 30,
        "content-type" => 31,
        "cookie" => 32,
        "date" => 33,
        "etag" => 34,
        "expect" => 35,
        "expires" => 36,
        "from" => 37,
        "host" => 38,
        "if-match" => 39,
        "if-modified-since" => 40,
        "if-none-match" => 41,
        "if-range" => 42,
        "if-unmodified-since" => 43,
        "last-modified" => 44,
        "link" => 45,
        "location" => 46,
        "max-forwards" => 47,
        "proxy-authenticate" => 48,
        "proxy-authorization" => 49,
        "range" => 50,
        "referer" => 51,
        "refresh" => 52,
        "retry-after" => 53,
        "server" => 54,
        "set-cookie" => 55,
        "strict-transport-security" => 56,
        "transfer-encoding" => 57,
        "user-agent" => 58,
        "vary" => 59,
        "via" => 60,
        "www-authenticate" => 61,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand() {
        for (at, field) in STATIC.iter().enumerate() {
            let name = match field {
                Field::Pseudo(pseudo, _) => pseudo.name(),
                Field::Header(name, _) => name.as_str(),
                Field::Invalid(_) => panic!("the static table holds no invalid fields"),
            };
            let found = static_name(name).expect("of the static table");
            assert!(found <= at + 1 && at + 1 - found < 7, "{name}");
        }
    }

    #[test]
    fn a_table_forgets_the_oldest_first() {
        let mut table = DynamicTable::new(100);
        let field = |value: &'static str| Field::Pseudo(Pseudo::Path, Bytes::from_static(value.as_bytes()));
        table.insert(field("a"), 40);
        table.insert(field("b"), 40);
        table.insert(field("c"), 40);
        assert_eq!(table.find(0).map(|(field, _)| field), Some(&field("c")));
        assert_eq!(table.find(1).map(|(field, _)| field), Some(&field("b")));
        assert_eq!(table.find(2), None);
        table.resize(50);
        assert_eq!((table.find(0).is_some(), table.find(1).is_some()), (true, false));
        table.insert(field("too large"), 51);
        assert_eq!((table.find(0), table.size), (None, 0));
    }

    #[test]
    fn names_and_values_that_http_does_not_allow() {
        let field = |name: &'static [u8], value: &'static [u8]| Field::new(name, Bytes::from_static(value));
        for (name, value) in [
            (&b"Foo"[..], &b"x"[..]),
            (b"", b"x"),
            (b"a b", b"x"),
            (b"a:b", b"x"),
            (b":unknown", b"x"),
            (b"a", b"x\0y"),
            (b"a", b"x\ny"),
            (b"a", b"x\x7fy"),
        ] {
            assert!(matches!(field(name, value), Field::Invalid(_)), "{name:?}: {value:?}");
        }
        let expected = Field::Header(HeaderName::from_static("a"), HeaderValue::from_static("x y"));
        assert_eq!(field(b"a", b" x y\t"), expected);
    }
}
