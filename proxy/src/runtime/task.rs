//! The task that owns the configuration: one event at a time, from the stream, the clock or whoever asks.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinError,
};
use weft_xds::any;

use crate::{
    args::UnknownFields,
    config::{
        bootstrap::Bootstrap,
        cluster::ClusterConfig,
        config_source::{ResourceKey, SourceOrigin},
        listener::Listener,
        tls::Secret,
    },
    runtime::{
        apply::DataPath,
        feeds::{FeedEvent, FeedId, Feeds, Whose},
        handle::{DrainStep, Query},
        publish::BindError,
        secret_files::SecretFiles,
        warming::{Action, Event, Source, Update, WarmedBy, Warming},
    },
    upstream::background::ClusterEvent,
    xds::{
        client::StreamEvent,
        counters::DiscoveryCounters,
        exchange::AnswerId,
        expiry::Expiries,
        failures::Failures,
        kind::ResourceKind,
        resource::{
            self, Answer, AnswerError, Known, Lifetime, Parcel, Received, RefusedResource, Removed, ResourceConfig,
        },
        subscription::Verdict,
    },
};

/// Owns the configuration; runs as one task.
pub(super) struct Runtime {
    pub(super) bootstrap: Bootstrap,
    pub(super) loaded_at: SystemTime,
    pub(super) warming: Warming,
    pub(super) data_path: DataPath,
    pub(super) feeds: Feeds,
    pub(super) expiries: Expiries,
    pub(super) unknown_fields: UnknownFields,
    pub(super) secret_files: SecretFiles,
    pub(super) failures: Failures,
    pub(super) counters: Arc<DiscoveryCounters>,
    pub(super) initialized: watch::Sender<bool>,
    /// A listener of the bootstrap cannot be started: the proxy is not what it was asked to be.
    pub(super) fatal: Option<RuntimeError>,
}

/// What moves the configuration.
pub(super) struct Inputs {
    pub(super) events: mpsc::Receiver<(FeedId, FeedEvent)>,
    /// Of clusters that look after themselves.
    pub(super) cluster_events: mpsc::UnboundedReceiver<ClusterEvent>,
    /// Their files changed.
    pub(super) changed_secrets: mpsc::Receiver<ResourceKey>,
    pub(super) queries: mpsc::Receiver<Query>,
    pub(super) shutdown: watch::Receiver<bool>,
}

/// Where an answer came from.
#[derive(Clone)]
struct From {
    id: FeedId,
    origin: SourceOrigin,
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("cannot start listener '{listener}'")]
    StaticListener {
        listener: Arc<str>,
        #[source]
        source: BindError,
    },
    #[error("the configuration's task failed")]
    Task(#[from] JoinError),
}

impl Runtime {
    pub(super) async fn run(mut self, mut inputs: Inputs) -> Result<(), RuntimeError> {
        while self.fatal.is_none() {
            let deadline = self.time_passed();
            let sendable = self.feeds.sendable(Instant::now());
            tokio::select! {
                biased;
                // Err: whoever could ask for it is gone, so nobody is there to serve for.
                _ = inputs.shutdown.wait_for(|shutdown| *shutdown) => return Ok(()),
                Some(query) = inputs.queries.recv() => self.answer(query),
                sendable = sendable => self.feeds.send(sendable, Instant::now()),
                Some(event) = inputs.cluster_events.recv() => self.on_cluster(event),
                Some((id, event)) = inputs.events.recv() => self.on_feed(id, event),
                Some(key) = inputs.changed_secrets.recv() => self.read_secret_again(&key),
                () = sleep_until(deadline) => {}
            }
        }
        self.fatal.map_or(Ok(()), Err)
    }

    /// Does what is due, and says when something is next.
    fn time_passed(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some((kind, origin, name)) = self.expiries.next_ended(now) {
            tracing::warn!(service = kind.service(), %name, "its time to live is over");
            self.on_event(Event::Expired(kind, ResourceKey { origin, name }), now);
        }
        let mut deadline = self.warming.deadline(now);
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.on_event(Event::Time, now);
            deadline = self.warming.deadline(now);
        }
        let request = self.feeds.due_at(now).filter(|due| *due > now);
        deadline.into_iter().chain(request).chain(self.expiries.deadline()).min()
    }

    fn on_cluster(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Prepared { name, hash } => {
                self.on_event(Event::ClusterPrepared { name, hash }, Instant::now());
            }
            ClusterEvent::HostsChanged => {
                self.data_path.hosts_changed();
                self.data_path.publish_if_serving();
            }
        }
    }

    fn on_feed(&mut self, id: FeedId, event: FeedEvent) {
        // None: it was closed while the event was on its way.
        let Some(Whose { origin, kind }) = self.feeds.whose(id) else { return };
        match event {
            FeedEvent::Stream(StreamEvent::Opened(requests)) => {
                tracing::info!("connected to the control plane");
                self.feeds.opened(id, requests);
                self.counters.connected();
            }
            FeedEvent::Stream(StreamEvent::Closed(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no configuration stream; what is there goes on"
                );
                if self.feeds.closed(id) {
                    self.counters.disconnected();
                }
                self.counters.failed(self.feeds.asked_for(id));
            }
            FeedEvent::Stream(StreamEvent::Answer(response)) => {
                self.on_answer(From { id, origin }, kind, Parcel::new(*response));
            }
            FeedEvent::File(Ok(response)) => {
                let mut parcel = Parcel::whole(*response);
                if let Some(kind) = kind {
                    // A file need not say what is in it.
                    kind.type_url().clone_into(&mut parcel.type_url);
                }
                self.on_answer(From { id, origin }, kind, parcel);
            }
            FeedEvent::File(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a file of the configuration cannot be read");
                self.counters.failed(kind.into_iter());
                if let Some(kind) = kind {
                    self.on_event(Event::AnswerRefused(kind), Instant::now());
                }
            }
        }
    }

    fn on_answer(&mut self, from: From, expected: Option<ResourceKind>, parcel: Parcel) {
        let kind = ResourceKind::from_type_url(&parcel.type_url);
        let Some(kind) = kind.filter(|kind| expected.is_none_or(|expected| expected == *kind)) else {
            tracing::debug!(type_url = parcel.type_url, "ignored an answer of a type that was not asked for");
            return;
        };
        match kind {
            ResourceKind::Cluster => self.on_clusters(from, parcel),
            ResourceKind::Endpoints => self.on_others(from, parcel, Event::Endpoints),
            ResourceKind::Listener => self.on_listeners(from, parcel),
            ResourceKind::Routes => self.on_others(from, parcel, Event::Routes),
            ResourceKind::Secret => self.on_others(from, parcel, Event::Secrets),
        }
    }

    fn on_clusters(&mut self, from: From, parcel: Parcel) {
        let clusters = self.warming.clusters();
        let known = Known::new(clusters.active().chain(clusters.warming()).map(|(received, _)| received));
        let id = parcel.id();
        let mut decoded = resource::decode::<ClusterConfig>(parcel, &known, self.unknown_fields, SystemTime::now());
        if let Ok(answer) = &mut decoded {
            answer.refuse_where(|config| config.discovered().find_map(|discovered| self.feeds.check(&discovered.key)));
        }
        self.take(from, id, decoded, Event::Clusters);
    }

    fn on_listeners(&mut self, from: From, parcel: Parcel) {
        let listeners = self.warming.listeners();
        let known = Known::new(listeners.active().chain(listeners.warming()).map(|(received, _)| received));
        let id = parcel.id();
        let mut decoded = resource::decode::<Listener>(parcel, &known, self.unknown_fields, SystemTime::now());
        if let Ok(answer) = &mut decoded {
            answer.refuse_where(|config| config.discovered().find_map(|discovered| self.feeds.check(&discovered.key)));
        }
        self.take(from, id, decoded, Event::Listeners);
    }

    fn on_others<T: ResourceConfig>(&mut self, from: From, parcel: Parcel, event: impl FnOnce(Update<T>) -> Event) {
        let id = parcel.id();
        let decoded = resource::decode::<T>(parcel, &Known::nothing(), self.unknown_fields, SystemTime::now());
        self.take(from, id, decoded, event);
    }

    /// Applies what is good of an answer and tells the control plane what became of it. `id` is for an answer that is refused
    /// as a whole.
    fn take<T: ResourceConfig>(
        &mut self,
        from: From,
        mut id: AnswerId,
        decoded: Result<Answer<T>, AnswerError>,
        event: impl FnOnce(Update<T>) -> Event,
    ) {
        let (kind, now, at) = (T::KIND, Instant::now(), SystemTime::now());
        let verdict = match decoded {
            Err(error) => {
                self.on_event(Event::AnswerRefused(kind), now);
                Verdict::Refused(error.to_string())
            }
            Ok(answer) => {
                self.set_lifetimes(&from.origin, &answer, now);
                let Answer { resources, mut refused, heartbeats: _, lifetimes: _, removed, id: applied } = answer;
                id = applied;
                self.forget_failures(&resources, &refused, &removed);
                let update = Update { origin: from.origin, resources, removed };
                refused.extend(self.on_event(event(update), now));
                self.failures.add(kind, &refused, at);
                resource::refusal_message(kind, &refused).map_or(Verdict::Accepted, Verdict::Refused)
            }
        };
        match &verdict {
            Verdict::Accepted => {
                tracing::debug!(service = kind.service(), version = id.version, "accepted an answer");
                self.counters.accepted(kind, &id.version, milliseconds(at));
            }
            Verdict::Refused(reason) => {
                tracing::warn!(service = kind.service(), version = id.version, reason, "refused an answer");
                self.counters.rejected(kind);
            }
        }
        self.feeds.answered(from.id, kind, &id, verdict, now);
    }

    fn set_lifetimes<T: ResourceConfig>(&mut self, origin: &SourceOrigin, answer: &Answer<T>, now: Instant) {
        for Lifetime { name, ttl } in &answer.lifetimes {
            self.expiries.set(T::KIND, origin, name, *ttl, now);
        }
        for Lifetime { name, ttl } in &answer.heartbeats {
            self.expiries.extend(T::KIND, origin, name, *ttl, now);
        }
        if let Removed::These(names) = &answer.removed {
            for name in names {
                self.expiries.set(T::KIND, origin, name, None, now);
            }
        }
    }

    /// A secret's message is as it was, and means something else.
    fn read_secret_again(&mut self, key: &ResourceKey) {
        let secrets = self.warming.secrets();
        let Some(received) = secrets.slots().find(|(known, _)| *known == key).and_then(|(_, received)| received) else {
            return;
        };
        let read = any::unpack(&received.origin.message).and_then(Secret::from_message);
        match read {
            // Of several files that change together the first may not fit the others yet.
            Err(error) => tracing::warn!(secret = %key.name, %error, "stays as it was: its files do not fit"),
            Ok(config) => {
                let (name, origin) = (received.name.clone(), received.origin.clone());
                let resources = vec![Received { name, config: Arc::new(config), origin }];
                let removed = Removed::These(HashSet::new());
                self.on_event(
                    Event::Secrets(Update { origin: key.origin.clone(), resources, removed }),
                    Instant::now(),
                );
            }
        }
    }

    /// A good version ends the failure of the one before; so does an answer that holds everything but this resource.
    fn forget_failures<T: ResourceConfig>(
        &mut self,
        good: &[Received<T>],
        refused: &[RefusedResource],
        removed: &Removed,
    ) {
        for received in good {
            self.failures.clear(T::KIND, &received.name);
        }
        match removed {
            Removed::Unnamed { .. } if T::KIND.comes_whole() => {
                let refused: HashSet<&Arc<str>> = refused.iter().map(|refused| &refused.name).collect();
                self.failures.retain(T::KIND, |name| refused.contains(name));
            }
            Removed::Unnamed { .. } => {}
            Removed::These(names) => names.iter().for_each(|name| self.failures.clear(T::KIND, name)),
        }
    }

    /// Lets the warming state decide and carries it out. Gives the resources that turned out to be unusable, of whatever
    /// kind the event has; only listeners can.
    fn on_event(&mut self, event: Event, now: Instant) -> Vec<RefusedResource> {
        let is_about_listeners = matches!(event, Event::Listeners(_));
        let outcome = self.warming.on(event, now);
        let mut refused = outcome.refusals;
        let not_started = self.carry_out(outcome.actions, now);
        if is_about_listeners {
            refused.extend(not_started);
        } else {
            self.refused_late(not_started);
        }
        refused
    }

    /// A listener's addresses are taken only when it is warm, which may be after its answer was acknowledged.
    fn refused_late(&mut self, refused: Vec<RefusedResource>) {
        if let Some(message) = resource::refusal_message(ResourceKind::Listener, &refused) {
            tracing::warn!(service = ResourceKind::Listener.service(), reason = message, "refused what was accepted");
            self.failures.add(ResourceKind::Listener, &refused, SystemTime::now());
            self.counters.rejected(ResourceKind::Listener);
            self.feeds.refused_late(ResourceKind::Listener, &message);
        }
    }

    /// Gives the listeners that could not be started.
    pub(super) fn carry_out(&mut self, actions: Vec<Action>, now: Instant) -> Vec<RefusedResource> {
        let mut not_started = Vec::new();
        let mut actions = actions;
        // A listener that does not start brings the version before it back, which can let other things go.
        while !actions.is_empty() {
            let before = not_started.len();
            for action in std::mem::take(&mut actions) {
                self.act(action, &mut not_started);
            }
            for refused in &not_started[before..] {
                actions.extend(self.warming.on(Event::ListenerRefused(refused.name.clone()), now).actions);
            }
        }
        self.data_path.publish_if_serving();
        self.counters.set_clusters(self.warming.clusters().active_count(), self.warming.clusters().warming_count());
        self.counters.set_listeners(self.warming.listeners().active_count(), self.warming.listeners().warming_count());
        not_started
    }

    fn act(&mut self, action: Action, not_started: &mut Vec<RefusedResource>) {
        match action {
            Action::SubscribeAll(kind, origin) => {
                self.counters.subscribed(kind);
                self.feeds.want_all(kind, &origin);
            }
            Action::Subscribe(kind, keys) => {
                self.counters.subscribed(kind);
                let names: HashSet<&Arc<str>> = keys.iter().map(|key| &key.name).collect();
                self.failures.retain(kind, |name| names.contains(name));
                self.feeds.want(kind, &keys);
            }
            Action::RequestAgain(kind, keys) => self.feeds.request_again(kind, &keys),
            Action::HoldClusterAck => self.feeds.hold(ResourceKind::Cluster),
            Action::ReleaseClusterAck => self.feeds.release(ResourceKind::Cluster),
            Action::UpdateSecret { key, secret } => {
                let watches = secret.files.iter().filter_map(|file| self.feeds.watch(file)).collect();
                self.secret_files.follow(key.clone(), watches);
                self.data_path.update_secret(key, secret);
            }
            Action::RemoveSecret(key) => {
                self.secret_files.forget(&key);
                self.data_path.remove_secret(&key);
            }
            Action::ActivateCluster { cluster, assignment, warmed_by } => {
                if warmed_by == WarmedBy::Timeout {
                    tracing::warn!(cluster = %cluster.name, "not all that it needs came in time; it goes live without");
                    self.counters.fetch_timed_out(match assignment {
                        Some(_) => ResourceKind::Endpoints,
                        None => ResourceKind::Secret,
                    });
                }
                self.data_path.activate_cluster(cluster.config, assignment.as_deref());
            }
            Action::PrepareCluster { cluster, assignment } => {
                self.data_path.prepare_cluster(cluster.config, assignment.as_deref());
            }
            Action::AbandonCluster(name) => self.data_path.abandon_cluster(&name),
            Action::UpdateEndpoints { cluster, assignment } => self.data_path.update_endpoints(&cluster, &assignment),
            Action::RemoveCluster(name) => self.data_path.remove_cluster(&name),
            Action::ActivateRoutes { key, table, warmed_by } => {
                if warmed_by == WarmedBy::Timeout {
                    tracing::info!(route_config = %table.name, "goes live although it names clusters that are not there");
                }
                self.data_path.activate_routes(&key, table.config);
            }
            Action::RemoveRoutes(key) => self.data_path.remove_routes(&key),
            Action::ExpireRoutes(key) => self.data_path.expire_routes(&key),
            Action::ActivateListener { listener, source, warmed_by } => {
                if warmed_by == WarmedBy::Timeout {
                    tracing::warn!(listener = %listener.name, "not all that it needs came in time; it goes live without");
                }
                if let Err(error) = self.data_path.activate_listener(listener.config.clone()) {
                    not_started.push(listener.refused(error.to_string()));
                    if source == Source::Static {
                        let listener = listener.name;
                        self.fatal.get_or_insert(RuntimeError::StaticListener { listener, source: error });
                    }
                }
            }
            Action::RemoveListener(name) => self.data_path.remove_listener(&name),
            Action::FetchTimedOut(kind) => {
                tracing::warn!(service = kind.service(), "no first answer in time; the start goes on without");
                self.counters.fetch_timed_out(kind);
            }
            Action::Initialized => {
                tracing::info!("the first configuration is complete");
                self.data_path.initialized();
                self.initialized.send_replace(true);
            }
        }
    }

    fn answer(&mut self, query: Query) {
        match query {
            Query::ConfigDump { endpoints, answer } => {
                let _ = answer.send(self.config_dump(endpoints)); // Err: whoever asked no longer waits
            }
            Query::Wake => self.data_path.wake_connections(),
            Query::Drain { step, answer } => {
                match step {
                    DrainStep::Connections(which) => self.data_path.drain_connections(which),
                    DrainStep::Listeners(which) => self.data_path.close_listeners(which),
                }
                let _ = answer.send(()); // Err: as above
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since: Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
