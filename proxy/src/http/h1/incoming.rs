//! A downstream request's body, read from the connection by whoever polls it. It shares the connection with the codec, which
//! does not read as long as the body is not over.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;

use super::{
    decoder::{Decoder, Piece},
    transport::Transport,
    violation::Violation,
};
use crate::http::body::BodyError;

/// A connection and the request that is read from it.
pub(super) struct Shared {
    pub(super) transport: RefCell<Transport>,
    pub(super) decoder: RefCell<Decoder>,
    /// Why the request can't be read to its end.
    pub(super) fault: Cell<Option<Fault>>,
    pub(super) passes_trailers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Disconnected,
    Violation(Violation),
}

pub struct IncomingBody(Rc<Shared>);

impl IncomingBody {
    pub(super) fn new(shared: &Rc<Shared>) -> IncomingBody {
        IncomingBody(shared.clone())
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(self.0.poll_frame(cx));
        Poll::Ready(polled.map(|frame| {
            frame.map_err(|fault| {
                self.0.fault.set(Some(fault));
                match fault {
                    Fault::Disconnected => BodyError::Disconnected,
                    Fault::Violation(violation) => BodyError::Http1(violation),
                }
            })
        }))
    }

    pub fn is_end_stream(&self) -> bool {
        self.0.is_request_complete()
    }
}

impl Shared {
    pub(super) fn is_request_complete(&self) -> bool {
        self.decoder.borrow().is_done()
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut transport = self.transport.borrow_mut();
        let mut decoder = self.decoder.borrow_mut();
        loop {
            match decoder.decode(&mut transport.input) {
                Err(violation) => return Poll::Ready(Some(Err(Fault::Violation(violation)))),
                Ok(Piece::Data(data)) => {
                    decoder.take_end(&mut transport.input);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Piece::Trailers(trailers)) if self.passes_trailers => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Piece::Trailers(_) | Piece::End) => return Poll::Ready(None),
                // Even where the end of the connection could be the end of the body, half a connection is none: as in Envoy.
                Ok(Piece::More) => match ready!(transport.poll_read(cx)) {
                    Ok(read) if read > 0 => {}
                    _ => return Poll::Ready(Some(Err(Fault::Disconnected))),
                },
            }
        }
    }

    /// Reads and drops what has arrived of a request's body that nobody wants; how many bytes that was.
    pub(super) fn discard_arrived(&self, cx: &mut Context<'_>, bytes_max: usize) -> u64 {
        let mut discarded = 0;
        while discarded < bytes_max as u64 && !self.is_request_complete() {
            match self.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => discarded += frame.data_ref().map_or(0, Bytes::len) as u64,
                Poll::Ready(Some(Err(fault))) => {
                    self.fault.set(Some(fault));
                    break;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        discarded
    }

    /// Looks, while a response is on its way, whether the peer is still there. What it sends meanwhile, the next request,
    /// is kept up to a limit; beyond that, nobody looks.
    pub(super) fn poll_disconnected(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut transport = self.transport.borrow_mut();
        while transport.input.len() < PIPELINED_BYTES_MAX {
            match ready!(transport.poll_read(cx)) {
                Ok(read) if read > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

/// Of requests that a peer sends before the response to an earlier one.
const PIPELINED_BYTES_MAX: usize = 64 * 1024;
