//! Accepting on one worker: every connection becomes a task of its own.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{net::TcpStream, sync::oneshot};

use crate::{listener::connection, worker::Worker};

/// How long to wait when the process is out of file descriptors or memory: what is open must end first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Runs until `closing` is given or dropped. Connections that the kernel has taken by then are served too: closing a socket
/// resets those that wait in its queue.
pub async fn run(
    worker: Rc<Worker>,
    listener: Arc<str>,
    socket: std::net::TcpListener,
    mut closing: oneshot::Receiver<()>,
) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%listener, %error, "cannot accept");
            return;
        }
    };
    loop {
        tokio::select! {
            biased;
            _ = &mut closing => break,
            accepted = socket.accept() => take(&worker, &listener, accepted).await,
        }
    }
    while let Some(accepted) = socket.accept().now_or_never() {
        if accepted.as_ref().is_err_and(|error| !is_about_one_connection(error)) {
            return;
        }
        take(&worker, &listener, accepted).await;
    }
}

async fn take(worker: &Rc<Worker>, listener: &Arc<str>, accepted: io::Result<(TcpStream, SocketAddr)>) {
    match accepted {
        Ok((stream, peer)) => {
            // The socket may still be open for a moment after its listener is gone.
            if let Some(active) = worker.snapshot().listener(listener) {
                tokio::task::spawn_local(connection::serve(worker.clone(), active.clone(), stream, peer));
            }
        }
        Err(error) if is_about_one_connection(&error) => {}
        Err(error) => {
            tracing::warn!(%listener, %error, "cannot accept for now");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
    }
}

/// accept(2): errors of the connection that was about to be taken, not of the socket.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
