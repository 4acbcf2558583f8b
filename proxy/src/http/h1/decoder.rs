//! A message's body out of a connection's bytes, by the length that its head told.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{
    body_length::BodyLength,
    chunked::{ChunkedDecoder, Decoded, TrailerLimits},
    violation::Violation,
};

#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Known(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
    Done,
}

pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// More bytes are needed.
    More,
    End,
}

impl Decoder {
    pub(super) fn new(length: BodyLength, trailers: TrailerLimits) -> Decoder {
        match length {
            BodyLength::Known(0) => Decoder::Done,
            BodyLength::Known(length) => Decoder::Known(length),
            BodyLength::Chunked => Decoder::Chunked(Box::new(ChunkedDecoder::new(trailers))),
            BodyLength::UntilClose => Decoder::UntilClose,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Decoder::Done)
    }

    /// The next piece, from the front of `input`.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Piece, Violation> {
        match self {
            Decoder::Done => Ok(Piece::End),
            Decoder::Known(_) | Decoder::UntilClose if input.is_empty() => Ok(Piece::More),
            Decoder::UntilClose => Ok(Piece::Data(input.split().freeze())),
            Decoder::Known(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Decoder::Done;
                }
                Ok(Piece::Data(input.split_to(taken).freeze()))
            }
            Decoder::Chunked(chunked) => Ok(match chunked.decode(input)? {
                Decoded::Data(data) => Piece::Data(data),
                Decoded::More => Piece::More,
                Decoded::End(trailers) => {
                    *self = Decoder::Done;
                    if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) }
                }
            }),
        }
    }

    /// The connection has ended: whether that is the end of the body (RFC 9112 section 8).
    pub(super) fn ends_with_connection(&mut self) -> bool {
        if let Decoder::UntilClose = self {
            *self = Decoder::Done;
        }
        self.is_done()
    }

    /// What the end of a chunked body looks like when it is already there, so that whoever asks need not ask once more.
    pub(super) fn take_end(&mut self, input: &mut BytesMut) {
        if let Decoder::Chunked(chunked) = self
            && chunked.take_bare_end(input)
        {
            *self = Decoder::Done;
        }
    }
}
