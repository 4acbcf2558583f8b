//! A response's body on its way to an HTTP/1 downstream: as fast as the peer reads, and no faster; whoever reads nothing for
//! too long is let go.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use http_body::Body as _;
use tokio::time::Sleep;

use super::{
    encode::{BodyEncoder, WrongLength},
    incoming::Shared,
};
use crate::{
    http::{connection_manager::HttpConnection, exchange::ResponseBody},
    stats::HttpStat,
};

pub(super) struct ResponseWriter<'a> {
    pub(super) connection: &'a Rc<HttpConnection>,
    pub(super) shared: &'a Rc<Shared>,
    pub(super) body: ResponseBody,
    /// None: the body is over.
    pub(super) encoder: Option<BodyEncoder>,
    /// Set up only while the peer does not read: fires when it has read nothing since `progress` was so much.
    pub(super) stalled: Option<(u64, Pin<Box<Sleep>>)>,
    /// Bytes written.
    pub(super) progress: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Whole,
    /// The response ended before its end, and the peer has to learn so by the connection's.
    Cut,
    Disconnected,
}

/// Whether there may be more of the body at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// Over, or as much as is to wait for the peer.
    Enough,
    /// The source has no more at this time.
    Dry,
    /// The source has failed.
    Cut,
}

impl ResponseWriter<'_> {
    pub(super) async fn write(mut self) -> Written {
        if self.encoder == Some(BodyEncoder::Empty) {
            // To HEAD, or of a status that has no body: nobody asks for it.
            self.encoder = None;
            self.body.sent();
        }
        let mut cut = false;
        std::future::poll_fn(|cx| {
            self.connection.downstream.order(cx);
            self.poll(cx, &mut cut)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>, cut: &mut bool) -> Poll<Written> {
        loop {
            let filled = if *cut { Filled::Cut } else { self.fill(cx) };
            *cut |= filled == Filled::Cut;
            // A request that broke the rules while its response is on its way can't be answered any more.
            *cut |= self.shared.fault.get().is_some();
            let written = self.shared.transport.borrow_mut().poll_write(cx, &mut self.progress);
            match written {
                Poll::Ready(Err(_)) => return Poll::Ready(Written::Disconnected),
                Poll::Ready(Ok(())) if *cut => return Poll::Ready(Written::Cut),
                Poll::Ready(Ok(())) if self.encoder.is_none() => return Poll::Ready(Written::Whole),
                Poll::Ready(Ok(())) if filled == Filled::Dry => {
                    self.stalled = None;
                    return self.poll_gone(cx);
                }
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    // The peer's reading must not hold up its own sending.
                    self.body.poll_sending(cx);
                    if self.poll_stalled(cx).is_ready() {
                        self.connection.count(HttpStat::RqIdleTimeout);
                        return Poll::Ready(Written::Disconnected);
                    }
                    return self.poll_gone(cx);
                }
            }
        }
    }

    /// Puts what there is of the body into the connection's buffer, up to its limit.
    fn fill(&mut self, cx: &mut Context<'_>) -> Filled {
        let limit = self.connection.downstream.buffer_limit_bytes as usize;
        while let Some(encoder) = &mut self.encoder
            && self.shared.transport.borrow().output_bytes() < limit
        {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return Filled::Dry };
            let mut transport = self.shared.transport.borrow_mut();
            let encoded = match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                Some(Ok(Ok(data))) => encoder.data(data, &mut transport).and_then(|()| {
                    if self.body.is_end_stream() { end(&mut self.encoder, None, &mut transport) } else { Ok(()) }
                }),
                Some(Ok(Err(frame))) => {
                    let trailers = frame.into_trailers().ok().filter(|_| self.shared.passes_trailers);
                    end(&mut self.encoder, trailers.as_ref(), &mut transport)
                }
                None => end(&mut self.encoder, None, &mut transport),
                Some(Err(_)) => return Filled::Cut,
            };
            if encoded.is_err() {
                return Filled::Cut;
            }
        }
        Filled::Enough
    }

    /// The peer is gone, as far as can be told without reading a request that is not complete.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Written> {
        if !self.shared.is_request_complete() {
            return Poll::Pending;
        }
        self.shared.poll_disconnected(cx).map(|()| Written::Disconnected)
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timeout) = self.connection.active.config.stream_idle_timeout else { return Poll::Pending };
        let progress = self.progress;
        match &mut self.stalled {
            Some((since, timer)) if *since == progress => timer.as_mut().poll(cx),
            stalled => {
                let (_, timer) = stalled.insert((progress, Box::pin(tokio::time::sleep(timeout))));
                timer.as_mut().poll(cx)
            }
        }
    }
}

fn end(
    encoder: &mut Option<BodyEncoder>,
    trailers: Option<&http::HeaderMap>,
    transport: &mut super::transport::Transport,
) -> Result<(), WrongLength> {
    match encoder.take() {
        Some(encoder) => encoder.end(trailers, transport),
        None => Ok(()),
    }
}
