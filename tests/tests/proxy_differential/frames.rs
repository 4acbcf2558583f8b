//! HTTP/2 by hand: frames as bytes, right or wrong, and what comes back (RFC 9113 sections 4 and 6).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block without compression: literals that no table keeps (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            integer(&mut out, text.chars().count());
            out.extend(text.chars().map(|character| character as u8)); // one byte each, so that any byte can be had
        }
    }
    out
}

fn integer(out: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(127) else { return out.push(value as u8) };
    out.push(127);
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

pub(crate) fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(fields))
}

pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What was seen of the other side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// (stream, status) of final responses that ended.
    pub(crate) answers: Vec<(u32, u16)>,
    pub(crate) interim: Vec<(u32, u16)>,
    /// (stream, reason).
    pub(crate) resets: Vec<(u32, u32)>,
    pub(crate) goaway: Option<u32>,
    pub(crate) ping_acks: usize,
    pub(crate) settings: Vec<(u16, u32)>,
    pub(crate) settings_acks: usize,
    pub(crate) data_frames: Vec<(u32, usize)>,
    /// (stream, status) of final responses that began.
    pub(crate) begun: Vec<(u32, u16)>,
    /// What came as DATA, of all streams.
    pub(crate) bytes: Vec<u8>,
    pub(crate) closed: bool,
}

/// A connection on which nothing is done but what is asked for.
pub(crate) struct RawConnection {
    stream: TcpStream,
    unread: Vec<u8>,
    pub(crate) seen: Seen,
}

impl RawConnection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new(), seen: Seen::default() })
    }

    /// Err is no matter: the other side may have closed already, which is what is looked for.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes);
    }

    /// Reads until `enough`, the end of the connection, or the end of the time.
    pub(crate) fn read_until(&mut self, patience: Duration, enough: impl Fn(&Seen) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 16 * 1024];
        while !self.seen.closed && !enough(&self.seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => self.seen.closed = true,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_reset) => self.seen.closed = true,
            }
            self.take_frames()?;
        }
        Ok(())
    }

    fn take_frames(&mut self) -> Result<()> {
        while let Some(head) = self.unread.first_chunk::<9>() {
            let [a, b, c, kind, flags, id @ ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if self.unread.len() < 9 + length {
                return Ok(());
            }
            let rest = self.unread.split_off(9 + length);
            let whole = std::mem::replace(&mut self.unread, rest);
            self.take_frame(kind, flags, u32::from_be_bytes(id), &whole[9..])?;
        }
        Ok(())
    }

    fn take_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        let word = |at: usize| {
            payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(u32::MAX, u32::from_be_bytes)
        };
        match kind {
            DATA => {
                self.seen.data_frames.push((stream, payload.len()));
                self.seen.bytes.extend_from_slice(payload);
            }
            // Trailers have no status: the one before holds.
            HEADERS => match status(payload) {
                Some(status) if status < 200 => self.seen.interim.push((stream, status)),
                Some(status) => self.seen.begun.push((stream, status)),
                None => {}
            },
            RST_STREAM => self.seen.resets.push((stream, word(0))),
            SETTINGS if flags & ACK != 0 => self.seen.settings_acks += 1,
            SETTINGS => {
                let pairs = payload.chunks_exact(6);
                self.seen.settings.extend(pairs.map(|pair| {
                    (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
                }));
            }
            PING if flags & ACK != 0 => self.seen.ping_acks += 1,
            GOAWAY => self.seen.goaway = Some(word(4)),
            PUSH_PROMISE => bail!("a push that nobody asked for"),
            _ => {}
        }
        if flags & END_STREAM != 0 && matches!(kind, DATA | HEADERS) {
            let status = self.seen.begun.iter().find(|(id, _)| *id == stream).map(|(_, status)| *status);
            self.seen.answers.extend(status.map(|status| (stream, status)));
        }
        Ok(())
    }
}

/// The status, which is the first field of a block (RFC 9113 section 8.3). With a table of no size it is an entry of the
/// static table, or a literal of digits.
fn status(block: &[u8]) -> Option<u16> {
    let mut rest = block;
    while let Some((first, after)) = rest.split_first() {
        match first {
            0x88..=0x8e => return [200, 204, 206, 304, 400, 404, 500].get(usize::from(first - 0x88)).copied(),
            0x20..=0x3f => rest = after, // a table resized, to less than 31
            0x08 | 0x18 | 0x48 => {
                let (length, text) = after.split_first()?;
                let text = text.get(..usize::from(length & 0x7f))?;
                return if length & 0x80 == 0 { std::str::from_utf8(text).ok()?.parse().ok() } else { digits(text) };
            }
            _ => return None,
        }
    }
    None
}

/// Three digits by the Huffman code: five bits for 0 to 2, six for the others (RFC 7541 appendix B).
fn digits(coded: &[u8]) -> Option<u16> {
    let bits: Vec<u16> = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1))).collect();
    let mut rest = &bits[..];
    let mut number = 0;
    for _ in 0..3 {
        let value = |count: usize| rest.get(..count).map(|bits| bits.iter().fold(0, |value, bit| value * 2 + bit));
        let (digit, count) = match value(5)? {
            short @ 0..=2 => (short, 5),
            _ => (value(6)?.checked_sub(0b01_1001)? + 3, 6),
        };
        number = number * 10 + digit;
        rest = &rest[count..];
    }
    Some(number)
}
