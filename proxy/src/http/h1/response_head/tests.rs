use super::*;
use proptest::prelude::*;

const RULES: ResponseRules =
    ResponseRules { head_bytes_max: 8192, fields_max: 20, allow_chunked_length: false, preserve_case: None };
const GET: Asked = Asked { is_head: false, tunnel: None };
const HEAD: Asked = Asked { is_head: true, tunnel: None };
const UPGRADE: Asked = Asked { is_head: false, tunnel: Some(Tunnel::Upgrade) };
const CONNECT: Asked = Asked { is_head: false, tunnel: Some(Tunnel::Connect) };

fn parse_text(text: &str, asked: Asked) -> Result<Option<ResponseHead>, Violation> {
    parse_response(&mut BytesMut::from(text), &RULES, asked)
}

#[track_caller]
fn length(status: &str, fields: &str, asked: Asked) -> Result<BodyLength, Violation> {
    parse_text(&format!("HTTP/1.1 {status}\r\n{fields}\r\n"), asked).map(|head| head.expect("complete").length)
}

#[test]
fn lengths() {
    assert_eq!(length("200 OK", "content-length: 5\r\n", GET), Ok(BodyLength::Known(5)));
    assert_eq!(length("200 OK", "Transfer-Encoding: CHUNKED\r\n", GET), Ok(BodyLength::Chunked));
    assert_eq!(length("200 OK", "", GET), Ok(BodyLength::UntilClose));
    assert_eq!(length("200 OK", "content-length: 5\r\n", HEAD), Ok(BodyLength::Known(0)));
    assert_eq!(length("304 Not Modified", "content-length: 5\r\n", GET), Ok(BodyLength::Known(0)));
    assert_eq!(length("204 No Content", "", GET), Ok(BodyLength::Known(0)));
    assert_eq!(length("204 No Content", "content-length: 5\r\n", GET), Err(Violation::LengthOfBodiless));
    assert_eq!(length("204 No Content", "transfer-encoding: chunked\r\n", GET), Err(Violation::TransferEncoding));
    assert_eq!(length("101 Switching Protocols", "", GET), Err(Violation::Grammar));
    assert_eq!(length("101 Switching Protocols", "", UPGRADE), Ok(BodyLength::UntilClose));
    assert_eq!(length("200 OK", "content-length: 5\r\n", UPGRADE), Ok(BodyLength::Known(5)));
    assert_eq!(length("200 OK", "content-length: 5\r\n", CONNECT), Ok(BodyLength::UntilClose));
}

#[test]
fn framing_that_could_be_read_two_ways_is_refused() {
    let both = "content-length: 3\r\ntransfer-encoding: chunked\r\n";
    assert_eq!(length("200 OK", both, GET), Err(Violation::LengthAndChunks));
    for coding in ["gzip", "gzip, chunked", "identity", "chunked\r\ntransfer-encoding: chunked"] {
        let fields = format!("transfer-encoding: {coding}\r\n");
        assert_eq!(length("200 OK", &fields, GET), Err(Violation::TransferEncoding), "{coding}");
    }
    for value in ["2\r\ncontent-length: 2", "2, 2", "x", "-2", "+2"] {
        let fields = format!("content-length: {value}\r\n");
        assert_eq!(length("200 OK", &fields, GET), Err(Violation::Grammar), "{value}");
    }
}

#[test]
fn grammar_and_limits() {
    for text in ["garbage\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n"] {
        assert_eq!(parse_text(text, GET).map(drop), Err(Violation::Grammar), "{text}");
    }
    assert_eq!(length("200 OK", "x-a: a\0b\r\n", GET), Err(Violation::Characters));
    assert_eq!(length("200 OK", "x-a : 1\r\n", GET), Err(Violation::Grammar));
    assert_eq!(length("200 OK", &"x: 1\r\n".repeat(21), GET), Err(Violation::TooManyFields));
    assert_eq!(length("200 OK", &format!("x: {}\r\n", "a".repeat(8192)), GET), Err(Violation::FieldsTooLarge));
    assert!(parse_text("HTTP/1.1 200 OK\r\nx:", GET).expect("well-formed so far").is_none());
    let folded = parse_text("HTTP/1.1 200\r\nx-a: 1\r\n 2\r\n\r\n", GET).expect("well-formed").expect("complete");
    assert_eq!(folded.parts.headers["x-a"], "1 2");
}

#[test]
fn which_connections_live_on() {
    let keep_alive = |text: &str| parse_text(text, GET).expect("well-formed").expect("complete").keep_alive;
    assert!(keep_alive("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    assert!(!keep_alive("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: Close\r\n\r\n"));
    assert!(!keep_alive("HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!keep_alive("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"));
    assert!(keep_alive("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"));
}

proptest! {
    /// Whatever comes: no panic, and nothing passes that is framed twice.
    #[test]
    fn any_head(
        status in "HTTP/1.[01] [0-9]{3}( [ -~]{0,5})?",
        lines in prop::collection::vec("(content-length: [0-9]|transfer-encoding: chunked|[a-z]{1,3}: [ -~\t]{0,8}|[\x00-\x7f]{0,6})\r\n", 0..6),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut input = format!("{status}\r\n{}\r\n", lines.concat()).into_bytes();
        let at = flip.0.index(input.len());
        input[at] = flip.1;
        for asked in [GET, HEAD, UPGRADE, CONNECT] {
            if let Ok(Some(head)) = parse_response(&mut BytesMut::from(&input[..]), &RULES, asked) {
                let chunked = head.parts.headers.contains_key(header::TRANSFER_ENCODING);
                prop_assert!(!(chunked && head.parts.headers.contains_key(header::CONTENT_LENGTH)));
            }
        }
    }
}
