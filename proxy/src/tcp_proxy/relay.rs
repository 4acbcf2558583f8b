//! Bytes both ways. A direction borrows a buffer of its worker only while it holds bytes, so idle connections hold none;
//! between two plain sockets a direction that keeps filling its buffer goes over to splice(2), which copies nothing
//! through the process.
//!
//! One side's end is passed on as a half close; the connection is over when both directions are.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::{
    http::response_flags::ResponseFlags,
    listener::registry::Order,
    net::stream::Stream,
    stats::TcpStat,
    tcp_proxy::{TcpSession, early::EarlyData},
    worker::Worker,
};

/// Reads that filled the buffer before splice is worth its pipe.
const FULL_READS_BEFORE_SPLICE: u32 = 4;
const PIPE_BYTES: usize = 1 << 20;

struct Direction {
    /// Where to.
    way: Way,
    /// Holds `pending`; none while there is nothing to write.
    buffer: Option<Vec<u8>>,
    pending: std::ops::Range<usize>,
    /// Something is pending that the target would not take.
    is_paused: bool,
    full_reads: u32,
    pipe: Option<Pipe>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; the end is to be passed on.
    Ending,
    Done,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes inside.
    held: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Upstream,
    Downstream,
}

/// What ended a direction, and on which side.
struct Failure {
    at: Way,
    error: io::Error,
}

/// `read_ahead`: what each side has said already, downstream first.
pub async fn run(session: &TcpSession, mut downstream: Stream, mut upstream: Stream, read_ahead: [EarlyData; 2]) {
    let [early, greeting] = read_ahead;
    let (mut up, mut down) = (Direction::new(Way::Upstream, early), Direction::new(Way::Downstream, greeting));
    let worker = &session.downstream.worker;
    let result = std::future::poll_fn(|cx| {
        if let Some(order) = session.downstream.order(cx)
            && session.ends_by(order, up.has_pending() || down.has_pending())
        {
            return Poll::Ready(Ok(()));
        }
        // What the upstream has said is passed on even if it takes no more.
        let down = down.poll(session, &mut upstream, &mut downstream, cx)?;
        let up = up.poll(session, &mut downstream, &mut upstream, cx)?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    up.give_back(worker);
    down.give_back(worker);
    if let Err(Failure { at, error }) = result {
        tracing::debug!(peer = %session.downstream.remote_address, %error, "connection ended");
        if is_reset(&error) {
            pass_reset_on(session, at, &downstream, &upstream);
        }
    }
}

impl TcpSession {
    /// Whether the connection is over by this order.
    pub(super) fn ends_by(&self, order: Order, has_pending: bool) -> bool {
        match order {
            Order::IdleTimeout => self.count(TcpStat::IdleTimeout),
            Order::MaxDuration(_) => {
                self.count(TcpStat::MaxDuration);
                self.flag(ResponseFlags::DURATION_TIMEOUT);
            }
            Order::Close => {}
            Order::Drain(_) if self.active.config.closes_on_drain && !has_pending => {
                self.count(TcpStat::CxDrainClose);
            }
            Order::Drain(_) => return false,
        }
        true
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Closed without waiting, the other side's socket is reset too.
fn pass_reset_on(session: &TcpSession, at: Way, downstream: &Stream, upstream: &Stream) {
    let other = match at {
        Way::Upstream => {
            session.flag(ResponseFlags::UPSTREAM_REMOTE_RESET);
            downstream
        }
        Way::Downstream => upstream,
    };
    let _ = SockRef::from(other.tcp()).set_linger(Some(Duration::ZERO)); // Err: it is closed as any other
}

impl Direction {
    fn new(way: Way, early: EarlyData) -> Direction {
        let EarlyData { bytes, is_ended } = early;
        Direction {
            way,
            pending: 0..bytes.len(),
            buffer: (!bytes.is_empty()).then_some(bytes),
            is_paused: false,
            full_reads: 0,
            pipe: None,
            state: if is_ended { State::Ending } else { State::Open },
        }
    }

    fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held > 0)
    }

    fn poll(
        &mut self,
        session: &TcpSession,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let (source, target) = match self.way {
            Way::Upstream => (Way::Downstream, Way::Upstream),
            Way::Downstream => (Way::Upstream, Way::Downstream),
        };
        let fails = |at: Way| move |error: io::Error| Failure { at, error };
        loop {
            if self.state == State::Done {
                return Poll::Ready(Ok(()));
            }
            // What was copied before the pipe was there goes first.
            ready!(self.poll_write(session, to, cx)).map_err(fails(target))?;
            if self.pipe.is_some()
                && let (Some(from), Some(to)) = (from.as_plain(), to.as_plain())
            {
                ready!(self.poll_splice(session, from, to, cx))
                    .map_err(|(is_source, error)| Failure { at: if is_source { source } else { target }, error })?;
            }
            if self.state == State::Ending {
                // A peer that is gone needs no end.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.state = State::Done;
                continue;
            }
            ready!(self.poll_read(session, from, cx)).map_err(fails(source))?;
            if self.full_reads >= FULL_READS_BEFORE_SPLICE && from.as_plain().is_some() && to.as_plain().is_some() {
                // Without a pipe (out of descriptors) copying goes on.
                self.pipe = Pipe::open().ok();
                self.full_reads = 0;
            }
        }
    }

    fn poll_read(&mut self, session: &TcpSession, from: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let worker = &session.downstream.worker;
        let mut buffer = self.buffer.take().unwrap_or_else(|| worker.take_buffer());
        let mut read = ReadBuf::new(&mut buffer);
        let polled = Pin::new(from).poll_read(cx, &mut read);
        let (filled, capacity) = (read.filled().len(), read.capacity());
        if filled == 0 {
            worker.give_buffer(buffer);
        } else {
            self.buffer = Some(buffer);
        }
        ready!(polled)?;
        if filled == 0 {
            self.state = State::Ending;
        }
        self.pending = 0..filled;
        self.full_reads = if filled == capacity { self.full_reads + 1 } else { 0 };
        self.count(session, filled);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, session: &TcpSession, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(buffer) = &self.buffer else { return Poll::Ready(Ok(())) };
        while !self.pending.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut *to).poll_write(cx, &buffer[self.pending.clone()]) else {
                self.pause(session);
                return Poll::Pending;
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.start += written;
        }
        if to.is_tls() {
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
        }
        self.resume(session);
        self.give_back(&session.downstream.worker);
        Poll::Ready(Ok(()))
    }

    /// Ends with the source's end: then the pipe is empty and gone. Errors say whether they are of the source.
    fn poll_splice(
        &mut self,
        session: &TcpSession,
        from: &TcpStream,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), (bool, io::Error)>> {
        let way = self.way;
        while let Some(pipe) = &mut self.pipe {
            while pipe.held > 0 {
                ready!(to.poll_write_ready(cx)).map_err(|error| (false, error))?;
                match to.try_io(Interest::WRITABLE, || move_bytes(&pipe.read, to, pipe.held)) {
                    Ok(moved) => pipe.held -= moved,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err((false, error))),
                }
            }
            ready!(from.poll_read_ready(cx)).map_err(|error| (true, error))?;
            match from.try_io(Interest::READABLE, || move_bytes(from, &pipe.write, PIPE_BYTES)) {
                Ok(0) => {
                    self.state = State::Ending;
                    self.pipe = None;
                }
                Ok(moved) => {
                    pipe.held = moved;
                    count(session, way, moved);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err((true, error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn count(&self, session: &TcpSession, bytes: usize) {
        count(session, self.way, bytes);
    }

    /// The target takes no more for now, so the source is not read.
    fn pause(&mut self, session: &TcpSession) {
        if !self.is_paused {
            self.is_paused = true;
            self.count_flow(session, TcpStat::FlowControlPaused);
        }
    }

    fn resume(&mut self, session: &TcpSession) {
        if self.is_paused {
            self.is_paused = false;
            self.count_flow(session, TcpStat::FlowControlResumed);
        }
    }

    /// The filter counts for its own side only.
    fn count_flow(&self, session: &TcpSession, stat: TcpStat) {
        if self.way == Way::Upstream {
            session.count(stat);
        }
    }

    fn give_back(&mut self, worker: &Worker) {
        if let Some(buffer) = self.buffer.take() {
            worker.give_buffer(buffer);
        }
    }
}

fn count(session: &TcpSession, way: Way, bytes: usize) {
    session.downstream.control.touch();
    match way {
        Way::Upstream => session.received(bytes),
        Way::Downstream => session.sent(bytes),
    }
}

fn move_bytes(from: &impl std::os::fd::AsFd, to: &impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}

impl Pipe {
    fn open() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A user's pipes together have a limit: past it a small one does.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Pipe { read, write, held: 0 })
    }
}
