//! Servers that speak first (MySQL, SMTP) behind filters that wait for the client's first bytes: where the client says
//! nothing, the upstream is dialled meanwhile, and whoever speaks first decides.
//!
//! Done only where it changes nothing but the wait: on listeners that go on without bytes when their time is up
//! (`continue_on_listener_filters_timeout`), and if the chain that would then be taken is a plain TCP proxy, with nothing
//! that could still refuse the connection. What it may cost is a connection to an upstream that turns out not to be wanted.

use std::{rc::Rc, sync::Arc, time::Duration};

use crate::{
    config::tcp_proxy::ConnectOn,
    listener::{
        active::{ActiveChain, ActiveFilter, ActiveListener, ActiveTcp},
        arrival::{ActiveListenerFilterKind, Arrival, Ending},
    },
    tcp_proxy::connect::{self, Greeted},
    worker::Worker,
};

/// A client that speaks first has mostly done so within this time of its connection.
const PATIENCE: Duration = Duration::from_millis(1);

/// The upstream of a chain, dialled before it was clear that the chain takes the connection.
pub struct Dialled {
    pub chain: Arc<ActiveChain>,
    pub greeted: Greeted,
}

/// Runs the listener's filters, until they are done or the server has spoken. `dialled` is there afterwards, also when this
/// was cancelled, if an upstream is connected.
pub async fn filter(
    worker: &Rc<Worker>,
    listener: &Arc<ActiveListener>,
    arrival: &mut Arrival,
    dialled: &mut Option<Dialled>,
) -> Result<(), Ending> {
    let filters = &listener.filters;
    if !listener.config.continue_on_listener_filters_timeout {
        return arrival.filter(filters, worker.index).await;
    }
    if let Ok(filtered) = tokio::time::timeout(PATIENCE, arrival.filter(filters, worker.index)).await {
        return filtered;
    }
    let Some((chain, active)) = candidate(listener, arrival) else {
        return arrival.filter(filters, worker.index).await;
    };
    let (destination, source) = (arrival.destination, arrival.source);
    let greeted_first = async {
        if let Some(greeted) = connect::dial(worker, &active.config, destination, source).await {
            let dialled = dialled.insert(Dialled { chain, greeted });
            if dialled.greeted.hear().await {
                return;
            }
        }
        // It has nothing to say: the client decides after all.
        *dialled = None;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        filtered = arrival.filter(filters, worker.index) => filtered,
        () = greeted_first => Ok(()),
    }
}

/// The chain that takes the connection if its client goes on saying nothing, where it may be dialled for.
fn candidate(listener: &ActiveListener, arrival: &Arrival) -> Option<(Arc<ActiveChain>, Arc<ActiveTcp>)> {
    let waits_for_first_words = matches!(
        arrival.current_filter(&listener.filters)?,
        ActiveListenerFilterKind::TlsInspector { .. } | ActiveListenerFilterKind::HttpInspector { .. }
    );
    // A connection from the downstream's own address is for that filter to open.
    if !waits_for_first_words || arrival.has_spoken() || arrival.learned.original_src.is_some() {
        return None;
    }
    let chain = listener.find_chain(&arrival.facts())?;
    let ActiveFilter::Tcp(active) = &chain.filter else { return None };
    let is_plain = chain.connection_filters.is_empty() && chain.config.transport_socket.is_none();
    let dials_at_once = active.config.connect_on == ConnectOn::Connection && active.config.tunneling.is_none();
    let may_dial = is_plain && dials_at_once;
    may_dial.then(|| (chain.clone(), active.clone()))
}
