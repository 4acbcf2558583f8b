//! What a peer sends on an HTTP/1 downstream connection: a request's head and its chunked body. The first byte says what is
//! lenient, the second where the bytes are cut; however they are cut, they mean the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weft_fuzz::same_body_however_cut;
use weft_proxy::http::h1::{
    BodyLength,
    request_head::{RequestHead, RequestRules, parse_request},
};

fuzz_target!(|bytes: &[u8]| {
    let [lenient, cut, bytes @ ..] = bytes else { return };
    let rules = RequestRules {
        head_bytes_max: 8 * 1024,
        fields_max: 100,
        accept_http_10: lenient & 1 == 0,
        allow_chunked_length: lenient & 2 == 0,
        allow_custom_methods: lenient & 4 == 0,
    };
    let mut input = BytesMut::from(bytes);
    let Ok(Some(head)) = parse_request(&mut input, &rules) else { return };
    assert!(input.len() < bytes.len(), "a head has bytes");
    let head_bytes = bytes.len() - input.len();
    let mut begun = BytesMut::from(&bytes[..usize::from(*cut) % head_bytes]);
    assert!(matches!(parse_request(&mut begun, &rules), Ok(None)), "the beginning of a head that is right later");
    check(&head);
    if head.length == BodyLength::Chunked {
        same_body_however_cut(&input, usize::from(*cut));
    }
});

/// What goes on from here has one meaning only.
fn check(head: &RequestHead) {
    let headers = &head.parts.headers;
    assert!(headers.get_all("content-length").iter().count() <= 1);
    assert!(!(headers.contains_key("content-length") && head.length == BodyLength::Chunked));
    for value in headers.values() {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}
