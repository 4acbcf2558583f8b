//! Accepting on one worker: every connection becomes a task of its own.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{net::TcpStream, sync::oneshot};

use crate::{
    listener::{
        active::ActiveListener,
        balance::{Adopted, Places},
        connection,
    },
    stats::ListenerStat,
    worker::Worker,
};

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
        let accepted = tokio::select! {
            biased;
            _ = &mut closing => break,
            accepted = socket.accept() => accepted,
        };
        let mut turn = take(&worker, &listener, accepted).await;
        while turn > 1
            && let Some(accepted) = socket.accept().now_or_never()
        {
            turn = take(&worker, &listener, accepted).await.min(turn - 1);
        }
        if turn <= 1 {
            tokio::task::yield_now().await;
        }
    }
    while let Some(accepted) = socket.accept().now_or_never() {
        if accepted.as_ref().is_err_and(|error| !is_about_one_connection(error)) {
            return;
        }
        take(&worker, &listener, accepted).await;
    }
}

/// A connection that another worker accepted.
pub fn adopt(worker: &Rc<Worker>, adopted: Adopted) {
    let Adopted { listener, stream, peer, places } = adopted;
    match TcpStream::from_std(stream) {
        Ok(stream) => {
            if let Some(active) = worker.snapshot().listener(&listener) {
                serve(worker, active, stream, peer, places);
            }
        }
        Err(error) => tracing::warn!(%listener, %error, "cannot serve a connection"),
    }
}

/// How many more may be accepted before it is others' turn.
async fn take(worker: &Rc<Worker>, listener: &Arc<str>, accepted: io::Result<(TcpStream, SocketAddr)>) -> u32 {
    match accepted {
        Ok((stream, peer)) => {
            // The socket may still be open for a moment after its listener is gone.
            let snapshot = worker.snapshot();
            let Some(active) = snapshot.listener(listener) else { return 1 };
            place(worker, active, stream, peer);
            active.config.accepts_per_turn
        }
        Err(error) if is_about_one_connection(&error) => u32::MAX,
        Err(error) => {
            tracing::warn!(%listener, %error, "cannot accept for now");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
            1
        }
    }
}

/// On the worker that shall have it.
fn place(worker: &Rc<Worker>, listener: &Arc<ActiveListener>, stream: TcpStream, peer: SocketAddr) {
    let mut places = Places::default();
    if let Some(limit) = &listener.limit {
        places.of_listener = limit.enter();
        if places.of_listener.is_none() {
            listener.stats.cells.inc(worker.index, ListenerStat::CxOverflow);
            return;
        }
    }
    if let Some(limit) = worker.shared.global_limit.as_ref().filter(|_| !listener.config.ignore_global_limit) {
        places.of_process = limit.enter();
        if places.of_process.is_none() {
            listener.stats.cells.inc(worker.index, ListenerStat::GlobalCxOverflow);
            return;
        }
    }
    let Some(balance) = &listener.balance else { return serve(worker, listener, stream, peer, places) };
    let (target, guard) = balance.place(worker.index);
    places.balanced = Some(guard);
    if target == worker.index {
        return serve(worker, listener, stream, peer, places);
    }
    match stream.into_std() {
        Ok(stream) => {
            let adopted = Adopted { listener: listener.config.name.clone(), stream, peer, places };
            let _ = worker.shared.adopters[target.0].send(adopted); // Err: that worker, and so the process, is ending
        }
        Err(error) => tracing::warn!(listener = %listener.config.name, %error, "cannot hand a connection over"),
    }
}

fn serve(worker: &Rc<Worker>, listener: &Arc<ActiveListener>, stream: TcpStream, peer: SocketAddr, places: Places) {
    tokio::task::spawn_local(connection::serve(worker.clone(), listener.clone(), stream, peer, places));
}

/// accept(2): errors of the connection that was about to be taken, not of the socket.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
