//! Moves a connection's bytes between its state and its socket. Whoever owns a driver polls it; streams only touch the
//! state and wake it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{connection::Shared, error::StreamError, keepalive::Keepalive, outbound::SLICES_MAX};

pub struct Driver<S> {
    shared: Rc<Shared>,
    stream: S,
    keepalive: Option<Keepalive>,
    /// Since the connection ended with something left to say.
    last_words: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// For a peer to take why the connection ends.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Of what is read before answers are written and others get their turn: this much in one go is what a peer can make us
/// answer without taking the answers.
const READ_BYTES_A_TURN: usize = 256 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub fn new(shared: Rc<Shared>, stream: S, keepalive: Option<Keepalive>) -> Driver<S> {
        Driver { shared, stream, keepalive, last_words: None }
    }

    /// Ready when the connection is over and what could be said was said. `scratch` is what bytes are read into.
    pub fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<()>> {
        self.shared.with(|connection| connection.register(cx.waker()));
        if let Err(error) = self.read(cx, scratch) {
            self.shared.with(|connection| connection.close(StreamError::Disconnected));
            return Poll::Ready(Err(error));
        }
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.poll(cx, &self.shared);
        }
        match self.write(cx) {
            Poll::Ready(Err(error)) => {
                self.shared.with(|connection| connection.close(StreamError::Disconnected));
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(())) => self.shared.with(|connection| {
                if connection.is_idle() {
                    connection.outbound.shrink();
                }
                match connection.is_closed() || connection.is_finished() {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                }
            }),
            // The peer has gone: it reads no more.
            Poll::Pending if self.shared.with(|connection| connection.is_disconnected()) => Poll::Ready(Ok(())),
            Poll::Pending if self.shared.with(|connection| connection.is_closed()) => {
                let timer = self.last_words.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS_TIMEOUT)));
                timer.as_mut().poll(cx).map(Ok)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> io::Result<()> {
        let mut left = READ_BYTES_A_TURN;
        while !self.shared.with(|connection| connection.is_closed()) {
            if left == 0 {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => read?,
            }
            let bytes = buffer.filled();
            left = left.saturating_sub(bytes.len());
            if bytes.is_empty() {
                self.shared.with(|connection| connection.close(StreamError::Disconnected));
            } else {
                self.shared.receive(bytes);
            }
        }
        Ok(())
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.stream;
        loop {
            let written = self.shared.with(|connection| {
                connection.flush_blocked();
                if connection.outbound.is_empty() {
                    return None;
                }
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = connection.outbound.slices(&mut slices);
                let written = match &slices[..count] {
                    [one] => Pin::new(&mut *stream).poll_write(cx, one),
                    several => Pin::new(&mut *stream).poll_write_vectored(cx, several),
                };
                if let Poll::Ready(Ok(bytes)) = written {
                    connection.outbound.taken(bytes);
                }
                Some(written)
            });
            match written {
                None => return Pin::new(stream).poll_flush(cx),
                Some(Poll::Ready(Ok(0))) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(Poll::Ready(Ok(_))) => {}
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                Some(Poll::Pending) => return Poll::Pending,
            }
        }
    }

    pub fn into_stream(self) -> S {
        self.stream
    }
}
