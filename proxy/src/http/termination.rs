//! The end of a CONNECT (RFC 9110 section 9.3.6): a TCP connection to an upstream, whose bytes are the body of the response, as
//! the bytes of the request's body are what it is sent. The upstream speaks no HTTP.
//!
//! The end of the request is passed on as a half close; the end of what the upstream says is the end of the response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;

use crate::{
    http::body::{Body, BodyError},
    net::stream::Stream,
    upstream::pool::ConnectionGuard,
};

pub struct TerminatedBody {
    /// None: the upstream has ended, as it should.
    stream: Option<Stream>,
    sending: Sending,
    _connection: ConnectionGuard,
}

enum Sending {
    /// What was taken of the request's body and is not written yet, and the rest of it.
    Body(Bytes, Body),
    /// The end is to be passed on.
    End,
    Done,
}

const READ_BYTES: usize = 16 * 1024;

impl TerminatedBody {
    pub fn new(stream: Stream, connection: ConnectionGuard, request: Body) -> TerminatedBody {
        TerminatedBody { stream: Some(stream), sending: Sending::Body(Bytes::new(), request), _connection: connection }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_sending(cx)?;
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        // A connection that waits, maybe for hours, waits without a buffer.
        if let Some(plain) = stream.as_plain() {
            ready!(plain.poll_read_ready(cx)).map_err(|_| BodyError::Disconnected)?;
        }
        let mut input = BytesMut::with_capacity(READ_BYTES);
        match ready!(tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut input)) {
            Ok(0) => {
                self.stream = None;
                Poll::Ready(None)
            }
            Ok(_) => Poll::Ready(Some(Ok(Frame::data(input.freeze())))),
            Err(_) => Poll::Ready(Some(Err(BodyError::Disconnected))),
        }
    }

    /// Writes what there is of the request, as far as the upstream takes it.
    pub fn poll_sending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match self.sending.poll(stream, cx) {
            Poll::Pending | Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }
}

impl Sending {
    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            match self {
                Sending::Body(pending, body) if pending.is_empty() => {
                    ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(|_| BodyError::Disconnected)?;
                    match ready!(Pin::new(body).poll_frame(cx)) {
                        Some(Ok(frame)) => *pending = frame.into_data().unwrap_or_default(),
                        Some(Err(_)) => return Poll::Ready(Err(BodyError::Source)),
                        None => *self = Sending::End,
                    }
                }
                Sending::Body(pending, _) => match ready!(Pin::new(&mut *stream).poll_write(cx, pending)) {
                    Ok(written @ 1..) => pending.advance(written),
                    // What the upstream has said before it closed is still to be read.
                    Ok(0) | Err(_) => *self = Sending::Done,
                },
                Sending::End => {
                    let _ = ready!(Pin::new(&mut *stream).poll_shutdown(cx)); // Err: a peer that is gone needs no end
                    *self = Sending::Done;
                }
                Sending::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
