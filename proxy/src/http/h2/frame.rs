//! Frames: the nine bytes ahead of each, and the layout of what follows (RFC 9113 sections 4 and 6). Pure.

use bytes::{BufMut, BytesMut};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEADER_BYTES: usize = 9;
/// What every peer takes, and what we take (RFC 9113 section 4.2).
pub const PAYLOAD_BYTES_DEFAULT: usize = 16_384;
pub const PAYLOAD_BYTES_MAX: u32 = (1 << 24) - 1;
pub const WINDOW_MAX: i64 = (1 << 31) - 1;
pub const WINDOW_DEFAULT: u32 = 65_535;
pub const STREAM_ID_MAX: u32 = (1 << 31) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// To be ignored (RFC 9113 section 5.5).
    Unknown,
}

pub mod flag {
    /// Of DATA and HEADERS.
    pub const END_STREAM: u8 = 0x1;
    /// Of SETTINGS and PING.
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub length: usize,
    pub kind: Kind,
    pub flags: u8,
    pub stream_id: u32,
}

impl FrameHeader {
    /// None: not all of it is there.
    pub fn parse(bytes: &[u8]) -> Option<FrameHeader> {
        let [a, b, c, kind, flags, id @ ..] = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(FrameHeader {
            length: usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::Headers,
                2 => Kind::Priority,
                3 => Kind::RstStream,
                4 => Kind::Settings,
                5 => Kind::PushPromise,
                6 => Kind::Ping,
                7 => Kind::GoAway,
                8 => Kind::WindowUpdate,
                9 => Kind::Continuation,
                _ => Kind::Unknown,
            },
            flags: *flags,
            // The first bit is reserved and means nothing.
            stream_id: u32::from_be_bytes(*id) & STREAM_ID_MAX,
        })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Why a stream or connection ends: RFC 9113 section 7.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    pub const NO_ERROR: Reason = Reason(0);
    pub const PROTOCOL_ERROR: Reason = Reason(1);
    pub const INTERNAL_ERROR: Reason = Reason(2);
    pub const FLOW_CONTROL_ERROR: Reason = Reason(3);
    pub const SETTINGS_TIMEOUT: Reason = Reason(4);
    pub const STREAM_CLOSED: Reason = Reason(5);
    pub const FRAME_SIZE_ERROR: Reason = Reason(6);
    pub const REFUSED_STREAM: Reason = Reason(7);
    pub const CANCEL: Reason = Reason(8);
    pub const COMPRESSION_ERROR: Reason = Reason(9);
    pub const CONNECT_ERROR: Reason = Reason(10);
    pub const ENHANCE_YOUR_CALM: Reason = Reason(11);
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            other => return write!(f, "reason {other}"),
        })
    }
}

impl std::fmt::Debug for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// RFC 9113 section 6.5.2, RFC 8441 section 3.
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// The payload without its padding (RFC 9113 section 6.1). None: there is more padding than payload.
pub fn unpadded(payload: &[u8], header: FrameHeader) -> Option<&[u8]> {
    if !header.has(flag::PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(padding))?)
}

/// Four bytes as a number without its first bit.
pub fn number31(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?) & STREAM_ID_MAX)
}

pub fn number32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// Of one pair in a SETTINGS payload.
pub const SETTING_BYTES: usize = 6;

/// The pairs of a SETTINGS payload, whose length is a multiple of theirs.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .chunks_exact(SETTING_BYTES)
        .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]])))
}

/// A frame's first nine bytes.
pub fn put_header(out: &mut BytesMut, length: usize, kind: Kind, flags: u8, stream_id: u32) {
    let kind = match kind {
        Kind::Data => 0,
        Kind::Headers => 1,
        Kind::Priority => 2,
        Kind::RstStream => 3,
        Kind::Settings => 4,
        Kind::PushPromise => 5,
        Kind::Ping => 6,
        Kind::GoAway => 7,
        Kind::WindowUpdate => 8,
        Kind::Continuation => 9,
        Kind::Unknown => u8::MAX,
    };
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [d, e, f, g] = stream_id.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
}

pub fn put_settings(out: &mut BytesMut, settings: &[(u16, u32)]) {
    put_header(out, settings.len() * SETTING_BYTES, Kind::Settings, 0, 0);
    for &(id, value) in settings {
        out.put_u16(id);
        out.put_u32(value);
    }
}

pub fn put_settings_ack(out: &mut BytesMut) {
    put_header(out, 0, Kind::Settings, flag::ACK, 0);
}

pub fn put_ping(out: &mut BytesMut, flags: u8, opaque: [u8; 8]) {
    put_header(out, 8, Kind::Ping, flags, 0);
    out.extend_from_slice(&opaque);
}

pub fn put_rst_stream(out: &mut BytesMut, stream_id: u32, reason: Reason) {
    put_header(out, 4, Kind::RstStream, 0, stream_id);
    out.put_u32(reason.0);
}

pub fn put_window_update(out: &mut BytesMut, stream_id: u32, increment: u32) {
    put_header(out, 4, Kind::WindowUpdate, 0, stream_id);
    out.put_u32(increment);
}

pub fn put_goaway(out: &mut BytesMut, last_stream_id: u32, reason: Reason, debug: &str) {
    put_header(out, 8 + debug.len(), Kind::GoAway, 0, 0);
    out.put_u32(last_stream_id);
    out.put_u32(reason.0);
    out.extend_from_slice(debug.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written() {
        let mut out = BytesMut::new();
        put_header(&mut out, 0x01_02_03, Kind::Continuation, flag::END_HEADERS, 7);
        let header = FrameHeader::parse(&out).expect("whole");
        assert_eq!(
            header,
            FrameHeader { length: 0x01_02_03, kind: Kind::Continuation, flags: flag::END_HEADERS, stream_id: 7 }
        );
        assert_eq!(FrameHeader::parse(&out[..8]), None);
        out[5] |= 0x80;
        assert_eq!(FrameHeader::parse(&out), Some(header), "the reserved bit means nothing");
    }

    #[test]
    fn padding_is_no_longer_than_the_payload() {
        let header = |flags| FrameHeader { length: 0, kind: Kind::Data, flags, stream_id: 1 };
        assert_eq!(unpadded(b"\x01ab", header(flag::PADDED)), Some(&b"a"[..]));
        assert_eq!(unpadded(b"\x02ab", header(flag::PADDED)), Some(&b""[..]));
        assert_eq!(unpadded(b"\x03ab", header(flag::PADDED)), None);
        assert_eq!(unpadded(b"", header(flag::PADDED)), None);
        assert_eq!(unpadded(b"\x03ab", header(0)), Some(&b"\x03ab"[..]));
    }
}
