//! Closing without taking back what was said: after our end of the stream is closed, what the peer still sends is read and
//! dropped for a while. Closed at once with bytes unread, the kernel would send a reset, which may overtake the last
//! response (RFC 9112 section 9.6).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// A peer that sends more than this after it was answered does not listen.
const DROPPED_BYTES_MAX: usize = 4 << 20;

/// Lingers in `poll_shutdown`, at most for its timeout.
pub struct Linger<S> {
    stream: S,
    timeout: Duration,
    closing: Option<Closing>,
}

struct Closing {
    until: Pin<Box<Sleep>>,
    dropped_bytes: usize,
}

impl<S> Linger<S> {
    pub fn new(stream: S, timeout: Duration) -> Linger<S> {
        Linger { stream, timeout, closing: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Linger<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.timeout.is_zero() {
                return Poll::Ready(Ok(()));
            }
        }
        let timeout = this.timeout;
        let closing = this
            .closing
            .get_or_insert_with(|| Closing { until: Box::pin(tokio::time::sleep(timeout)), dropped_bytes: 0 });
        let mut space = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return closing.until.as_mut().poll(cx).map(Ok),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && closing.dropped_bytes < DROPPED_BYTES_MAX => {
                    closing.dropped_bytes += buffer.filled().len();
                }
                // The peer has closed, failed, or talks on and on.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn closing_waits_for_the_peer_but_not_for_ever() {
        let short = Duration::from_millis(20);
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut linger = Linger::new(ours, short);
        let begun = tokio::time::Instant::now();
        theirs.write_all(b"unread").await.unwrap();
        linger.shutdown().await.unwrap();
        assert!(begun.elapsed() >= short, "the peer never closed");
    }

    #[tokio::test]
    async fn closing_is_over_when_the_peer_has_closed() {
        let (ours, theirs) = tokio::io::duplex(64);
        let mut linger = Linger::new(ours, Duration::from_secs(3600));
        drop(theirs);
        linger.shutdown().await.unwrap();
    }
}
