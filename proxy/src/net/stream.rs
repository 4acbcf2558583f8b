//! The stream of both sides: plain TCP or TLS over it, with its bytes counted where somebody wants to know.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::stats::{ClusterStat, ClusterStats, HttpStat, HttpStats, WorkerIndex};

pub struct Stream {
    transport: Transport,
    meter: Option<Meter>,
}

pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Counts received and sent bytes.
struct Meter {
    stats: Metered,
    worker: WorkerIndex,
}

/// Whose bytes they are.
pub enum Metered {
    Upstream(Arc<ClusterStats>),
    Downstream(Arc<HttpStats>),
}

#[derive(Clone, Copy)]
enum Direction {
    Received,
    Sent,
}

impl Stream {
    pub fn plain(stream: TcpStream) -> Stream {
        Stream { transport: Transport::Plain(stream), meter: None }
    }

    pub fn tls(stream: TlsStream<TcpStream>) -> Stream {
        Stream { transport: Transport::Tls(Box::new(stream)), meter: None }
    }

    pub fn counted(self, stats: Metered, worker: WorkerIndex) -> Stream {
        Stream { meter: Some(Meter { stats, worker }), ..self }
    }

    pub fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The bare socket, when nothing stands between it and the bytes.
    pub fn as_plain(&self) -> Option<&TcpStream> {
        match &self.transport {
            Transport::Plain(stream) => Some(stream),
            Transport::Tls(_) => None,
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// What TLS agreed on.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    fn count_written(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = polled {
            self.count(Direction::Sent, *written);
        }
    }

    #[inline]
    fn count(&self, direction: Direction, bytes: usize) {
        let Some(Meter { stats, worker }) = &self.meter else { return };
        let bytes = bytes as u64;
        match (stats, direction) {
            (Metered::Upstream(stats), Direction::Received) => {
                stats.cells.add(*worker, ClusterStat::CxRxBytesTotal, bytes);
            }
            (Metered::Upstream(stats), Direction::Sent) => {
                stats.cells.add(*worker, ClusterStat::CxTxBytesTotal, bytes);
            }
            (Metered::Downstream(stats), Direction::Received) => {
                stats.cells.add(*worker, HttpStat::CxRxBytesTotal, bytes);
            }
            (Metered::Downstream(stats), Direction::Sent) => {
                stats.cells.add(*worker, HttpStat::CxTxBytesTotal, bytes);
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        this.count(Direction::Received, buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        this.count_written(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        this.count_written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
