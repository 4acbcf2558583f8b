//! What the data path works from: listeners and clusters, published whole, never changed.
//!
//! Endpoints and route tables have cells of their own inside (`Cluster::endpoints`, `RouteSlot`), so that their churn
//! makes no new snapshot.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use crate::{listener::active::ActiveListener, net::socket::wildcard_of, upstream::cluster::Cluster};

#[derive(Default)]
pub struct Snapshot {
    pub listeners: Vec<Arc<ActiveListener>>,
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
    by_name: HashMap<Arc<str>, Arc<ActiveListener>>,
    by_address: HashMap<SocketAddr, Arc<ActiveListener>>,
}

impl Snapshot {
    pub fn new(listeners: Vec<Arc<ActiveListener>>, clusters: HashMap<Arc<str>, Arc<Cluster>>) -> Snapshot {
        let by_name = listeners.iter().map(|listener| (listener.config.name.clone(), listener.clone())).collect();
        let mut by_address = HashMap::new();
        for listener in &listeners {
            for at in &listener.config.addresses {
                by_address.insert(at.address, listener.clone());
                if at.ipv4_compat && at.address.ip().is_unspecified() {
                    let v4 = SocketAddr::from(([0, 0, 0, 0], at.address.port()));
                    by_address.entry(v4).or_insert_with(|| listener.clone());
                }
            }
        }
        Snapshot { listeners, clusters, by_name, by_address }
    }

    pub fn listener(&self, name: &str) -> Option<&Arc<ActiveListener>> {
        self.by_name.get(name)
    }

    /// The listener that a redirected connection belongs to: the one on its destination, else the one on every address
    /// of that port.
    pub fn listener_of_destination(&self, destination: SocketAddr) -> Option<&Arc<ActiveListener>> {
        self.by_address.get(&destination).or_else(|| self.by_address.get(&wildcard_of(destination)))
    }
}
