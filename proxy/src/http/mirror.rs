//! Mirrored requests: what the router sends is sent to other clusters too, and what these answer is thrown away.
//!
//! A copy never holds back the request: its body is copied as it passes, and a mirror that falls behind loses the rest.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, request};
use http_body::{Body as _, Frame};

use crate::{
    config::mirror::{MirrorCluster, MirrorPolicy},
    http::{
        body::{Body, BodyError, next_frame},
        exchange::Exchange,
        filter::FilteredBody,
        header_mutation,
        request_headers::{authority, set_authority},
        side_call::SideCall,
    },
    stats::CallerKind,
};

/// Sends the copies; the body goes on through what is returned.
pub fn send(
    policies: &[MirrorPolicy],
    exchange: &Rc<Exchange>,
    head: &request::Parts,
    body: Body,
    timeout: Option<Duration>,
) -> Body {
    let mut copies = Vec::new();
    for policy in policies {
        if let Some(cluster) = wanted(policy, exchange, head) {
            let copy = mirrored(policy, exchange, head);
            let (copied, feed) = if body.is_end_stream() {
                (Body::Empty, None)
            } else {
                let shared = Rc::new(RefCell::new(Shared::new(exchange)));
                (Body::Filtered(Box::new(FilteredBody::Copied(Copied(shared.clone())))), Some(shared))
            };
            copies.extend(feed);
            tokio::task::spawn_local(run(
                exchange.connection.downstream.worker.clone(),
                cluster,
                copy,
                copied,
                timeout,
            ));
        }
    }
    if copies.is_empty() {
        body
    } else {
        Body::Filtered(Box::new(FilteredBody::Copying(Copying { inner: body, copies })))
    }
}

/// The cluster, where the share takes this request and there is such a cluster.
fn wanted(policy: &MirrorPolicy, exchange: &Exchange, head: &request::Parts) -> Option<Arc<str>> {
    let worker = &exchange.connection.downstream.worker;
    if !worker.with_random(|random| policy.share.draw(random)) {
        return None;
    }
    let name = match &policy.cluster {
        MirrorCluster::Named(name) => name.clone(),
        MirrorCluster::Header(name) => head.headers.get(name)?.to_str().ok()?.into(),
    };
    worker.cluster(&name).is_some().then_some(name)
}

fn mirrored(policy: &MirrorPolicy, exchange: &Rc<Exchange>, head: &request::Parts) -> request::Parts {
    let mut copy = head.clone();
    // Err: what cannot be changed so goes as it is.
    let _ = header_mutation::mutate_request(&policy.request_headers, exchange, &mut copy);
    let host = match &policy.host {
        Some(host) => Some(host.clone()),
        None if policy.appends_shadow => shadow_host(authority(&copy)),
        None => None,
    };
    if let Some(host) = host {
        let _ = set_authority(&mut copy, &host);
    }
    copy
}

/// `-shadow` behind the name, before the port.
fn shadow_host(host: &[u8]) -> Option<HeaderValue> {
    let shadow = match host.iter().position(|&byte| byte == b':') {
        Some(at) if !host[at + 1..].contains(&b':') => [&host[..at], b"-shadow", &host[at..]].concat(),
        _ => [host, b"-shadow"].concat(),
    };
    HeaderValue::from_maybe_shared(Bytes::from(shadow)).ok()
}

/// Ends by itself: with the response, its timeout, or the end of the process.
async fn run(
    worker: Rc<crate::worker::Worker>,
    cluster: Arc<str>,
    head: request::Parts,
    body: Body,
    timeout: Option<Duration>,
) {
    let call = SideCall { worker: &worker, cluster: &cluster, timeout, response_bytes_max: 0 };
    let answered = call.within_timeout(async {
        let (_, mut body, stream) = call.begin(head, body).await?;
        while let Some(frame) = next_frame(&mut body).await {
            if let Err(error) = frame {
                stream.failed(&error);
                return Ok(());
            }
        }
        stream.complete(CallerKind::Internal);
        Ok(())
    });
    if let Err(error) = answered.await {
        tracing::debug!(%cluster, %error, "a mirrored request failed");
    }
}

/// What was copied and not sent yet.
struct Shared {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    bytes_max: usize,
    end: Option<End>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// The request broke off, or the mirror is too slow.
    Lost,
}

impl Shared {
    fn new(exchange: &Exchange) -> Shared {
        let bytes_max = exchange.connection.downstream.buffer_limit_bytes as usize;
        Shared { frames: VecDeque::new(), bytes: 0, bytes_max, end: None, waker: None }
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        if self.end.is_none() {
            self.bytes += frame.data_ref().map_or(0, Bytes::len);
            self.frames.push_back(frame);
            if self.bytes > self.bytes_max {
                self.finish(End::Lost);
            }
            self.wake();
        }
    }

    fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            if end == End::Lost {
                self.frames.clear();
            }
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The request's own body, copied as it is read.
pub struct Copying {
    inner: Body,
    copies: Vec<Rc<RefCell<Shared>>>,
}

impl Copying {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.inner).poll_frame(cx));
        let ended = self.inner.is_end_stream();
        for copy in &self.copies {
            let mut copy = copy.borrow_mut();
            match &frame {
                Some(Ok(frame)) => {
                    copy.push(match (frame.data_ref(), frame.trailers_ref()) {
                        (Some(data), _) => Frame::data(data.clone()),
                        (None, Some(trailers)) => Frame::trailers(trailers.clone()),
                        (None, None) => continue,
                    });
                    if frame.is_trailers() || ended {
                        copy.finish(End::Complete);
                    }
                }
                Some(Err(_)) => copy.finish(End::Lost),
                None => copy.finish(End::Complete),
            }
        }
        Poll::Ready(frame)
    }

    pub fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        for copy in &self.copies {
            copy.borrow_mut().finish(End::Lost);
        }
    }
}

/// The mirror's body.
pub struct Copied(Rc<RefCell<Shared>>);

impl Copied {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.0.borrow_mut();
        if let Some(frame) = shared.frames.pop_front() {
            shared.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        match shared.end {
            Some(End::Complete) => Poll::Ready(None),
            Some(End::Lost) => Poll::Ready(Some(Err(BodyError::Source))),
            None => {
                shared.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        let shared = self.0.borrow();
        shared.frames.is_empty() && shared.end == Some(End::Complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shadow_stands_before_the_port() {
        let shadow = |host: &str| shadow_host(host.as_bytes()).expect("a host").to_str().expect("text").to_owned();
        assert_eq!(shadow("a.test"), "a.test-shadow");
        assert_eq!(shadow("a.test:80"), "a.test-shadow:80");
        assert_eq!(shadow("[::1]:80"), "[::1]:80-shadow");
    }

    #[tokio::test]
    async fn a_copy_has_all_of_the_body_unless_it_falls_behind() {
        let shared = |bytes_max| {
            Rc::new(RefCell::new(Shared { frames: VecDeque::new(), bytes: 0, bytes_max, end: None, waker: None }))
        };
        let (kept, lost) = (shared(10), shared(2));
        let copies = vec![kept.clone(), lost.clone()];
        let inner = Body::Full("hello".into());
        let mut body = Body::Filtered(Box::new(FilteredBody::Copying(Copying { inner, copies })));
        while next_frame(&mut body).await.is_some() {}
        let mut copy = Body::Filtered(Box::new(FilteredBody::Copied(Copied(kept))));
        let frame = next_frame(&mut copy).await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), "hello");
        assert!(next_frame(&mut copy).await.is_none());
        let mut copy = Body::Filtered(Box::new(FilteredBody::Copied(Copied(lost))));
        assert!(next_frame(&mut copy).await.expect("an end").is_err());
    }
}
