//! Looking at a connection's first bytes without taking them.

use std::io;

use rustix::net::RecvFlags;
use tokio::{io::Interest, net::TcpStream};

/// Waits until more than `known` bytes can be seen, or the peer has closed; returns how many fill `buffer` now. Equal to
/// `known`: the peer has closed. Cancel-safe: nothing is taken.
pub async fn peek_more(stream: &TcpStream, buffer: &mut [u8], known: usize) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        let mut closed = false;
        let seen = stream.try_io(Interest::READABLE, || {
            let (seen, _) = rustix::net::recv(stream, &mut *buffer, RecvFlags::PEEK)?;
            if seen > known {
                return Ok(seen);
            }
            closed = seen == 0 || is_read_closed(stream)?;
            if closed { Ok(seen) } else { Err(io::ErrorKind::WouldBlock.into()) } // readiness is cleared: wait for new bytes
        });
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// The peer has sent its FIN; what it sent before can still be read.
fn is_read_closed(stream: &TcpStream) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, Some(&rustix::event::Timespec::default()))?;
    Ok(fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
}
