//! One stream: what came and is not read yet, what is to be sent and may not go yet, and the two handles by which the
//! rest of the proxy receives and sends.
//!
//! A handle that is dropped early ends its direction: nobody wants the rest, or the rest will never come.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, response};
use http_body::Frame;

use super::{
    connection::{Role, Shared},
    error::StreamError,
    frame::Reason,
};

pub struct Stream {
    pub id: u32,
    /// Of a downstream stream.
    pub(super) opened: Option<Instant>,
    state: RefCell<StreamState>,
}

pub(super) struct StreamState {
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// Ended before its time.
    pub(super) ended: Option<StreamError>,
}

pub(super) struct Receiving {
    /// END_STREAM came.
    pub(super) is_complete: bool,
    pub(super) data: VecDeque<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    /// What `content-length` says is still to come.
    pub(super) expected: Option<u64>,
    pub(super) window: i64,
    pub(super) unreturned: u32,
    /// Of an upstream stream: the final head came; and it, until it is taken.
    pub(super) has_head: bool,
    pub(super) head: Option<Box<response::Parts>>,
    pub(super) informational: VecDeque<Box<response::Parts>>,
    pub(super) is_head_request: bool,
    /// Of an upstream stream: the upgrade that was asked for (RFC 8441).
    pub(super) upgrade: Option<http::HeaderValue>,
    /// Nobody reads any more.
    pub(super) is_unwanted: bool,
    pub(super) waker: Option<Waker>,
}

pub(super) struct Sending {
    pub(super) window: i64,
    /// Not yet framed.
    pub(super) pending: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    /// Everything was handed over.
    pub(super) is_finished: bool,
    /// END_STREAM was framed.
    pub(super) is_complete: bool,
    pub(super) is_blocked: bool,
    pub(super) has_head: bool,
    /// Of a downstream stream: what it is reset with when it is answered before its request has ended.
    pub(super) reset_when_answered: Reason,
    /// Of a downstream stream: an upgrade was asked for (RFC 8441).
    pub(super) answers_upgrade: bool,
    pub(super) waker: Option<Waker>,
}

impl Stream {
    pub(super) fn new(id: u32, opened: Option<Instant>, receive_window: u32, send_window: i64) -> Rc<Stream> {
        Rc::new(Stream {
            id,
            opened,
            state: RefCell::new(StreamState {
                receiving: Receiving {
                    is_complete: false,
                    data: VecDeque::new(),
                    trailers: None,
                    expected: None,
                    window: i64::from(receive_window),
                    unreturned: 0,
                    has_head: false,
                    head: None,
                    informational: VecDeque::new(),
                    is_head_request: false,
                    upgrade: None,
                    is_unwanted: false,
                    waker: None,
                },
                sending: Sending {
                    window: send_window,
                    pending: Bytes::new(),
                    trailers: None,
                    is_finished: false,
                    is_complete: false,
                    is_blocked: false,
                    has_head: false,
                    reset_when_answered: Reason::NO_ERROR,
                    answers_upgrade: false,
                    waker: None,
                },
                ended: None,
            }),
        })
    }

    pub(super) fn has_sent_head(&self) -> bool {
        self.state.borrow().sending.has_head
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut StreamState) -> T) -> T {
        work(&mut self.state.borrow_mut())
    }

    /// What was received before stays readable; what was to be sent is dropped.
    pub(super) fn end(&self, why: StreamError) {
        self.with(|state| {
            if state.ended.is_none() {
                state.ended = Some(why);
            }
            state.sending.pending = Bytes::new();
            state.sending.trailers = None;
            state.receiving.wake();
            state.sending.wake();
        });
    }
}

impl StreamState {
    /// Both directions are over.
    pub(super) fn is_complete(&self) -> bool {
        self.receiving.is_complete && self.sending.is_complete
    }
}

impl Receiving {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Sending {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(known) if known.will_wake(cx.waker()) => {}
        slot => *slot = Some(cx.waker().clone()),
    }
}

/// What the peer sends on a stream.
pub struct RecvStream {
    connection: Rc<Shared>,
    stream: Rc<Stream>,
}

/// What the peer is sent on a stream.
pub struct SendStream {
    connection: Rc<Shared>,
    stream: Rc<Stream>,
    role: Role,
}

pub(super) fn handles(connection: &Rc<Shared>, stream: Rc<Stream>, role: Role) -> (RecvStream, SendStream) {
    let recv = RecvStream { connection: connection.clone(), stream: stream.clone() };
    (recv, SendStream { connection: connection.clone(), stream, role })
}

impl RecvStream {
    /// Of an upstream stream: the head of the final response.
    pub fn poll_head(&mut self, cx: &Context<'_>) -> Poll<Result<response::Parts, StreamError>> {
        self.stream.with(|state| match (state.receiving.head.take(), state.ended) {
            (Some(head), _) => Poll::Ready(Ok(*head)),
            (None, Some(error)) => Poll::Ready(Err(error)),
            (None, None) => {
                wait(&mut state.receiving.waker, cx);
                Poll::Pending
            }
        })
    }

    /// Of an upstream stream: an interim response, if one is there.
    pub fn take_informational(&mut self) -> Option<response::Parts> {
        self.stream.with(|state| state.receiving.informational.pop_front()).map(|head| *head)
    }

    /// The next part of the body. Reading it is what lets the peer send more.
    pub fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let data = self.stream.with(|state| {
            let receiving = &mut state.receiving;
            if let Some(data) = receiving.data.pop_front() {
                return Err(data);
            }
            if let Some(trailers) = receiving.trailers.take() {
                return Ok(Poll::Ready(Some(Ok(Frame::trailers(trailers)))));
            }
            Ok(match (receiving.is_complete, state.ended) {
                (true, _) => Poll::Ready(None),
                (false, Some(error)) => Poll::Ready(Some(Err(error))),
                (false, None) => {
                    wait(&mut receiving.waker, cx);
                    Poll::Pending
                }
            })
        });
        match data {
            Ok(other) => other,
            Err(data) => {
                self.connection.with(|connection| connection.consumed(&self.stream, data.len()));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
        }
    }

    /// Nothing more comes, nor is there anything left to read.
    pub fn is_end_stream(&self) -> bool {
        self.stream.with(|state| {
            let receiving = &state.receiving;
            receiving.is_complete && receiving.data.is_empty() && receiving.trailers.is_none()
        })
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.connection.with(|connection| connection.unwanted(&self.stream));
    }
}

impl SendStream {
    /// The head of the response.
    pub fn send_response(&mut self, head: Response<()>, ended: bool) -> Result<(), StreamError> {
        self.connection.with(|connection| connection.send_response(&self.stream, head.into_parts().0, ended))
    }

    /// An interim response (RFC 9110 section 15.2).
    pub fn send_informational(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), StreamError> {
        self.connection.with(|connection| connection.send_informational(&self.stream, status, headers))
    }

    /// Ready when everything that was handed over has been framed.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        self.stream.with(|state| match state.ended {
            Some(error) => Poll::Ready(Err(error)),
            None if state.sending.pending.is_empty() => Poll::Ready(Ok(())),
            None => {
                wait(&mut state.sending.waker, cx);
                Poll::Pending
            }
        })
    }

    /// To be called when ready; what the windows do not allow yet goes when they do.
    pub fn send_data(&mut self, data: Bytes, ended: bool) -> Result<(), StreamError> {
        self.connection.with(|connection| connection.send_data(&self.stream, data, ended))
    }

    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), StreamError> {
        self.connection.with(|connection| connection.send_trailers(&self.stream, trailers))
    }

    /// Ready when the stream has ended before its time.
    pub fn poll_ended(&mut self, cx: &Context<'_>) -> Poll<StreamError> {
        self.stream.with(|state| match state.ended {
            Some(error) => Poll::Ready(error),
            None => {
                wait(&mut state.sending.waker, cx);
                Poll::Pending
            }
        })
    }

    /// None: the stream has not ended before its time.
    pub fn ended(&self) -> Option<StreamError> {
        self.stream.with(|state| state.ended)
    }

    /// The tunnel that was asked for is not to be had, which who goes on sending is told (RFC 9113 section 8.5).
    pub fn refuse_tunnel(&mut self) {
        self.stream.with(|state| state.sending.reset_when_answered = Reason::CONNECT_ERROR);
    }

    pub fn reset(&mut self, reason: Reason) {
        self.connection.with(|connection| connection.reset(&self.stream, reason, StreamError::LocalReset(reason)));
    }

    /// Counted: a peer that takes nothing of a response that is complete was given up.
    pub fn flush_timed_out(&mut self) {
        self.connection.with(|connection| connection.flush_timed_out(&self.stream));
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let reason = match self.role {
            Role::Downstream => Reason::INTERNAL_ERROR,
            Role::Upstream => Reason::CANCEL,
        };
        self.connection.with(|connection| connection.unfinished(&self.stream, reason));
    }
}
