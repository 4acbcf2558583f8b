//! Message bodies of both sides, as one closed type.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{
    http::{
        exchange::{Deadline, RequestBody},
        filter::FilteredBody,
        h1::{IncomingBody, UpstreamBody, Violation},
        h2::{RecvStream, StreamError},
        replay::Replay,
        termination::TerminatedBody,
    },
    tcp_proxy::tunnel::TunneledBody,
};

#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Full(Bytes),
    /// Of an HTTP/1 upstream's response.
    Http1(Box<UpstreamBody>),
    /// Of an HTTP/1 downstream's request.
    Incoming(IncomingBody),
    Http2(RecvStream),
    /// What a TCP upstream says to who has asked for a tunnel.
    Terminated(Box<TerminatedBody>),
    /// What a TCP downstream says into a tunnel.
    Tunneled(Box<TunneledBody>),
    /// The downstream's request, counted on its exchange.
    Request(Box<RequestBody>),
    /// The same, kept for another try.
    Replay(Replay),
    /// A filter has changed it, or changes it as it passes.
    Filtered(Box<FilteredBody>),
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection failed, or ended before the message did.
    #[error("disconnected")]
    Disconnected,
    #[error(transparent)]
    Http1(#[from] Violation),
    #[error(transparent)]
    Http2(#[from] StreamError),
    #[error("the body it was read from has failed")]
    Source,
    #[error("a deadline of the request is over")]
    Deadline(Deadline),
}

impl Body {
    /// Sends on what is left of the request that this is the response to, while nobody wants more of the response.
    pub fn poll_sending(&mut self, cx: &mut Context<'_>) {
        // Err: the body itself tells when it is polled next.
        match self {
            Body::Http1(body) => drop(body.poll_sending(cx)),
            Body::Terminated(body) => drop(body.poll_sending(cx)),
            _ => {}
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Empty => Poll::Ready(None),
            body @ Body::Full(_) => match std::mem::take(body) {
                Body::Full(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Body::Http1(body) => body.poll_frame(cx),
            Body::Incoming(body) => body.poll_frame(cx),
            Body::Terminated(body) => body.poll_frame(cx),
            Body::Tunneled(body) => body.poll_frame(cx),
            Body::Http2(stream) => stream.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::from))),
            Body::Request(body) => body.poll_frame(cx),
            Body::Replay(replay) => replay.poll_frame(cx),
            Body::Filtered(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Http1(body) => body.is_end_stream(),
            Body::Incoming(body) => body.is_end_stream(),
            Body::Terminated(body) => body.is_end_stream(),
            Body::Tunneled(body) => body.is_end_stream(),
            Body::Http2(stream) => stream.is_end_stream(),
            Body::Request(body) => body.is_end_stream(),
            Body::Replay(replay) => replay.is_end_stream(),
            Body::Filtered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // The content-length header, where there is one, goes along with the headers.
            Body::Http1(_)
            | Body::Incoming(_)
            | Body::Http2(_)
            | Body::Terminated(_)
            | Body::Tunneled(_)
            | Body::Replay(_)
            | Body::Filtered(_) => SizeHint::default(),
            Body::Request(body) => body.size_hint(),
        }
    }
}

/// The next frame, as a future.
pub async fn next_frame(
    body: &mut (impl http_body::Body<Data = Bytes, Error = BodyError> + Unpin),
) -> Option<Result<Frame<Bytes>, BodyError>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}
