//! A request body that can be sent again: what was read is kept, up to a limit, until no further try can come.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};

use crate::http::body::{Body, BodyError};

/// The source and what was read of it. One try reads at a time: starting another ends the one before.
pub struct ReplaySource(Rc<RefCell<Kept>>);

struct Kept {
    source: Body,
    chunks: Vec<Bytes>,
    bytes: usize,
    bytes_max: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    failed: bool,
    /// False once more was read than may be kept, or nobody will ask again.
    replayable: bool,
    /// Which try reads.
    turn: u32,
}

/// One try's reading of it.
pub struct Replay {
    kept: Rc<RefCell<Kept>>,
    turn: u32,
    next_chunk: usize,
    ended: bool,
}

impl ReplaySource {
    pub fn new(source: Body, bytes_max: usize) -> ReplaySource {
        ReplaySource(Rc::new(RefCell::new(Kept {
            source,
            chunks: Vec::new(),
            bytes: 0,
            bytes_max,
            trailers: None,
            ended: false,
            failed: false,
            replayable: true,
            turn: 0,
        })))
    }

    /// From the start; None: too much was read to send it again.
    pub fn replay(&self) -> Option<Body> {
        let mut kept = self.0.borrow_mut();
        if !kept.replayable {
            return None;
        }
        kept.turn += 1;
        Some(Body::Replay(Replay { kept: self.0.clone(), turn: kept.turn, next_chunk: 0, ended: false }))
    }

    pub fn is_replayable(&self) -> bool {
        let kept = self.0.borrow();
        kept.replayable && !kept.failed
    }

    /// No further try will come: what is kept is let go, and the rest streams through.
    pub fn forget(&self) {
        let mut kept = self.0.borrow_mut();
        kept.replayable = false;
    }
}

impl Replay {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut kept = self.kept.borrow_mut();
        if kept.turn != self.turn || kept.failed {
            return Poll::Ready(Some(Err(BodyError::Source)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(chunk) = kept.chunks.get(self.next_chunk).cloned() {
            self.next_chunk += 1;
            if !kept.replayable && self.next_chunk == kept.chunks.len() {
                kept.chunks.clear();
                self.next_chunk = 0;
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if kept.ended {
            self.ended = true;
            return Poll::Ready(kept.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(std::pin::Pin::new(&mut kept.source).poll_frame(cx));
        let frame = kept.keep(frame, &mut self.next_chunk);
        self.ended = kept.ended;
        Poll::Ready(frame)
    }

    pub fn is_end_stream(&self) -> bool {
        if self.ended {
            return true;
        }
        let kept = self.kept.borrow();
        kept.ended && kept.trailers.is_none() && self.next_chunk >= kept.chunks.len()
    }
}

impl Kept {
    fn keep(
        &mut self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
        next_chunk: &mut usize,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        match &frame {
            None => self.ended = true,
            Some(Err(_)) => self.failed = true,
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                    self.ended = true;
                } else if let Some(data) = frame.data_ref() {
                    self.bytes += data.len();
                    self.replayable &= self.bytes <= self.bytes_max;
                    if self.replayable {
                        self.chunks.push(data.clone());
                        *next_chunk = self.chunks.len();
                    } else {
                        self.chunks.clear();
                        *next_chunk = 0;
                    }
                    self.ended = self.source.is_end_stream();
                }
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::next_frame;
    use futures_util::FutureExt;

    /// What there is to read now.
    fn read(body: &mut Body) -> Result<Vec<u8>, BodyError> {
        let mut all = Vec::new();
        while let Some(frame) = next_frame(body).now_or_never().expect("a full body never waits") {
            all.extend_from_slice(&frame?.into_data().expect("no trailers here"));
        }
        Ok(all)
    }

    #[test]
    fn a_body_can_be_read_again_until_forgotten() {
        let source = ReplaySource::new(Body::Full("hello".into()), 10);
        let mut first = source.replay().expect("replayable");
        assert_eq!(read(&mut first).expect("read"), b"hello");
        let mut second = source.replay().expect("replayable");
        assert_eq!(read(&mut second).expect("read"), b"hello");
        assert!(read(&mut first).is_err(), "the first try is over");
        source.forget();
        assert!(source.replay().is_none());
    }

    #[test]
    fn a_body_over_the_limit_passes_once() {
        let source = ReplaySource::new(Body::Full("hello".into()), 4);
        let mut first = source.replay().expect("nothing was read yet");
        assert_eq!(read(&mut first).expect("read"), b"hello");
        assert!(!source.is_replayable());
        assert!(source.replay().is_none());
    }
}
