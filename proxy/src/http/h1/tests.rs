//! Messages that were right once: whatever is done to them, the parsers neither panic nor hang, and take no more than came.

use bytes::BytesMut;

use super::{
    chunked::{ChunkedDecoder, Decoded, TrailerLimits},
    request_head::{RequestRules, parse_request},
    response_head::{Asked, ResponseRules, parse_response},
};

const MESSAGES: [&[u8]; 6] = [
    b"GET /a?b=c HTTP/1.1\r\nhost: a.test\r\nconnection: te, x-a\r\nte: trailers\r\nx-a: 1\r\n y\r\n\r\n",
    b"POST http://u@b.test:81/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
    b"CONNECT a.test:80 HTTP/1.0\r\nhost: a.test:80\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\n\t2\r\n\r\nhello",
    b"HTTP/1.0 304\nconnection: keep-alive\n\n",
    b"00a ;x=\"y\"\r\n0123456789\r\nff\r\n0;last\r\nX-T: 1\r\n\r\n",
];
const ROUNDS: usize = 60_000;

#[test]
fn mutated_messages_are_survived() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..ROUNDS {
        let mut message = MESSAGES[random.usize(..MESSAGES.len())].to_vec();
        for _ in 0..random.usize(1..5) {
            mutate(&mut message, &mut random);
        }
        read_all(&message, &mut random);
    }
}

fn mutate(message: &mut Vec<u8>, random: &mut fastrand::Rng) {
    if message.is_empty() {
        return;
    }
    let at = random.usize(..message.len());
    match random.u8(..5) {
        0 => message[at] = random.u8(..),
        1 => message.insert(at, *random.choice(b"\r\n :;,0\0\x7f").unwrap_or(&b' ')),
        2 => drop(message.remove(at)),
        3 => message.truncate(at),
        _ => {
            let copied = message[at..message.len().min(at + 20)].to_vec();
            message.extend(copied);
        }
    }
}

fn read_all(message: &[u8], random: &mut fastrand::Rng) {
    let lenient = random.bool();
    let request = RequestRules {
        head_bytes_max: 200,
        fields_max: random.usize(1..200),
        accept_http_10: lenient,
        allow_chunked_length: lenient,
        allow_custom_methods: lenient,
        preserve_case: None,
    };
    let mut input = BytesMut::from(message);
    let _ = parse_request(&mut input, &request);
    assert!(input.len() <= message.len());
    let response =
        ResponseRules { head_bytes_max: 200, fields_max: 10, allow_chunked_length: lenient, preserve_case: None };
    let mut input = BytesMut::from(message);
    let _ = parse_response(&mut input, &response, Asked { is_head: lenient, tunnel: None });
    assert!(input.len() <= message.len());
    let mut decoder = ChunkedDecoder::new(TrailerLimits { bytes_max: 100, fields_max: 3 });
    let mut input = BytesMut::from(message);
    let mut body_bytes = 0;
    while let Ok(Decoded::Data(data)) = decoder.decode(&mut input) {
        assert!(!data.is_empty());
        body_bytes += data.len();
    }
    assert!(body_bytes + input.len() <= message.len());
}
