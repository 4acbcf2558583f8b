//! What the runtime has, for `/config_dump`.

use std::sync::Arc;

use crate::{
    config::config_source::SourceOrigin,
    runtime::{task::Runtime, warming::Source},
    xds::{
        dump::{self, ConfigDump, EndpointsInDump, Entry, Place, SecretEntry},
        kind::ResourceKind,
        resource::Received,
    },
};

impl Runtime {
    pub(super) fn config_dump(&self, endpoints: EndpointsInDump) -> ConfigDump {
        let version = |kind| self.feeds.accepted_version(kind);
        let (clusters, listeners) = (|| self.cluster_entries(), || self.listener_entries());
        ConfigDump {
            bootstrap: dump::bootstrap(self.bootstrap.message.decode(), self.loaded_at),
            clusters: dump::clusters(version(ResourceKind::Cluster), clusters(), &self.failures),
            endpoints: match endpoints {
                EndpointsInDump::Included => {
                    let assignments =
                        self.warming.clusters().assignments().map(|received| entry(received, Place::Active));
                    Some(dump::endpoints(assignments, clusters(), &self.failures))
                }
                EndpointsInDump::Omitted => None,
            },
            listeners: dump::listeners(version(ResourceKind::Listener), listeners(), &self.failures),
            routes: {
                let tables = self.warming.routes().live().map(|received| entry(received, Place::Active));
                dump::routes(tables, listeners(), &self.failures)
            },
            secrets: dump::secrets(self.secret_entries(), &self.failures),
        }
    }

    fn cluster_entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let clusters = self.warming.clusters();
        let active = clusters.active().map(|(received, source)| entry(received, place(source, Place::Active)));
        active.chain(clusters.warming().map(|(received, source)| entry(received, place(source, Place::Warming))))
    }

    fn listener_entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let listeners = self.warming.listeners();
        let active = listeners.active().map(|(received, source)| entry(received, place(source, Place::Active)));
        active.chain(listeners.warming().map(|(received, source)| entry(received, place(source, Place::Warming))))
    }
}

impl Runtime {
    fn secret_entries(&self) -> impl Iterator<Item = SecretEntry<'_>> {
        self.warming.secrets().slots().map(|(key, received)| SecretEntry {
            name: &key.name,
            origin: received.map(|received| Arc::as_ref(&received.origin)),
            is_static: key.origin == SourceOrigin::Bootstrap,
        })
    }
}

fn entry<T>(received: &Received<T>, place: Place) -> Entry<'_> {
    Entry { name: &received.name, origin: Arc::as_ref(&received.origin), place }
}

/// What stands in the bootstrap is shown as such wherever it has got to.
fn place(source: Source, dynamic: Place) -> Place {
    match source {
        Source::Static => Place::Static,
        Source::Dynamic => dynamic,
    }
}
