//! The chunked transfer coding's decoder (RFC 9112 section 7.1): pure. Bytes in, pieces of the body out.
//!
//! Extensions are checked and dropped, and bounded in all; so are trailers. A chunk ends in CRLF and nothing else: leniency
//! here is how requests get smuggled.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use super::{fields, violation::Violation};

#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Of chunk extensions so far.
    extension_bytes: usize,
    limits: TrailerLimits,
}

/// Of a trailer section.
#[derive(Clone, Copy, Debug)]
pub struct TrailerLimits {
    pub bytes_max: usize,
    pub fields_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    Size,
    SizeDigits(u64),
    /// Spaces behind the size, or an extension.
    SizeTail(u64),
    SizeLineFeed(u64),
    Data(u64),
    DataCarriageReturn,
    DataLineFeed,
    Trailers,
    End,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Data(Bytes),
    /// The end; the trailer section may be empty.
    End(HeaderMap),
    /// All input is used up.
    More,
}

/// Of all chunk extensions of a body together: nobody needs them (RFC 9112 section 7.1.1 asks for a limit).
const EXTENSION_BYTES_MAX: usize = 16 * 1024;

impl ChunkedDecoder {
    pub fn new(limits: TrailerLimits) -> ChunkedDecoder {
        ChunkedDecoder { state: State::Size, extension_bytes: 0, limits }
    }

    /// Takes from `input` what it understands.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, Violation> {
        loop {
            match self.state {
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataCarriageReturn } else { State::Data(left) };
                    return Ok(Decoded::Data(input.split_to(taken).freeze()));
                }
                State::Trailers => return self.trailers(input),
                State::End => return Ok(Decoded::End(HeaderMap::new())),
                state => {
                    let Some(&byte) = input.first() else { return Ok(Decoded::More) };
                    self.state = self.after(state, byte)?;
                    input.advance(1);
                }
            }
        }
    }

    /// Takes the last chunk where it is next, whole and without trailers.
    pub(super) fn take_bare_end(&mut self, input: &mut BytesMut) -> bool {
        let end: &[u8] = match self.state {
            State::DataCarriageReturn => b"\r\n0\r\n\r\n",
            State::Size => b"0\r\n\r\n",
            _ => return false,
        };
        let found = input.starts_with(end);
        if found {
            input.advance(end.len());
            self.state = State::End;
        }
        found
    }

    /// The state after one byte of a chunk's frame.
    fn after(&mut self, state: State, byte: u8) -> Result<State, Violation> {
        Ok(match (state, byte) {
            (State::Size, _) => State::SizeDigits(hex_digit(byte).ok_or(Violation::Grammar)?),
            (State::SizeDigits(size), b'\r') => State::SizeLineFeed(size),
            (State::SizeDigits(size), b' ' | b'\t' | b';') => State::SizeTail(size),
            (State::SizeDigits(size), _) => {
                let digit = hex_digit(byte).ok_or(Violation::Grammar)?;
                // A size that 64 bits can't hold is no size.
                State::SizeDigits(size.checked_mul(16).ok_or(Violation::Grammar)? + digit)
            }
            (State::SizeTail(size), b'\r') => State::SizeLineFeed(size),
            (State::SizeTail(_), byte) if fields::is_control(&byte) || byte == b'\n' => return Err(Violation::Grammar),
            (State::SizeTail(size), _) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(Violation::Grammar);
                }
                State::SizeTail(size)
            }
            (State::SizeLineFeed(0), b'\n') => State::Trailers,
            (State::SizeLineFeed(size), b'\n') => State::Data(size),
            (State::DataCarriageReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size,
            _ => return Err(Violation::Grammar),
        })
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Decoded, Violation> {
        // Almost always there are none.
        if input.starts_with(b"\r\n") {
            input.advance(2);
            self.state = State::End;
            return Ok(Decoded::End(HeaderMap::new()));
        }
        let all = input.split().freeze();
        let parsed = fields::parse_trailers(&all, self.limits.fields_max)?;
        let used = parsed.as_ref().map_or(all.len(), |(length, _)| *length);
        if used > self.limits.bytes_max {
            return Err(Violation::FieldsTooLarge);
        }
        match parsed {
            Some((length, trailers)) => {
                input.extend_from_slice(&all[length..]);
                self.state = State::End;
                Ok(Decoded::End(trailers))
            }
            None => {
                input.extend_from_slice(&all);
                Ok(Decoded::More)
            }
        }
    }
}

fn hex_digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests;
