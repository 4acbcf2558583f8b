//! What an HTTP/1 upstream answers: a response's head and its chunked body. The first byte says what was asked, the second
//! where the bytes are cut; however they are cut, they mean the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weft_fuzz::same_body_however_cut;
use weft_proxy::http::{
    h1::{
        BodyLength,
        response_head::{Asked, ResponseRules, parse_response},
    },
    tunnel::Tunnel,
};

fuzz_target!(|bytes: &[u8]| {
    let [asked, cut, bytes @ ..] = bytes else { return };
    let rules = ResponseRules { head_bytes_max: 8 * 1024, fields_max: 100, allow_chunked_length: asked & 1 == 0 };
    let tunnel = [None, Some(Tunnel::Upgrade), Some(Tunnel::Connect)][usize::from(asked >> 2) % 3];
    let asked = Asked { is_head: asked & 2 == 0, tunnel };
    let mut input = BytesMut::from(bytes);
    let Ok(Some(head)) = parse_response(&mut input, &rules, asked) else { return };
    assert!(input.len() < bytes.len(), "a head has bytes");
    let head_bytes = bytes.len() - input.len();
    let mut begun = BytesMut::from(&bytes[..usize::from(*cut) % head_bytes]);
    assert!(matches!(parse_response(&mut begun, &rules, asked), Ok(None)), "the beginning of a head that is right later");
    assert!(!(head.keep_alive && head.length == BodyLength::UntilClose));
    if head.length == BodyLength::Chunked {
        same_body_however_cut(&input, usize::from(*cut));
    }
});
