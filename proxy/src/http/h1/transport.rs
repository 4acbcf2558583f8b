//! A connection's stream with what was read of it and what is to be written: the bytes of either side's codec.
//!
//! Small writes are put together into one, large pieces are written from where they are. A connection that idles holds no
//! buffer at all.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::net::stream::Stream;

pub(super) struct Transport {
    stream: Stream,
    pub(super) input: BytesMut,
    /// Large pieces in order; `tail` comes behind them.
    output: VecDeque<Bytes>,
    output_bytes: usize,
    tail: BytesMut,
    /// How much a read makes room for; None: the peer sends little at a time.
    bulk_bytes: Option<usize>,
    /// The peer has closed its end, or the connection failed.
    pub(super) is_read_closed: bool,
}

/// Up to this much is read onto the stack, and kept in as much memory as it is long.
const SMALL_READ_BYTES: usize = 8 * 1024;
const BULK_READ_BYTES_MIN: usize = 16 * 1024;
const BULK_READ_BYTES_MAX: usize = 64 * 1024;
/// From this size on a piece is not copied.
const SHARED_BYTES_MIN: usize = 8 * 1024;
const SLICES_MAX: usize = 16;

impl Transport {
    pub(super) fn new(stream: Stream) -> Transport {
        Transport {
            stream,
            input: BytesMut::new(),
            output: VecDeque::new(),
            output_bytes: 0,
            tail: BytesMut::new(),
            bulk_bytes: None,
            is_read_closed: false,
        }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Reads once into `input`; 0: the peer has closed. Cancel-safe.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_read_closed {
            return Poll::Ready(Ok(0));
        }
        let polled = match self.bulk_bytes {
            None => self.poll_read_little(cx),
            Some(bytes) => self.poll_read_bulk(cx, bytes),
        };
        if let Poll::Ready(Ok(0) | Err(_)) = polled {
            self.is_read_closed = true;
        }
        polled
    }

    /// A connection that waits, maybe for hours, waits without a buffer.
    fn poll_read_little(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [const { MaybeUninit::uninit() }; SMALL_READ_BYTES];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let read = room.filled();
        self.input.extend_from_slice(read);
        if read.len() == SMALL_READ_BYTES {
            self.bulk_bytes = Some(BULK_READ_BYTES_MIN);
        }
        Poll::Ready(Ok(read.len()))
    }

    fn poll_read_bulk(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0
            && let Some(plain) = self.stream.as_plain()
        {
            ready!(plain.poll_read_ready(cx))?;
        }
        if self.input.capacity() - self.input.len() < bytes / 2 {
            self.input.reserve(bytes);
        }
        let room = self.input.capacity() - self.input.len();
        match tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
            Poll::Pending => {
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                Poll::Pending
            }
            Poll::Ready(Ok(read)) => {
                if read == room {
                    self.bulk_bytes = Some(BULK_READ_BYTES_MAX.min(bytes * 2));
                } else if read < SMALL_READ_BYTES {
                    self.bulk_bytes = None;
                }
                Poll::Ready(Ok(read))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.output_bytes + self.tail.len()
    }

    /// Where heads and small pieces are written to.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    pub(super) fn put(&mut self, piece: Bytes) {
        if piece.len() < SHARED_BYTES_MIN {
            self.tail.extend_from_slice(&piece);
            return;
        }
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail).freeze();
            self.output_bytes += tail.len();
            self.output.push_back(tail);
        }
        self.output_bytes += piece.len();
        self.output.push_back(piece);
    }

    /// Writes what it can; ready when everything is written. `progress` grows by what was.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, progress: &mut u64) -> Poll<io::Result<()>> {
        while self.output_bytes() > 0 {
            let written = ready!(self.poll_write_some(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *progress += written as u64;
            self.written(written);
        }
        // Kept for the next message only where one is under way.
        self.output = VecDeque::new();
        self.tail = BytesMut::new();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        match (self.output.len(), self.tail.is_empty()) {
            (0, _) => stream.poll_write(cx, &self.tail),
            (1, true) => stream.poll_write(cx, &self.output[0]),
            _ => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
                let pieces = self.output.iter().map(|piece| &piece[..]).chain(tail);
                let mut count = 0;
                for (slice, piece) in slices.iter_mut().zip(pieces) {
                    *slice = IoSlice::new(piece);
                    count += 1;
                }
                stream.poll_write_vectored(cx, &slices[..count])
            }
        }
    }

    fn written(&mut self, mut count: usize) {
        while let Some(first) = self.output.front_mut() {
            let of_this = count.min(first.len());
            first.advance(of_this);
            self.output_bytes -= of_this;
            count -= of_this;
            if !first.is_empty() {
                return;
            }
            self.output.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn small_and_large_pieces_arrive_in_order() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let mut transport = Transport::new(Stream::plain(near.expect("connected")));
        let mut far = far.expect("accepted").0;
        let mut expected = Vec::new();
        for (at, size) in [3, SHARED_BYTES_MIN, 5, 7, 300_000, SHARED_BYTES_MIN, 1].into_iter().enumerate() {
            let piece = vec![b'a' + at as u8; size];
            expected.extend_from_slice(&piece);
            transport.put(piece.into());
        }
        assert_eq!(transport.output_bytes(), expected.len());
        let mut progress = 0;
        let writing = async {
            std::future::poll_fn(|cx| transport.poll_write(cx, &mut progress)).await.expect("written");
            drop(transport);
        };
        let mut arrived = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut arrived), writing);
        read.expect("read");
        assert!(arrived == expected && progress == expected.len() as u64);
    }
}
