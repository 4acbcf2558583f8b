//! Resources that arrived shortly before whatever names them: the endpoints of a cluster, the route table of a listener
//! that follows within moments. A server sends them once; forgetting them would leave their owner waiting for its timeout.
//! They are kept for `ORDER_GRACE` only: nobody asked for them, so nobody tells when they change.

use std::{collections::HashMap, time::Instant};

use crate::{config::config_source::ResourceKey, runtime::warming::ORDER_GRACE, xds::resource::Received};

/// More than a server sends unasked within moments; what exceeds it is asked for like anything else.
const EARLY_ARRIVALS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct EarlyArrivals<T> {
    by_key: HashMap<ResourceKey, (Received<T>, Instant)>,
}

impl<T> EarlyArrivals<T> {
    pub(super) fn new() -> EarlyArrivals<T> {
        EarlyArrivals { by_key: HashMap::new() }
    }

    pub(super) fn keep(&mut self, key: ResourceKey, received: Received<T>, now: Instant) {
        if self.by_key.len() < EARLY_ARRIVALS_MAX || self.by_key.contains_key(&key) {
            self.by_key.insert(key, (received, now + ORDER_GRACE));
        }
    }

    pub(super) fn take(&mut self, key: &ResourceKey, now: Instant) -> Option<Received<T>> {
        let (received, until) = self.by_key.remove(key)?;
        (now < until).then_some(received)
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.by_key.retain(|_, (_, until)| now < *until);
    }

    /// When the oldest is to be forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_key.values().map(|(_, until)| *until).min()
    }
}
