//! Whatever the order in which a control plane's answers arrive, a request finds a route, a cluster and a host.
//!
//! A control plane changes its configuration at random and pushes each change as answers of the four kinds. Each kind
//! keeps its own order; between the kinds there is none. It also answers what it is asked for. A model of the data path
//! carries out the actions one by one, and after each of them tries a request on every listener.

use std::collections::{BTreeMap, VecDeque};

use proptest::{prop_assert, prop_assert_eq, proptest, test_runner::TestCaseError};

use super::*;

const CLUSTERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const LISTENERS: [&str; 3] = ["l", "m", "n"];

/// What the control plane wants: for each name what differs between its versions.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    /// Version of the cluster, port of its endpoint.
    clusters: BTreeMap<&'static str, (u32, u32)>,
    /// The route table of each.
    listeners: BTreeMap<&'static str, &'static str>,
    /// Clusters that each route table names.
    tables: BTreeMap<&'static str, Vec<&'static str>>,
}

#[derive(Debug)]
struct ControlPlane {
    wanted: Wanted,
    /// Answers under way, by kind.
    answers: BTreeMap<usize, VecDeque<Event>>,
    listeners_asked: bool,
    endpoints_asked: BTreeSet<Arc<str>>,
    routes_asked: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct DataPath {
    /// Ports of the endpoints.
    clusters: BTreeMap<Arc<str>, Vec<u16>>,
    tables: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    listeners: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

impl Wanted {
    /// Complete: whatever is named is there.
    fn random(before: &Wanted, random: &mut fastrand::Rng) -> Wanted {
        let mut wanted = before.clone();
        wanted.clusters.retain(|_, _| random.u8(..) > 60);
        for name in CLUSTERS {
            if random.bool() {
                wanted.clusters.entry(name).or_insert_with(|| (random.u32(0..3), random.u32(1..9)));
            }
        }
        if wanted.clusters.is_empty() {
            wanted.clusters.insert("a", (0, 1));
        }
        for (version, port) in wanted.clusters.values_mut() {
            match random.u8(0..6) {
                0 => *version = random.u32(0..3),
                1 => *port = random.u32(1..9),
                _ => {}
            }
        }
        for name in LISTENERS {
            match random.u8(0..8) {
                0 => drop(wanted.listeners.remove(name)),
                1 | 2 => drop(wanted.listeners.insert(name, random.choice(["r", "s", "t"]).expect("some"))),
                _ => {}
            }
        }
        let there: Vec<&'static str> = wanted.clusters.keys().copied().collect();
        let mut tables = BTreeMap::new();
        for table in wanted.listeners.values() {
            let mut clusters: Vec<&'static str> = wanted.tables.get(table).cloned().unwrap_or_default();
            clusters.retain(|name| there.contains(name) && random.u8(..) > 60);
            if clusters.is_empty() || random.bool() {
                clusters.push(random.choice(there.iter().copied()).expect("some"));
            }
            clusters.sort_unstable();
            clusters.dedup();
            tables.insert(*table, clusters);
        }
        wanted.tables = tables;
        wanted
    }
}

impl ControlPlane {
    /// Sends what changed; the endpoints of a changed cluster follow it.
    fn push(&mut self, wanted: Wanted, random: &mut fastrand::Rng) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let versions = |wanted: &Wanted| wanted.clusters.iter().map(|(name, (v, _))| (*name, *v)).collect::<Vec<_>>();
        if versions(&before) != versions(&self.wanted) {
            let clusters = self.wanted.clusters.iter().map(|(name, (version, _))| cluster(name, *version));
            let event = Event::Clusters { resources: clusters.collect(), refused: HashSet::new() };
            self.queue(ResourceKind::Cluster, event);
        }
        let changed: Vec<&str> = self
            .wanted
            .clusters
            .iter()
            .filter(|(name, wanted)| before.clusters.get(*name) != Some(wanted))
            .map(|(name, _)| *name)
            .collect();
        self.send_endpoints(&changed, random);
        if self.listeners_asked && before.listeners != self.wanted.listeners {
            self.send_listeners();
        }
        let changed = self.wanted.tables.iter().filter(|(name, clusters)| before.tables.get(*name) != Some(clusters));
        let tables: Vec<_> = changed.map(|(name, clusters)| table(name, clusters)).collect();
        if !tables.is_empty() {
            self.queue(ResourceKind::Routes, Event::Routes(tables));
        }
    }

    fn send_listeners(&mut self) {
        let listeners = self.wanted.listeners.iter().map(|(name, table)| listener(name, port_of(name), table));
        let event = Event::Listeners { resources: listeners.collect(), refused: HashSet::new() };
        self.queue(ResourceKind::Listener, event);
    }

    fn send_endpoints(&mut self, names: &[&str], random: &mut fastrand::Rng) {
        let wanted = &self.wanted.clusters;
        let sent: Vec<_> = names.iter().filter_map(|name| Some(endpoints(name, wanted.get(name)?.1))).collect();
        // In one answer or one by one.
        let in_one = if random.bool() { sent.len().max(1) } else { 1 };
        for sent in sent.chunks(in_one) {
            self.queue(ResourceKind::Endpoints, Event::Endpoints(sent.to_vec()));
        }
    }

    fn asked(&mut self, action: &Action, random: &mut fastrand::Rng) {
        match action {
            Action::Subscribe(ResourceKind::Listener, _) => {
                self.listeners_asked = true;
                self.send_listeners();
            }
            Action::Subscribe(ResourceKind::Endpoints, Interest::Names(names)) => {
                let new: Vec<Arc<str>> = names.difference(&self.endpoints_asked).cloned().collect();
                self.endpoints_asked = names.clone();
                self.send_endpoints(&new.iter().map(|name| &**name).collect::<Vec<_>>(), random);
            }
            Action::Subscribe(ResourceKind::Routes, Interest::Names(names)) => {
                let new = names.difference(&self.routes_asked);
                let tables: Vec<_> =
                    new.filter_map(|name| Some(table(name, self.wanted.tables.get(&**name)?))).collect();
                self.routes_asked = names.clone();
                if !tables.is_empty() {
                    self.queue(ResourceKind::Routes, Event::Routes(tables));
                }
            }
            _ => {}
        }
    }

    fn queue(&mut self, kind: ResourceKind, event: Event) {
        self.answers.entry(kind.index()).or_default().push_back(event);
    }

    fn under_way(&self) -> usize {
        self.answers.values().map(VecDeque::len).sum()
    }

    fn next(&mut self, random: &mut fastrand::Rng) -> Option<Event> {
        let waiting: Vec<usize> =
            self.answers.iter().filter(|(_, queue)| !queue.is_empty()).map(|(kind, _)| *kind).collect();
        self.answers.get_mut(&random.choice(waiting)?)?.pop_front()
    }
}

impl DataPath {
    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::ActivateCluster { cluster, assignment, .. } => {
                let ports = assignment.as_ref().map(|assignment| ports(assignment)).unwrap_or_default();
                self.clusters.insert(cluster.name.clone(), ports);
            }
            Action::UpdateEndpoints { cluster, assignment } => {
                self.clusters.insert(cluster.clone(), ports(assignment));
            }
            Action::RemoveCluster(name) => drop(self.clusters.remove(name)),
            Action::ActivateRoutes { table, .. } => {
                let clusters = table.config.clusters().map(|(_, name)| name.clone()).collect();
                self.tables.insert(table.name.clone(), clusters);
            }
            Action::RemoveRoutes(name) => drop(self.tables.remove(name)),
            Action::ActivateListener { listener, .. } => {
                let needs = crate::runtime::dependencies::ListenerNeeds::of(&listener.config);
                self.listeners.insert(listener.name.clone(), needs.route_tables.into_iter().collect());
            }
            Action::RemoveListener(name) => drop(self.listeners.remove(name)),
            Action::Subscribe(..)
            | Action::RequestAgain(_)
            | Action::HoldClusterAck
            | Action::ReleaseClusterAck
            | Action::PrepareCluster { .. }
            | Action::AbandonCluster(_)
            | Action::FetchTimedOut(_)
            | Action::Initialized => {}
        }
    }

    /// A request for each route of each listener.
    fn try_requests(&self) -> Result<(), TestCaseError> {
        for (listener, tables) in &self.listeners {
            for table in tables {
                let clusters = self.tables.get(table);
                prop_assert!(clusters.is_some(), "NR: {listener} has no routes {table}");
                for cluster in clusters.into_iter().flatten() {
                    let hosts = self.clusters.get(cluster);
                    prop_assert!(hosts.is_some(), "NC: {table} of {listener} routes to {cluster}");
                    prop_assert!(hosts.is_some_and(|hosts| !hosts.is_empty()), "UH: {cluster} has no hosts");
                }
            }
        }
        Ok(())
    }

    fn is(&self, wanted: &Wanted) -> Result<(), TestCaseError> {
        let clusters: BTreeMap<Arc<str>, Vec<u16>> =
            wanted.clusters.iter().map(|(name, (_, port))| (Arc::from(*name), vec![*port as u16])).collect();
        prop_assert_eq!(&self.clusters, &clusters);
        let listeners: BTreeMap<Arc<str>, Vec<Arc<str>>> =
            wanted.listeners.iter().map(|(name, table)| (Arc::from(*name), vec![Arc::from(*table)])).collect();
        prop_assert_eq!(&self.listeners, &listeners);
        let tables: BTreeMap<Arc<str>, Vec<Arc<str>>> = wanted
            .tables
            .iter()
            .map(|(name, clusters)| (Arc::from(*name), clusters.iter().map(|name| Arc::from(*name)).collect()))
            .collect();
        prop_assert_eq!(&self.tables, &tables);
        Ok(())
    }
}

fn ports(assignment: &LoadAssignment) -> Vec<u16> {
    let localities = assignment.priorities.iter().flatten();
    localities.flat_map(|locality| &locality.endpoints).map(|endpoint| endpoint.address.port()).collect()
}

fn short_event(event: &Event) -> String {
    fn names<T>(resources: &[Received<T>]) -> String {
        resources.iter().map(|resource| &*resource.name).collect::<Vec<_>>().join(" ")
    }
    match event {
        Event::Clusters { resources, .. } => format!("clusters {}", names(resources)),
        Event::Endpoints(resources) => format!("endpoints {}", names(resources)),
        Event::Listeners { resources, .. } => format!("listeners {}", names(resources)),
        Event::Routes(resources) => {
            let clusters = |table: &RouteTable| table.clusters().map(|(_, name)| name.to_string()).collect::<Vec<_>>();
            let tables = resources.iter().map(|table| format!("{} {:?}", table.name, clusters(&table.config)));
            format!("routes {}", tables.collect::<Vec<_>>().join(", "))
        }
        Event::ClusterPrepared { .. } | Event::AnswerRefused(_) | Event::ListenerRefused(_) | Event::Time => {
            format!("{event:?}")
        }
    }
}

fn port_of(listener: &str) -> u16 {
    8000 + u16::from(listener.as_bytes()[0])
}

/// A control plane, the machine under test and the model, with a clock.
struct Play {
    random: fastrand::Rng,
    control_plane: ControlPlane,
    warming: Warming,
    data_path: DataPath,
    begun: Instant,
    now: Instant,
    /// Listeners that every configuration under way has: they serve all the time.
    lasting: BTreeSet<&'static str>,
    /// What happened, to be read when a test fails.
    story: Vec<String>,
}

impl Play {
    fn start(seed: u64) -> Play {
        let source = DiscoverySource { initial_fetch_timeout: Some(FETCH_TIMEOUT) };
        let now = Instant::now();
        let start = Start { clusters: vec![], listeners: vec![], cds: Some(source.clone()), lds: Some(source) };
        let (warming, _) = Warming::start(start, now);
        let control_plane = ControlPlane {
            wanted: Wanted::default(),
            answers: BTreeMap::new(),
            listeners_asked: false,
            endpoints_asked: BTreeSet::new(),
            routes_asked: BTreeSet::new(),
        };
        let random = fastrand::Rng::with_seed(seed);
        Play {
            random,
            control_plane,
            warming,
            data_path: DataPath::default(),
            begun: now,
            now,
            lasting: BTreeSet::new(),
            story: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) -> Result<(), TestCaseError> {
        self.story.push(format!("{:?} {}", self.now - self.begun, short_event(&event)));
        let outcome = self.warming.on(event, self.now);
        prop_assert!(outcome.refusals.is_empty());
        for action in &outcome.actions {
            self.story.push(format!("    {}", short(action)));
            self.data_path.carry_out(action);
            self.data_path.try_requests()?;
            for name in &self.lasting {
                prop_assert!(self.data_path.listeners.contains_key(*name), "{name} refuses connections");
            }
            self.control_plane.asked(action, &mut self.random);
        }
        Ok(())
    }

    /// Time goes on; whatever is due happens on the way.
    fn wait(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let until = self.now + time;
        while let Some(deadline) = self.warming.deadline(self.now).filter(|deadline| *deadline <= until) {
            prop_assert!(deadline > self.now || self.now == until, "the clock must move");
            self.now = deadline.max(self.now);
            self.on(Event::Time)?;
        }
        self.now = until;
        Ok(())
    }

    fn change(&mut self) {
        let wanted = Wanted::random(&self.control_plane.wanted, &mut self.random);
        self.story.push(format!("change to {wanted:?}"));
        self.lasting.retain(|name| wanted.listeners.contains_key(name));
        self.control_plane.push(wanted, &mut self.random);
    }

    /// One answer arrives. A few hundred of them take less than answers of one change may be apart.
    fn deliver(&mut self) -> Result<(), TestCaseError> {
        if let Some(event) = self.control_plane.next(&mut self.random) {
            self.on(event)?;
        }
        let pause = Duration::from_millis(self.random.u64(0..40));
        self.wait(pause)
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        self.change();
        for _ in 0..12 {
            self.settle()?;
            for _ in 0..self.random.u8(1..5) {
                self.change();
                for _ in 0..self.random.u8(0..4) {
                    self.deliver()?;
                }
            }
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        while self.control_plane.under_way() > 0 {
            self.deliver()?;
        }
        // Long enough for everything that is kept for a moment, and for nothing that waits for its timeout.
        self.wait(ORDER_GRACE * 3)?;
        prop_assert_eq!(self.control_plane.under_way(), 0);
        self.data_path.is(&self.control_plane.wanted)?;
        self.lasting = self.control_plane.wanted.listeners.keys().copied().collect();
        Ok(())
    }
}

proptest! {
    /// The next change is pushed while answers of the ones before are still under way.
    #[test]
    fn no_order_of_answers_leaves_a_request_without_a_host(seed: u64) {
        let mut play = Play::start(seed);
        if let Err(error) = play.run() {
            return Err(TestCaseError::fail(format!("{error}\n{}", play.story.join("\n"))));
        }
    }
}
