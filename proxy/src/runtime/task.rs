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
use weft_xds::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use crate::{
    config::{
        bootstrap::Bootstrap, cluster::ClusterConfig, endpoint::LoadAssignment, listener::Listener, route::RouteTable,
    },
    runtime::{
        apply::DataPath,
        handle::{DrainStep, Query},
        publish::BindError,
        warming::{Action, Event, Source, WarmedBy, Warming},
    },
    upstream::background::ClusterEvent,
    xds::{
        client::StreamEvent,
        counters::DiscoveryCounters,
        failures::Failures,
        kind::ResourceKind,
        resource::{self, Answer, AnswerError, Known, Received, RefusedResource, ResourceConfig},
        sotw::SotwStream,
        subscription::{Interest, Verdict},
    },
};

/// Owns the configuration; runs as one task.
pub(super) struct Runtime {
    pub(super) bootstrap: Bootstrap,
    pub(super) loaded_at: SystemTime,
    pub(super) warming: Warming,
    pub(super) data_path: DataPath,
    pub(super) stream: SotwStream,
    /// There while a stream is open.
    pub(super) requests: Option<mpsc::Sender<DiscoveryRequest>>,
    pub(super) failures: Failures,
    pub(super) counters: Arc<DiscoveryCounters>,
    pub(super) initialized: watch::Sender<bool>,
    /// A listener of the bootstrap cannot be started: the proxy is not what it was asked to be.
    pub(super) fatal: Option<RuntimeError>,
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
    pub(super) async fn run(
        mut self,
        mut events: Option<mpsc::Receiver<StreamEvent>>,
        mut cluster_events: mpsc::UnboundedReceiver<ClusterEvent>,
        mut queries: mpsc::Receiver<Query>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), RuntimeError> {
        while self.fatal.is_none() {
            self.time_passed();
            tokio::select! {
                biased;
                // Err: whoever could ask for it is gone, so nobody is there to serve for.
                _ = shutdown.wait_for(|shutdown| *shutdown) => return Ok(()),
                Some(query) = queries.recv() => self.answer(query),
                permit = next_permit(self.requests_due()) => match permit {
                    Some(permit) => {
                        if let Some(request) = self.stream.next_request(Instant::now()) {
                            permit.send(request);
                        }
                    }
                    // The stream is ending; its last event says so.
                    None => self.requests = None,
                },
                Some(event) = cluster_events.recv() => self.on_cluster(event),
                Some(event) = next_event(&mut events) => self.on_stream(event),
                () = sleep_until(self.next_deadline()) => {}
            }
        }
        self.fatal.map_or(Ok(()), Err)
    }

    /// Where to send what is owed now.
    fn requests_due(&self) -> Option<mpsc::Sender<DiscoveryRequest>> {
        let now = Instant::now();
        self.stream.due_at(now).filter(|due| *due <= now).and(self.requests.clone())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let request = self.stream.due_at(now).filter(|due| *due > now);
        self.warming.deadline(now).into_iter().chain(request).min()
    }

    fn time_passed(&mut self) {
        let now = Instant::now();
        if self.warming.deadline(now).is_some_and(|deadline| deadline <= now) {
            self.on_event(Event::Time, now);
        }
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

    fn on_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened(requests) => {
                tracing::info!("connected to the control plane");
                self.stream.opened();
                self.requests = Some(requests);
                self.counters.connected();
            }
            StreamEvent::Closed(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no configuration stream; what is there goes on"
                );
                self.stream.closed();
                self.requests = None;
                let asked_for =
                    ResourceKind::ALL.into_iter().filter(|kind| self.stream.subscription(*kind).is_wanted());
                self.counters.disconnected(asked_for);
            }
            StreamEvent::Answer(answer) => self.on_answer(*answer),
        }
    }

    fn on_answer(&mut self, answer: DiscoveryResponse) {
        let Some(kind) = ResourceKind::from_type_url(&answer.type_url) else {
            tracing::debug!(type_url = answer.type_url, "ignored an answer of a type that was not asked for");
            return;
        };
        match kind {
            ResourceKind::Cluster => self.on_clusters(answer),
            ResourceKind::Endpoints => self.on_endpoints(answer),
            ResourceKind::Listener => self.on_listeners(answer),
            ResourceKind::Routes => self.on_routes(answer),
        }
    }

    fn on_clusters(&mut self, mut answer: DiscoveryResponse) {
        let clusters = self.warming.clusters();
        let known = Known::new(clusters.active().chain(clusters.warming()).map(|(received, _)| received));
        let decoded = resource::decode::<ClusterConfig>(&mut answer, &known, SystemTime::now());
        self.take(answer, decoded, |resources, refused| Event::Clusters { resources, refused });
    }

    fn on_endpoints(&mut self, mut answer: DiscoveryResponse) {
        let decoded = resource::decode::<LoadAssignment>(&mut answer, &Known::nothing(), SystemTime::now());
        self.take(answer, decoded, |resources, _| Event::Endpoints(resources));
    }

    fn on_listeners(&mut self, mut answer: DiscoveryResponse) {
        let listeners = self.warming.listeners();
        let known = Known::new(listeners.active().chain(listeners.warming()).map(|(received, _)| received));
        let decoded = resource::decode::<Listener>(&mut answer, &known, SystemTime::now());
        self.take(answer, decoded, |resources, refused| Event::Listeners { resources, refused });
    }

    fn on_routes(&mut self, mut answer: DiscoveryResponse) {
        let decoded = resource::decode::<RouteTable>(&mut answer, &Known::nothing(), SystemTime::now());
        self.take(answer, decoded, |resources, _| Event::Routes(resources));
    }

    /// Applies what is good of an answer and tells the control plane what became of it.
    fn take<T: ResourceConfig>(
        &mut self,
        answer: DiscoveryResponse,
        decoded: Result<Answer<T>, AnswerError>,
        event: impl FnOnce(Vec<Received<T>>, HashSet<Arc<str>>) -> Event,
    ) {
        let (kind, now, at) = (T::KIND, Instant::now(), SystemTime::now());
        let verdict = match decoded {
            Err(error) => {
                self.on_event(Event::AnswerRefused(kind), now);
                Verdict::Refused(error.to_string())
            }
            Ok(Answer { resources, mut refused }) => {
                let refused_names: HashSet<Arc<str>> = refused.iter().map(|refused| refused.name.clone()).collect();
                self.forget_failures(&resources, &refused_names);
                refused.extend(self.on_event(event(resources, refused_names), now));
                self.failures.add(kind, &refused, at);
                resource::refusal_message(kind, &refused).map_or(Verdict::Accepted, Verdict::Refused)
            }
        };
        match &verdict {
            Verdict::Accepted => {
                tracing::debug!(service = kind.service(), version = answer.version_info, "accepted an answer");
                self.counters.accepted(kind, &answer.version_info, milliseconds(at));
            }
            Verdict::Refused(reason) => {
                tracing::warn!(service = kind.service(), version = answer.version_info, reason, "refused an answer");
                self.counters.rejected(kind);
            }
        }
        self.stream.answered(kind, &answer, verdict, now);
    }

    /// A good version ends the failure of the one before; so does an answer that holds everything but this resource.
    fn forget_failures<T: ResourceConfig>(&mut self, good: &[Received<T>], refused: &HashSet<Arc<str>>) {
        for received in good {
            self.failures.clear(T::KIND, &received.name);
        }
        if T::KIND.comes_whole() {
            self.failures.retain(T::KIND, |name| refused.contains(name));
        }
    }

    /// Lets the warming state decide and carries it out. Gives the resources that turned out to be unusable, of whatever
    /// kind the event has; only listeners can.
    fn on_event(&mut self, event: Event, now: Instant) -> Vec<RefusedResource> {
        let is_about_listeners = matches!(event, Event::Listeners { .. });
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
            self.stream.subscription_mut(ResourceKind::Listener).refused_late(message);
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
            Action::Subscribe(kind, interest) => self.subscribe(kind, interest),
            Action::RequestAgain(kind) => self.stream.subscription_mut(kind).request_again(),
            Action::HoldClusterAck => self.stream.subscription_mut(ResourceKind::Cluster).hold(),
            Action::ReleaseClusterAck => self.stream.subscription_mut(ResourceKind::Cluster).release(),
            Action::ActivateCluster { cluster, assignment, warmed_by } => {
                if warmed_by == WarmedBy::Timeout {
                    tracing::warn!(cluster = %cluster.name, "its endpoints did not come in time; it goes live without");
                    self.counters.fetch_timed_out(ResourceKind::Endpoints);
                }
                self.data_path.activate_cluster(cluster.config, assignment.as_deref());
            }
            Action::PrepareCluster { cluster, assignment } => {
                self.data_path.prepare_cluster(cluster.config, assignment.as_deref());
            }
            Action::AbandonCluster(name) => self.data_path.abandon_cluster(&name),
            Action::UpdateEndpoints { cluster, assignment } => self.data_path.update_endpoints(&cluster, &assignment),
            Action::RemoveCluster(name) => self.data_path.remove_cluster(&name),
            Action::ActivateRoutes { table, warmed_by } => {
                if warmed_by == WarmedBy::Timeout {
                    tracing::info!(route_config = %table.name, "goes live although it names clusters that are not there");
                }
                self.data_path.activate_routes(&table.name, table.config);
            }
            Action::RemoveRoutes(name) => self.data_path.remove_routes(&name),
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

    fn subscribe(&mut self, kind: ResourceKind, interest: Interest) {
        if *self.stream.subscription(kind).interest() != interest {
            self.counters.subscribed(kind);
            if let Interest::Names(names) = &interest {
                self.failures.retain(kind, |name| names.contains(name));
            }
            self.stream.subscription_mut(kind).set_interest(interest);
        }
    }

    fn answer(&mut self, query: Query) {
        match query {
            Query::ConfigDump { endpoints, answer } => {
                let _ = answer.send(self.config_dump(endpoints)); // Err: whoever asked no longer waits
            }
            Query::Drain { step, answer } => {
                match step {
                    DrainStep::Connections => self.data_path.drain_connections(),
                    DrainStep::Listeners => self.data_path.close_listeners(),
                }
                let _ = answer.send(()); // Err: as above
            }
        }
    }
}

async fn next_event(events: &mut Option<mpsc::Receiver<StreamEvent>>) -> Option<StreamEvent> {
    match events {
        Some(events) => events.recv().await,
        None => None,
    }
}

/// None: the stream takes no more requests. Pending for ever if there is nothing to send.
async fn next_permit(requests: Option<mpsc::Sender<DiscoveryRequest>>) -> Option<mpsc::OwnedPermit<DiscoveryRequest>> {
    match requests {
        Some(requests) => requests.reserve_owned().await.ok(),
        None => std::future::pending().await,
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
