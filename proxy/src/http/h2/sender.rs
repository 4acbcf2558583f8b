//! A message's body out on a stream, as fast as the peer takes it.

use std::{pin::Pin, task::Poll, time::Duration};

use bytes::Bytes;

use super::{error::StreamError, stream::SendStream};
use crate::http::body::{BodyError, next_frame};

#[derive(Debug)]
pub enum SendError {
    /// It could not be read to its end.
    Body,
    Stream(StreamError),
    /// The peer took nothing for too long.
    Stalled,
}

impl From<StreamError> for SendError {
    fn from(error: StreamError) -> Self {
        SendError::Stream(error)
    }
}

/// Sends all of `body`. `stall_timeout` bounds each wait for the peer.
pub async fn send_body<B>(body: &mut B, send: &mut SendStream, stall_timeout: Option<Duration>) -> Result<(), SendError>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    loop {
        let Some(frame) = next_frame_unless_ended(body, send).await? else {
            send.send_data(Bytes::new(), true)?;
            return flushed(send, stall_timeout).await;
        };
        let ended = match frame.map_err(|_| SendError::Body)?.into_data() {
            Ok(data) => {
                let ended = body.is_end_stream();
                send.send_data(data, ended)?;
                ended
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    send.send_trailers(trailers)?;
                    true
                }
                Err(_unknown) => false,
            },
        };
        flushed(send, stall_timeout).await?;
        if ended {
            return Ok(());
        }
    }
}

type NextFrame = Option<Result<http_body::Frame<Bytes>, BodyError>>;

async fn next_frame_unless_ended<B>(body: &mut B, send: &mut SendStream) -> Result<NextFrame, StreamError>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut frame = std::pin::pin!(next_frame(body));
    std::future::poll_fn(|cx| match frame.as_mut().poll(cx) {
        Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        Poll::Pending => send.poll_ended(cx).map(Err),
    })
    .await
}

/// Until what was handed over has been framed. A timer is set up only when there is something to wait for.
async fn flushed(send: &mut SendStream, timeout: Option<Duration>) -> Result<(), SendError> {
    let mut timer: Option<Pin<Box<tokio::time::Sleep>>> = None;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ready) = send.poll_ready(cx) {
            return Poll::Ready(ready.map_err(SendError::Stream));
        }
        let Some(timeout) = timeout else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| Err(SendError::Stalled))
    })
    .await
}
