//! Bodies that a filter has changed, or changes as they pass.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::time::Sleep;

use super::grpc_web::{Decoding, Encoding};
use crate::http::{
    body::{Body, BodyError},
    mirror::{Copied, Copying},
};

type PolledFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

pub enum FilteredBody {
    Buffered(Buffered),
    /// The beginning was read already; the rest follows.
    Resumed(Buffered, Body),
    GrpcWebDecoding(Decoding),
    GrpcWebEncoding(Encoding),
    Throttled(Throttled),
    /// The request's own, while copies of it are sent elsewhere.
    Copying(Copying),
    Copied(Copied),
}

/// Read whole already.
#[derive(Default)]
pub struct Buffered {
    pub chunks: VecDeque<Bytes>,
    pub trailers: Option<HeaderMap>,
}

/// So many bytes a second and no more, in steps of time.
pub struct Throttled {
    inner: Body,
    bytes_per_step: usize,
    left_in_step: usize,
    /// Read and not passed on yet.
    waiting: Bytes,
    step: Option<Pin<Box<Sleep>>>,
    step_began: Instant,
}

const STEP: Duration = Duration::from_millis(50);

impl FilteredBody {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        match self {
            FilteredBody::Buffered(buffered) => Poll::Ready(buffered.next().map(Ok)),
            FilteredBody::Resumed(begun, rest) => match begun.next() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Pin::new(rest).poll_frame(cx),
            },
            FilteredBody::GrpcWebDecoding(decoding) => decoding.poll_frame(cx),
            FilteredBody::GrpcWebEncoding(encoding) => encoding.poll_frame(cx),
            FilteredBody::Throttled(throttled) => throttled.poll_frame(cx),
            FilteredBody::Copying(copying) => copying.poll_frame(cx),
            FilteredBody::Copied(copied) => copied.poll_frame(cx),
        }
    }

    pub fn is_end_stream(&self) -> bool {
        match self {
            FilteredBody::Buffered(buffered) => buffered.is_empty(),
            FilteredBody::Resumed(begun, rest) => begun.is_empty() && rest.is_end_stream(),
            FilteredBody::GrpcWebDecoding(decoding) => decoding.is_end_stream(),
            FilteredBody::GrpcWebEncoding(encoding) => encoding.is_end_stream(),
            FilteredBody::Throttled(throttled) => throttled.waiting.is_empty() && throttled.inner.is_end_stream(),
            FilteredBody::Copying(copying) => copying.is_end_stream(),
            FilteredBody::Copied(copied) => copied.is_end_stream(),
        }
    }
}

impl Buffered {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.trailers.is_none()
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.chunks.pop_front() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        }
    }
}

impl Throttled {
    pub fn new(inner: Body, kbps: u64) -> Throttled {
        let steps_per_second = 1000 / STEP.as_millis() as u64;
        let bytes_per_step = (kbps.saturating_mul(1024) / steps_per_second).max(1) as usize;
        Throttled {
            inner,
            bytes_per_step,
            left_in_step: bytes_per_step,
            waiting: Bytes::new(),
            step: None,
            step_began: Instant::now(),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.waiting = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        if self.left_in_step == 0 {
            let until = self.step_began + STEP;
            let step = self.step.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
            ready!(step.as_mut().poll(cx));
            self.step = None;
        }
        if self.step_began.elapsed() >= STEP {
            self.step_began = Instant::now();
            self.left_in_step = self.bytes_per_step;
        }
        let count = self.waiting.len().min(self.left_in_step);
        self.left_in_step -= count;
        Poll::Ready(Some(Ok(Frame::data(self.waiting.split_to(count)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::next_frame;

    #[tokio::test]
    async fn a_throttled_body_passes_so_much_in_a_step() {
        let mut body =
            Body::Filtered(Box::new(FilteredBody::Throttled(Throttled::new(Body::Full(vec![7; 130].into()), 1))));
        let mut lengths = Vec::new();
        while let Some(frame) = next_frame(&mut body).await {
            lengths.push(frame.expect("no error").into_data().expect("data").len());
            if lengths.len() > 3 {
                break;
            }
        }
        assert_eq!(lengths, [51, 51, 28]);
    }
}
