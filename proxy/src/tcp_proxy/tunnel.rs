//! `tunneling_config`: a connection as the body of a request, a CONNECT or a POST, to a host of the cluster. What the downstream
//! says is the request's body, what the response's body says goes downstream.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Request, StatusCode, Version, request, uri};
use http_body::{Body as _, Frame};
use socket2::SockRef;
use tokio::io::AsyncWrite as _;

use crate::{
    config::{
        access_log::LogType,
        route::RoutingPriority,
        tcp_proxy::{ConnectOn, Tunneling},
    },
    http::{
        body::{Body, BodyError},
        h2::StreamError,
        header_mutation,
        informational::Informational,
        response_flags::ResponseFlags,
        upstream_request::{self, Carrier, Terms, TryError, UpstreamStream},
    },
    net::stream::Stream,
    stats::CallerKind,
    substitution::{self, Context as Facts, Subject},
    tcp_proxy::{TcpSession, connect::Failure},
    upstream::pool::HostPool,
};

/// The downstream's connection: its bytes are read by whoever sends the request, and written by who receives the response.
struct Ends {
    stream: RefCell<Stream>,
    session: Rc<TcpSession>,
    /// The downstream has said all.
    is_said: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What the downstream says.
pub struct TunneledBody(Rc<Ends>);

const READ_BYTES: usize = 16 * 1024;

impl TcpSession {
    pub(super) async fn run_tunnel(self: &Rc<Self>, tunneling: &Tunneling, downstream: Stream) {
        if self.active.config.connect_on == ConnectOn::FirstBytes && downstream.tcp().readable().await.is_err() {
            return;
        }
        let ends = Rc::new(Ends {
            stream: RefCell::new(downstream),
            session: self.clone(),
            is_said: Cell::new(false),
            waker: RefCell::default(),
        });
        let opened = self.connect_by(async |pool, _origin| self.open_tunnel(tunneling, &ends, &pool).await).await;
        let Some((body, stream)) = opened else { return };
        if self.active.config.access_log_options.flush_on_connected {
            self.log(LogType::TcpUpstreamConnected);
        }
        let mut relay = Relay { ends: &ends, body, pending: Bytes::new(), state: State::Open };
        match std::future::poll_fn(|cx| relay.poll(cx)).await {
            Ended::Whole => stream.complete(CallerKind::External),
            Ended::Cut => {}
        }
    }

    async fn open_tunnel(
        &self,
        tunneling: &Tunneling,
        ends: &Rc<Ends>,
        pool: &Rc<HostPool>,
    ) -> Result<(Body, UpstreamStream), Failure> {
        let failed = |reason: String| Failure::Connect(pool.host.address, reason);
        let is_tls = pool.cluster.config.transport_socket.is_some();
        let mut head = self.request_head(tunneling, is_tls).map_err(|error| failed(error.to_string()))?;
        let (informational, protocol) = (Informational::new(false), Cell::new(None));
        let terms = Terms {
            priority: RoutingPriority::Default,
            carrier: Carrier::Http,
            informational: &informational,
            protocol: &protocol,
        };
        let body = Body::Tunneled(Box::new(TunneledBody(ends.clone())));
        match upstream_request::send(pool, terms, &mut head, body).await {
            Ok((head, body, stream)) if is_open(head.status, protocol.get()) => Ok((body, stream)),
            Ok((head, ..)) => Err(failed(format!("tunnel response:{}", head.status.as_str()))),
            Err(TryError::Overflow) => Err(Failure::Overflow),
            Err(TryError::Connect(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn request_head(&self, tunneling: &Tunneling, is_tls: bool) -> Result<request::Parts, http::Error> {
        let facts = || Facts::of_connection(Subject::Tcp(self));
        let mut hostname = Vec::new();
        self.downstream.worker.access_logs.with_clock(|clock| {
            substitution::write(&tunneling.hostname, &facts(), clock, &mut hostname);
        });
        let mut target = uri::Parts::default();
        target.authority = Some(uri::Authority::from_maybe_shared(Bytes::from(hostname))?);
        let mut head = Request::new(()).into_parts().0;
        head.method = Method::CONNECT;
        if let Some(path) = &tunneling.post_path {
            head.method = Method::POST;
            target.scheme = Some(if is_tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
            target.path_and_query = Some(path.clone());
        }
        head.uri = http::Uri::from_parts(target)?;
        header_mutation::append(&tunneling.headers, &facts(), &mut head.headers);
        Ok(head)
    }
}

/// RFC 9110 section 9.3.6 takes any 2xx; over HTTP/2, as Envoy, only 200.
fn is_open(status: StatusCode, protocol: Option<Version>) -> bool {
    if protocol == Some(Version::HTTP_2) { status == StatusCode::OK } else { status.is_success() }
}

impl TunneledBody {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Ends { stream, session, is_said, waker } = &*self.0;
        let mut stream = stream.borrow_mut();
        // A connection that waits, maybe for hours, waits without a buffer.
        if let Some(plain) = stream.as_plain() {
            ready!(plain.poll_read_ready(cx)).map_err(|_| BodyError::Disconnected)?;
        }
        let mut input = BytesMut::with_capacity(READ_BYTES);
        match ready!(tokio_util::io::poll_read_buf(Pin::new(&mut *stream), cx, &mut input)) {
            Ok(0) => {
                is_said.set(true);
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
                Poll::Ready(None)
            }
            Ok(read) => {
                session.downstream.control.touch();
                session.received(read);
                Poll::Ready(Some(Ok(Frame::data(input.freeze()))))
            }
            Err(_) => Poll::Ready(Some(Err(BodyError::Disconnected))),
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.0.is_said.get()
    }
}

/// The response on its way downstream.
struct Relay<'a> {
    ends: &'a Ends,
    body: Body,
    /// Not written yet.
    pending: Bytes,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The upstream has said all; the end is to be passed on.
    Ending,
    /// What is left is what the downstream says.
    Listening,
}

enum Ended {
    Whole,
    Cut,
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let session = &self.ends.session;
        if let Some(order) = session.downstream.order(cx)
            && session.ends_by(order, !self.pending.is_empty())
        {
            return Poll::Ready(Ended::Cut);
        }
        loop {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Ended::Cut),
                Poll::Pending => {
                    // Its reading must not hold up its own sending.
                    self.body.poll_sending(cx);
                    return Poll::Pending;
                }
            }
            match self.state {
                State::Open => match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        self.pending = frame.into_data().unwrap_or_default();
                        session.downstream.control.touch();
                        session.sent(self.pending.len());
                    }
                    Some(Err(error)) => return Poll::Ready(self.broken(&error)),
                    None => self.state = State::Ending,
                },
                State::Ending => {
                    let mut stream = self.ends.stream.borrow_mut();
                    let _ = ready!(Pin::new(&mut *stream).poll_shutdown(cx)); // Err: a peer that is gone needs no end
                    self.state = State::Listening;
                }
                State::Listening if self.ends.is_said.get() => return Poll::Ready(Ended::Whole),
                State::Listening => {
                    *self.ends.waker.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    /// Err: the downstream takes nothing more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.ends.stream.borrow_mut();
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(written);
        }
        if stream.is_tls() { Pin::new(&mut *stream).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// A stream that the upstream takes back resets the downstream; a connection that ends is an end.
    fn broken(&self, error: &BodyError) -> Ended {
        if let BodyError::Http2(StreamError::RemoteReset(_)) = error {
            self.ends.session.flag(ResponseFlags::UPSTREAM_REMOTE_RESET);
            let stream = self.ends.stream.borrow();
            let _ = SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO)); // Err: it is closed as any other
        }
        Ended::Cut
    }
}
