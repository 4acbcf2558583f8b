use super::*;
use proptest::prelude::*;

const RULES: RequestRules = RequestRules {
    head_bytes_max: 8192,
    fields_max: 20,
    accept_http_10: false,
    allow_chunked_length: false,
    allow_custom_methods: false,
    preserve_case: None,
};

fn parse_with(text: impl AsRef<[u8]>, rules: &RequestRules) -> Result<Option<RequestHead>, Violation> {
    parse_request(&mut BytesMut::from(text.as_ref()), rules)
}

fn whole(text: &str) -> RequestHead {
    parse_with(text, &RULES).unwrap_or_else(|violation| panic!("{text:?}: {violation}")).expect("complete")
}

/// A request with a Host and `fields`.
fn with(fields: &str) -> String {
    format!("POST /x HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n")
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>, violation: Violation) {
    let text = text.as_ref();
    let found = parse_with(text, &RULES).err();
    assert_eq!(found, Some(violation), "{:?}", String::from_utf8_lossy(text));
}

#[test]
fn what_a_head_says() {
    let head = whole("\r\nPOST /a?b HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 5\r\n\r\n");
    assert_eq!((head.parts.method.as_str(), head.parts.uri.to_string().as_str()), ("POST", "/a?b"));
    assert_eq!(head.parts.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((head.length, head.keep_alive, head.tunnel), (BodyLength::Known(5), true, None));
    assert_eq!(whole(&with("")).length, BodyLength::Known(0));
    assert_eq!(whole(&with("transfer-encoding: Chunked \r\n")).length, BodyLength::Chunked);
    assert!(!whole(&with("connection: x, Close\r\n")).keep_alive);
    let mut two = BytesMut::from(&b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2"[..]);
    assert!(parse_request(&mut two, &RULES).expect("well-formed").is_some());
    assert_eq!(&two[..], b"GET /2");
    assert!(parse_request(&mut two, &RULES).expect("well-formed so far").is_none());
}

#[test]
fn framing_that_could_be_read_two_ways_is_refused() {
    for fields in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "chunked,",
        "",
        "\"chunked\"",
        "xchunked",
    ] {
        refused(with(&format!("transfer-encoding: {fields}\r\n")), Violation::TransferEncoding);
    }
    refused(with("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), Violation::TransferEncoding);
    refused(with("transfer-encoding: \x0bchunked\r\n"), Violation::Characters);
    refused(with("transfer-encoding: chunked\r\ncontent-length: 3\r\n"), Violation::LengthAndChunks);
    refused(with("content-length: 3\r\ntransfer-encoding: gzip\r\n"), Violation::LengthAndChunks);
    for length in ["3\r\ncontent-length: 3", "3, 3", "-1", "+1", "0x3", "", "3 3", "99999999999999999999"] {
        refused(with(&format!("content-length: {length}\r\n")), Violation::Grammar);
    }
    let lenient = RequestRules { allow_chunked_length: true, ..RULES };
    let both = with("content-length: 3\r\ntransfer-encoding: chunked\r\n");
    let head = parse_with(both, &lenient).expect("allowed").expect("complete");
    assert!(head.length == BodyLength::Chunked && !head.parts.headers.contains_key("content-length"));
}

#[test]
fn grammar() {
    for line in ["x-a : 1", "x-a\t: 1", "x-a", ": 1", "x@a: 1", "x(a: 1", "x/a: 1"] {
        refused(with(&format!("{line}\r\n")), Violation::Grammar);
    }
    for line in ["x-a: a\0b", "x-a: a\x01b", "x-a: a\x7fb", "x\x01a: 1"] {
        refused(with(&format!("{line}\r\n")), Violation::Characters);
    }
    refused(with("x-a: a\rb\r\n"), Violation::Grammar);
    assert_eq!(whole(&with("x-a: 1\r\n \t 2\r\n")).parts.headers["x-a"], "1 2");
    refused("GET / HTTP/1.1\r\n host: a\r\n\r\n", Violation::Grammar);
    assert_eq!(whole("GET / HTTP/1.1\nhost: a\n\n").parts.headers["host"], "a");
    for method in ["get", "BREW", "G@T", "M-SEARCH"] {
        refused(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"), Violation::Grammar);
    }
    let custom = RequestRules { allow_custom_methods: true, ..RULES };
    assert!(parse_with("BREW / HTTP/1.1\r\nhost: a\r\n\r\n", &custom).is_ok_and(|head| head.is_some()));
    refused(b"\x16\x03\x01\x02\x00\x01\x00\x01", Violation::Grammar);
}

#[test]
fn versions() {
    for version in ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/9.9"] {
        refused(format!("GET / {version}\r\nhost: a\r\n\r\n"), Violation::Version);
    }
    refused("GET /\r\n\r\n", Violation::Version);
    refused(" GET / HTTP/1.1\r\nhost: a\r\n\r\n", Violation::Grammar);
    for version in ["http/1.1", "HTTP/1.10", "HTTP/1", "HTTP/11", "ICE/1.0"] {
        refused(format!("GET / {version}\r\nhost: a\r\n\r\n"), Violation::Grammar);
    }
    let old = RequestRules { accept_http_10: true, ..RULES };
    let keep_alive = |fields: &str| {
        let head = parse_with(format!("GET / HTTP/1.0\r\n{fields}\r\n"), &old).expect("allowed").expect("complete");
        (head.parts.version, head.keep_alive)
    };
    assert_eq!(keep_alive(""), (Version::HTTP_10, false));
    assert_eq!(keep_alive("connection: keep-alive\r\n"), (Version::HTTP_10, true));
    let chunked = parse_with("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", &old);
    assert_eq!(chunked.err(), Some(Violation::TransferEncoding));
}

#[test]
fn forms_of_the_target() {
    let head = whole("GET http://u@B.test:81/x?y HTTP/1.1\r\nhost: a.test\r\nhost: c.test\r\n\r\n");
    assert_eq!(
        (head.parts.uri.to_string().as_str(), &head.parts.headers["host"]),
        ("/x?y", &"B.test:81".parse().expect("a value"))
    );
    assert_eq!(head.parts.headers.get_all("host").iter().count(), 1);
    assert_eq!(whole("GET http://b.test HTTP/1.1\r\n\r\n").parts.uri, "/");
    assert_eq!(whole("GET http://b.test?q HTTP/1.1\r\n\r\n").parts.uri, "/?q");
    assert_eq!(whole("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").parts.uri, "*");
    for (target, violation) in [
        ("*", Violation::Target),
        ("ftp://b.test/x", Violation::Scheme),
        ("http:///x", Violation::Target),
        ("http://b.test:0x/x", Violation::Target),
        ("a.test:80", Violation::Grammar),
        ("foo", Violation::Grammar),
        ("/a\u{e9}", Violation::Grammar),
        ("/a#b", Violation::Fragment),
        ("/a b", Violation::Grammar),
        ("/a\tb", Violation::Grammar),
        ("/a\0b", Violation::Characters),
    ] {
        refused(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"), violation);
    }
    for host in ["a b", "a/b", "a#b", "a\\b", "\u{e9}.test"] {
        refused(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"), Violation::Authority);
    }
    assert_eq!(whole("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n").parts.headers["host"], "[::1]:80");
}

#[test]
fn tunnels() {
    let connect = whole("CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((connect.tunnel, connect.length), (Some(Tunnel::Connect), BodyLength::UntilClose));
    assert!(!connect.parts.headers.contains_key("content-length"));
    for target in ["a.test", "/", "u@a.test:80", "http://a.test:80/"] {
        refused(format!("CONNECT {target} HTTP/1.1\r\nhost: a\r\n\r\n"), Violation::Target);
    }
    refused("CONNECT a:1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", Violation::BodyOfConnect);
    refused("CONNECT a:1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", Violation::TransferEncoding);
    let upgrade = whole(&with("connection: Upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n"));
    assert_eq!((upgrade.tunnel, upgrade.length), (Some(Tunnel::Upgrade), BodyLength::UntilClose));
    let h2c = whole(&with("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"));
    assert!(h2c.tunnel.is_none() && !h2c.parts.headers.contains_key("http2-settings"));
    assert_eq!(whole(&with("upgrade: websocket\r\n")).tunnel, None);
    refused(with("connection: :path\r\n"), Violation::ConnectionField);
}

#[test]
fn heads_are_bounded() {
    refused(with(&"x: 1\r\n".repeat(20)), Violation::TooManyFields);
    refused(with(&format!("x: {}\r\n", "a".repeat(8192))), Violation::FieldsTooLarge);
    refused(format!("GET /{}", "a".repeat(8192)), Violation::FieldsTooLarge);
    assert!(parse_with("GET / HT", &RULES).expect("well-formed so far").is_none());
    // Many fields need room that is not on the stack.
    let many = RequestRules { fields_max: 500, head_bytes_max: 60_000, ..RULES };
    let head = parse_with(with(&"x: 1\r\n".repeat(400)), &many).expect("allowed").expect("complete");
    assert_eq!(head.parts.headers.len(), 401);
}

/// Heads that are nearly right.
fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[a-zA-Z-]{1,8}: ?[ -~]{0,12}\r\n",
        2 => "(content-length|transfer-encoding|connection|host|upgrade|te): (0|3|chunked|close|upgrade|h2c|a.test|[ -~]{0,6})\r\n",
        1 => "[ \t]?[\x00-\x7f]{0,10}\r?\n",
    ];
    let first = prop_oneof![
        4 => Just("GET / HTTP/1.1\r\n".to_owned()),
        1 => "(GET|CONNECT|OPTIONS|POST) [!-~]{0,10} HTTP/1.[0-3]\r\n",
        1 => "[\x00-\x7f]{0,20}\r\n",
    ];
    (first, prop::collection::vec(line, 0..8), prop::option::of(Just("\r\n")))
        .prop_map(|(first, lines, end)| format!("{first}{}{}", lines.concat(), end.unwrap_or_default()).into_bytes())
}

proptest! {
    /// Whatever comes: no panic, the same in one piece as byte by byte, and nothing passes that is framed twice.
    #[test]
    fn any_head(input in nearly_a_head(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
        let mut input = input;
        for (at, byte) in flips {
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = byte;
            }
        }
        let at_once = parse_with(&input, &RULES);
        let mut buffer = BytesMut::new();
        let mut piecemeal = Ok(None);
        for byte in &input {
            buffer.extend_from_slice(&[*byte]);
            piecemeal = parse_request(&mut buffer, &RULES);
            if !matches!(piecemeal, Ok(None)) {
                break;
            }
        }
        match (&at_once, &piecemeal) {
            (Ok(Some(whole)), Ok(Some(pieces))) => {
                prop_assert_eq!(&whole.parts.headers, &pieces.parts.headers);
                prop_assert_eq!(whole.length, pieces.length);
                let chunked = whole.parts.headers.contains_key(header::TRANSFER_ENCODING);
                prop_assert!(!(chunked && whole.parts.headers.contains_key(header::CONTENT_LENGTH)));
            }
            // A folding is undone only once the head is there: what else is wrong may be found before it, or not before its end.
            (Ok(None), Ok(None) | Err(_)) | (Err(_), Err(_)) => {}
            _ => prop_assert!(false, "{:?} at once, {:?} in pieces", at_once, piecemeal),
        }
    }
}
