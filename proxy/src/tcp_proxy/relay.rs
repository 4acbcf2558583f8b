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
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::{listener::registry::Order, net::stream::Stream, stats::TcpStat, tcp_proxy::TcpSession, worker::Worker};

/// Reads that filled the buffer before splice is worth its pipe.
const FULL_READS_BEFORE_SPLICE: u32 = 4;
const PIPE_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Direction {
    /// Holds `pending`; none while there is nothing to write.
    buffer: Option<Vec<u8>>,
    pending: std::ops::Range<usize>,
    full_reads: u32,
    pipe: Option<Pipe>,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
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

#[derive(Clone, Copy)]
enum Way {
    Upstream,
    Downstream,
}

pub async fn run(session: &TcpSession, mut downstream: Stream, mut upstream: Stream) {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let worker = &session.downstream.worker;
    let result = std::future::poll_fn(|cx| {
        match session.downstream.order(cx) {
            Some(Order::IdleTimeout) => {
                session.add(TcpStat::IdleTimeout, 1);
                return Poll::Ready(Ok(()));
            }
            Some(Order::MaxDuration(_)) => {
                session.add(TcpStat::MaxDuration, 1);
                return Poll::Ready(Ok(()));
            }
            Some(Order::Close) => return Poll::Ready(Ok(())),
            Some(Order::Drain(_)) | None => {}
        }
        let up = up.poll(session, Way::Upstream, &mut downstream, &mut upstream, cx)?;
        let down = down.poll(session, Way::Downstream, &mut upstream, &mut downstream, cx)?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    up.give_back(worker);
    down.give_back(worker);
    if let Err(error) = result {
        let error: io::Error = error;
        tracing::debug!(peer = %session.downstream.remote_address, %error, "connection ended");
    }
}

impl Direction {
    fn poll(
        &mut self,
        session: &TcpSession,
        way: Way,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.state == State::Done {
                return Poll::Ready(Ok(()));
            }
            // What was copied before the pipe was there goes first.
            ready!(self.poll_write(session, to, cx))?;
            if self.pipe.is_some()
                && let (Some(from), Some(to)) = (from.as_plain(), to.as_plain())
            {
                ready!(self.poll_splice(session, way, from, to, cx))?;
            }
            if self.state == State::Ending {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.state = State::Done;
                continue;
            }
            ready!(self.poll_read(session, way, from, cx))?;
            if self.full_reads >= FULL_READS_BEFORE_SPLICE && from.as_plain().is_some() && to.as_plain().is_some() {
                // Without a pipe (out of descriptors) copying goes on.
                self.pipe = Pipe::open().ok();
                self.full_reads = 0;
            }
        }
    }

    fn poll_read(
        &mut self,
        session: &TcpSession,
        way: Way,
        from: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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
        count(session, way, filled);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, session: &TcpSession, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(buffer) = &self.buffer else { return Poll::Ready(Ok(())) };
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &buffer[self.pending.clone()]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.start += written;
        }
        if to.is_tls() {
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
        }
        self.give_back(&session.downstream.worker);
        Poll::Ready(Ok(()))
    }

    /// Ends with the source's end: then the pipe is empty and gone.
    fn poll_splice(
        &mut self,
        session: &TcpSession,
        way: Way,
        from: &TcpStream,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(pipe) = &mut self.pipe {
            while pipe.held > 0 {
                ready!(to.poll_write_ready(cx))?;
                match to.try_io(Interest::WRITABLE, || move_bytes(&pipe.read, to, pipe.held)) {
                    Ok(moved) => pipe.held -= moved,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            ready!(from.poll_read_ready(cx))?;
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
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
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
