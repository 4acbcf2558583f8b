//! HTTP/2 frames by hand (RFC 9113 section 4), and header blocks of a few bytes (RFC 7541).

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `GET http /` of the authority `a`, which no table keeps.
pub const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x01, 1, b'a'];
/// `a: b`, kept in no table.
pub const FIELD: [u8; 5] = [0, 1, b'a', 1, b'b'];

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A request without a body; `more` are further fields.
pub fn headers(stream: u32, more: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &[&GET, more].concat())
}

pub fn get(stream: u32) -> Vec<u8> {
    headers(stream, b"")
}

/// A request that goes on.
pub fn post(stream: u32, content_length: &str) -> Vec<u8> {
    let fields = [&[0x83][..], &GET[1..], &literal(b"content-length", content_length.as_bytes())].concat();
    frame(kind::HEADERS, END_HEADERS, stream, &fields)
}

/// A field that the table keeps.
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x40][..], &length(name.len()), name, &length(value.len()), value].concat()
}

/// RFC 7541 section 5.1, with a prefix of seven bits.
fn length(value: usize) -> Vec<u8> {
    let Some(mut rest) = value.checked_sub(127) else { return vec![value as u8] };
    let mut out = vec![127];
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
    out
}
