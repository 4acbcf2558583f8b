use super::*;

const LIMITS: HeaderLimits = HeaderLimits { bytes_max: 1000, count_max: 20 };
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x?y")];

fn collect(fields: &[(&str, &str)]) -> Collector {
    let mut collector = Collector::new(LIMITS);
    for (name, value) in fields {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        collector.add(Field::new(name.as_bytes(), value), size);
    }
    collector
}

fn request(fields: &[(&str, &str)]) -> Result<RequestHead, RequestFault> {
    collect(fields).request(true)
}

/// `GET` with one pseudo-header field changed, or left out.
fn changed(name: &str, value: Option<&str>) -> Result<RequestHead, RequestFault> {
    let fields: Vec<(&str, &str)> = GET
        .iter()
        .filter_map(
            |(known, given)| if *known == name { value.map(|value| (*known, value)) } else { Some((*known, *given)) },
        )
        .collect();
    request(&fields)
}

fn with(more: &[(&str, &str)]) -> Result<RequestHead, RequestFault> {
    request(&[&GET[..], more].concat())
}

const FIELD: RequestFault = RequestFault::Malformed(Malformed::Field);
const MESSAGE: RequestFault = RequestFault::Malformed(Malformed::Message);

#[test]
fn a_request_gets_its_target_and_fields() {
    let head = with(&[("host", "other.test"), ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]).unwrap();
    assert_eq!(head.parts.uri, "http://a.test/x?y");
    assert_eq!(head.parts.headers.get("cookie"), Some(&HeaderValue::from_static("a=1; b=2")));
    assert_eq!((head.parts.headers.get("host"), head.content_length), (None, None));
    let by_host = request(&[GET[0], GET[1], GET[3], ("host", "h.test")]).unwrap();
    assert_eq!(by_host.parts.uri, "http://h.test/x?y");
    assert_eq!(with(&[("content-length", "12")]).unwrap().content_length, Some(12));
}

#[test]
fn pseudo_header_fields_are_complete_unique_first_and_sensible() {
    for name in [":method", ":scheme", ":authority", ":path"] {
        assert_eq!(changed(name, None).unwrap_err(), MESSAGE, "no {name}");
        assert_eq!(changed(name, Some("")).unwrap_err(), FIELD, "empty {name}");
        assert_eq!(with(&[(name, "x")]).unwrap_err(), FIELD, "two {name}");
    }
    for (name, value, fault) in [
        (":method", "G T", FIELD),
        (":scheme", "ht tp", FIELD),
        (":authority", "u@a.test", FIELD),
        (":authority", "a/b", FIELD),
        (":path", "x", MESSAGE),
        (":path", "*", MESSAGE),
        (":path", "/a b", FIELD),
        (":path", "/a#b", RequestFault::UnusableTarget),
    ] {
        assert_eq!(changed(name, Some(value)).unwrap_err(), fault, "{name} {value}");
    }
    assert_eq!(with(&[("x", "y"), (":path", "/")]).unwrap_err(), FIELD);
    assert_eq!(with(&[(":status", "200")]).unwrap_err(), FIELD);
    assert_eq!(with(&[(":other", "x")]).unwrap_err(), FIELD);
    assert_eq!(request(&[(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")]).unwrap().parts.uri.path(), "*");
}

#[test]
fn fields_about_one_connection_and_ambiguous_ones_are_refused() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "5"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("content-length", "+1"),
        ("content-length", "1, 1"),
        ("content-length", ""),
        ("host", ""),
    ] {
        assert_eq!(with(&[(name, value)]).unwrap_err(), FIELD, "{name}: {value}");
    }
    assert!(with(&[("te", "Trailers")]).is_ok());
    assert_eq!(with(&[("content-length", "1"), ("content-length", "1")]).unwrap_err(), FIELD);
    assert_eq!(with(&[("host", "a"), ("host", "a")]).unwrap_err(), FIELD);
}

#[test]
fn connect_has_an_authority_and_extended_connect_the_rest_too() {
    let head = request(&[(":method", "CONNECT"), (":authority", "a.test:80")]).unwrap();
    assert_eq!((head.parts.uri.to_string().as_str(), head.is_extended_connect), ("a.test:80", false));
    assert_eq!(changed(":method", Some("CONNECT")).unwrap_err(), MESSAGE);
    assert_eq!(request(&[(":method", "CONNECT")]).unwrap_err(), MESSAGE);
    let extended = [&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]].concat();
    let head = request(&extended).unwrap();
    assert_eq!((&head.parts.method, head.is_extended_connect), (&Method::GET, true));
    assert_eq!(head.parts.headers["upgrade"], "websocket");
    assert_eq!(head.parts.headers["connection"], "upgrade");
    assert_eq!(collect(&extended).request(false).unwrap_err(), FIELD, "not allowed");
    assert_eq!(with(&[(":protocol", "websocket")]).unwrap_err(), MESSAGE, "not of CONNECT");
}

#[test]
fn responses_have_a_status_and_trailers_no_pseudo_header_fields() {
    let head = collect(&[(":status", "404"), ("x", "y")]).response().unwrap();
    assert_eq!((head.parts.status.as_u16(), head.parts.headers.len()), (404, 1));
    for fields in [&[("x", "y")][..], &[]] {
        assert_eq!(collect(fields).response().unwrap_err(), Malformed::Message);
    }
    for status in ["20", "2000", "+20", "101"] {
        assert_eq!(collect(&[(":status", status)]).response().unwrap_err(), Malformed::Field, "{status}");
    }
    assert_eq!(collect(&[(":status", "200"), (":path", "/")]).response().unwrap_err(), Malformed::Field);
    assert_eq!(collect(&[("x", "y")]).trailers().unwrap().len(), 1);
    assert_eq!(collect(&[(":status", "200")]).trailers().unwrap_err(), Malformed::Field);
    assert_eq!(collect(&[("content-length", "2")]).trailers().unwrap_err(), Malformed::Field);
}

#[test]
fn what_is_over_the_limits_is_said_and_not_kept() {
    let many: Vec<(String, String)> = (0..17).map(|n| (format!("x-{n}"), String::new())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(with(&many).unwrap_err(), Malformed::TooMany.into());
    assert!(with(&many[1..]).is_ok());
    let large = "x".repeat(1000);
    assert_eq!(with(&[("a", &large), ("Bad", "")]).unwrap_err(), Malformed::TooLarge.into());
}
