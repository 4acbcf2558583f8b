//! Message bodies of both sides, as one closed type.
//!
//! HTTP/2 flow control: capacity is released when a frame is handed on, so a slow reader slows the sender.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::http::{
    exchange::{Deadline, RequestBody},
    filter::FilteredBody,
    replay::Replay,
};

#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Full(Bytes),
    Http1(hyper::body::Incoming),
    Http2(h2::RecvStream),
    /// The downstream's request, counted on its exchange.
    Request(Box<RequestBody>),
    /// The same, kept for another try.
    Replay(Replay),
    /// A filter has changed it, or changes it as it passes.
    Filtered(Box<FilteredBody>),
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the body it was read from has failed")]
    Source,
    #[error("a deadline of the request is over")]
    Deadline(Deadline),
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
            Body::Http1(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Body::Http2(stream) => poll_http2(stream, cx),
            Body::Request(body) => body.poll_frame(cx),
            Body::Replay(replay) => replay.poll_frame(cx),
            Body::Filtered(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Http1(incoming) => incoming.is_end_stream(),
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
            Body::Http1(incoming) => incoming.size_hint(),
            // The content-length header, where there is one, goes along with the headers.
            Body::Http2(_) | Body::Replay(_) | Body::Filtered(_) => SizeHint::default(),
            Body::Request(body) => body.size_hint(),
        }
    }
}

fn poll_http2(stream: &mut h2::RecvStream, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match ready!(stream.poll_data(cx)) {
        Some(Ok(data)) => {
            // Err: the stream is reset, which the next poll tells.
            let _ = stream.flow_control().release_capacity(data.len());
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
        None => match ready!(stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        },
    }
}

/// The next frame, as a future.
pub async fn next_frame(
    body: &mut (impl http_body::Body<Data = Bytes, Error = BodyError> + Unpin),
) -> Option<Result<Frame<Bytes>, BodyError>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}
