//! Resources that arrived shortly before whatever names them: the endpoints of a cluster, the route table of a listener
//! that follows within moments. A server sends them once; forgetting them would leave their owner waiting for its timeout.
//! They are kept for `ORDER_GRACE` only: nobody asked for them, so nobody tells when they change.

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{runtime::warming::ORDER_GRACE, xds::resource::Received};

/// More than a server sends unasked within moments; what exceeds it is asked for like anything else.
const EARLY_ARRIVALS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct EarlyArrivals<T> {
    by_name: HashMap<Arc<str>, (Received<T>, Instant)>,
}

impl<T> EarlyArrivals<T> {
    pub(super) fn new() -> EarlyArrivals<T> {
        EarlyArrivals { by_name: HashMap::new() }
    }

    pub(super) fn keep(&mut self, received: Received<T>, now: Instant) {
        if self.by_name.len() < EARLY_ARRIVALS_MAX || self.by_name.contains_key(&received.name) {
            self.by_name.insert(received.name.clone(), (received, now + ORDER_GRACE));
        }
    }

    pub(super) fn take(&mut self, name: &str, now: Instant) -> Option<Received<T>> {
        let (received, until) = self.by_name.remove(name)?;
        (now < until).then_some(received)
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.by_name.retain(|_, (_, until)| now < *until);
    }

    /// When the oldest is to be forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_name.values().map(|(_, until)| *until).min()
    }
}
