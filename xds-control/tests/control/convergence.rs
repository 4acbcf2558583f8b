//! Any history of edits ends in what a fresh start on the final folder gives, and every state on the way is whole: a
//! client that uses what it has the moment that it has it never finds a name that leads nowhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_control::ads::node::Node;
use weft_control::ads::session::Session;
use weft_control::ads::stream::snapshot_of;
use weft_control::ads::subscription::{Request, RequestNames, Response, Variant};
use weft_control::model::registry::Registry;
use weft_control::snapshot::Snapshot;
use weft_control::snapshot::consistency::{self, references};
use weft_control::snapshot::shared::Translator;
use weft_control::source::manifests::{Changes, Folder};
use weft_control::translate::resource::{Kind, Resource};
use weft_control::translate::{LoadBalancing, MeshSettings, OutboundPolicy};

use crate::harness::{NODE, node};

const HISTORIES: u64 = 24;
const EDITS: usize = 60;

/// Everything between the files and the snapshots.
struct Plane {
    folder: Folder,
    registry: Registry,
    translator: Translator,
    node: Node,
}

impl Plane {
    fn new(root: PathBuf) -> Self {
        let settings = MeshSettings {
            cluster_domain: "cluster.local".to_owned(),
            outbound_policy: OutboundPolicy::AllowAny,
            load_balancing: LoadBalancing::LeastRequest,
            access_log: None,
            detection_timeout: Duration::from_millis(100),
        };
        Self {
            folder: Folder::new(root),
            registry: Registry::default(),
            translator: Translator::new(Arc::new(settings)),
            node: Node::parse(node(NODE).as_ref()).unwrap(),
        }
    }

    /// After something happened at `paths` only.
    fn update(&mut self, paths: &HashSet<PathBuf>) -> Snapshot {
        let changes = self.folder.update(paths, &HashSet::new()).expect("files come and go, folders don't");
        self.publish(changes)
    }

    fn snapshot(&mut self) -> Snapshot {
        let changes = self.folder.rescan(&HashSet::new()).unwrap();
        self.publish(changes)
    }

    fn publish(&mut self, changes: Changes) -> Snapshot {
        changes.removed.iter().for_each(|key| self.registry.remove(key));
        changes.inserted.into_iter().for_each(|object| self.registry.insert(object));
        let snapshot = snapshot_of(&self.node, &self.translator.update(&self.registry.publish()).shared);
        assert_eq!(consistency::check(&snapshot).unwrap(), []);
        snapshot
    }
}

/// A client that warms clusters and listeners as Envoy does, and answers when it pleases.
struct Client {
    variant: Variant,
    session: Session,
    resources: HashMap<Kind, BTreeMap<Arc<str>, Arc<Resource>>>,
    asked: HashMap<Kind, BTreeSet<String>>,
    unanswered: HashMap<Kind, String>,
    /// Clusters that were warm once: while a changed one gets warm, the one before goes on serving.
    serving: BTreeSet<Arc<str>>,
    now: Instant,
}

impl Client {
    fn new(variant: Variant, snapshot: Snapshot) -> Self {
        let session = Session::new(variant, 1, snapshot);
        let mut client = Self {
            variant,
            session,
            resources: HashMap::new(),
            asked: HashMap::new(),
            unanswered: HashMap::new(),
            serving: BTreeSet::new(),
            now: Instant::now(),
        };
        client.ask(Kind::Cluster, &[], &[], "");
        client.ask(Kind::Listener, &[], &[], "");
        client
    }

    fn ask(&mut self, kind: Kind, added: &[String], removed: &[String], nonce: &str) {
        let all = self.asked.entry(kind).or_default().iter().cloned().collect();
        let names = match self.variant {
            Variant::StateOfTheWorld => RequestNames::All(all),
            Variant::Delta => RequestNames::Delta {
                subscribe: added.to_vec(),
                unsubscribe: removed.to_vec(),
                initial_versions: HashMap::new(),
            },
        };
        self.session.request(kind, Request { nonce: nonce.to_owned(), error: None, names });
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.resources.get(&kind).is_some_and(|resources| resources.contains_key(name))
    }

    fn take(&mut self, response: Response) {
        let Response { kind, nonce, version: _, resources, removed } = response;
        let known = self.resources.entry(kind).or_default();
        if self.variant == Variant::StateOfTheWorld && kind.absence_deletes() {
            known.clear();
        }
        removed.iter().for_each(|name| _ = known.remove(name.as_str()));
        for resource in resources {
            known.insert(resource.name.clone(), resource);
        }
        self.unanswered.insert(kind, nonce);
        let clusters = self.resources.get(&Kind::Cluster).cloned().unwrap_or_default();
        self.serving.retain(|name| clusters.contains_key(name));
        match kind {
            Kind::Cluster => self.follow(Kind::Cluster, Kind::Endpoints),
            Kind::Listener => self.follow(Kind::Listener, Kind::Route),
            Kind::Endpoints | Kind::Route | Kind::Secret | Kind::ExtensionConfig => {}
        }
        let warm = clusters.values().filter(|cluster| self.is_warm(cluster)).map(|cluster| cluster.name.clone());
        self.serving.extend(warm.collect::<Vec<_>>());
    }

    /// Asks for exactly what resources of one kind refer to in another.
    fn follow(&mut self, from: Kind, to: Kind) {
        let resources = self.resources[&from].values();
        let wanted = resources.flat_map(|resource| references(resource).unwrap());
        let wanted = wanted.filter(|(kind, _)| *kind == to).map(|(_, name)| name).collect::<BTreeSet<_>>();
        let before = self.asked.insert(to, wanted.clone()).unwrap_or_default();
        let added = wanted.difference(&before).cloned().collect::<Vec<_>>();
        let removed = before.difference(&wanted).cloned().collect::<Vec<_>>();
        if added.is_empty() && removed.is_empty() {
            return;
        }
        removed.iter().for_each(|name| {
            self.resources.entry(to).or_default().remove(name.as_str());
        });
        let nonce = self.unanswered.get(&to).cloned().or_else(|| self.last_nonce(to)).unwrap_or_default();
        let nonce = if self.variant == Variant::Delta { String::new() } else { nonce };
        self.ask(to, &added, &removed, &nonce);
        if self.variant == Variant::StateOfTheWorld {
            self.unanswered.remove(&to);
        }
    }

    /// A state-of-the-world request carries the nonce of the last response even if that was answered already.
    fn last_nonce(&self, kind: Kind) -> Option<String> {
        self.session.subscription(kind)?.last_nonce().map(ToOwned::to_owned)
    }

    fn is_warm(&self, cluster: &Resource) -> bool {
        references(cluster).unwrap().iter().all(|(kind, name)| self.has(*kind, name))
    }

    /// Answers one kind, if there is something to answer. Clusters only once they are warm.
    fn answer(&mut self, kind: Kind) -> bool {
        let clusters = self.resources.get(&Kind::Cluster);
        if kind == Kind::Cluster && !clusters.is_none_or(|known| known.values().all(|cluster| self.is_warm(cluster))) {
            return false;
        }
        let Some(nonce) = self.unanswered.remove(&kind) else { return false };
        self.ask(kind, &[], &[], &nonce);
        true
    }

    /// What is in use leads to clusters that are there and warm.
    fn check(&self, history: &str) {
        let listeners = self.resources.get(&Kind::Listener).into_iter().flat_map(BTreeMap::values);
        for listener in listeners {
            let mut used = references(listener).unwrap();
            // A listener without its routes is warming and carries nothing.
            if used.iter().any(|(kind, name)| *kind == Kind::Route && !self.has(Kind::Route, name)) {
                continue;
            }
            let routes = used.iter().filter(|(kind, _)| *kind == Kind::Route);
            let of_routes =
                routes.flat_map(|(_, name)| references(&self.resources[&Kind::Route][name.as_str()]).unwrap());
            let of_routes = of_routes.collect::<Vec<_>>();
            used.extend(of_routes);
            for (_, cluster) in used.iter().filter(|(kind, _)| *kind == Kind::Cluster) {
                let known = self.resources.get(&Kind::Cluster).and_then(|known| known.get(cluster.as_str()));
                let known = known
                    .unwrap_or_else(|| panic!("{history}: {} leads to {cluster}, which is not there", listener.name));
                let serves = self.serving.contains(&known.name);
                assert!(serves, "{history}: {} leads to {cluster}, which is not warm", listener.name);
            }
        }
    }

    /// Takes and answers everything that there is.
    fn settle(&mut self, history: &str) {
        loop {
            let response = self.session.next_response(self.now);
            let took = response.is_some();
            if let Some(response) = response {
                self.take(response);
                self.check(history);
            }
            let answered = Kind::ALL.into_iter().filter(|kind| self.answer(*kind)).count();
            if !took && answered == 0 {
                // A cluster that was gone again before its endpoints were asked for never gets warm: time decides.
                match self.session.wake_at(self.now) {
                    Some(wake_at) => self.now = wake_at,
                    None => return,
                }
            }
        }
    }
}

fn random_manifest(random: &mut fastrand::Rng, index: usize) -> String {
    let name = ["http", "tcp", "grpc", "x", "https"][random.usize(0..5)];
    let port = [80, 81][random.usize(0..2)];
    let reached_by = match random.u8(0..8) {
        0 | 1 => "clusterIP: None".to_owned(),
        2 => "type: ExternalName, externalName: x.example".to_owned(),
        _ => format!("clusterIP: 10.96.0.{}", random.u8(1..9)),
    };
    let wish =
        ["", ", sessionAffinity: ClientIP", ", internalTrafficPolicy: Local", ", trafficDistribution: PreferClose"]
            [random.usize(0..4)];
    let seen_by = ["*", "*", ".", "elsewhere", "~"][random.usize(0..5)];
    let endpoint = |random: &mut fastrand::Rng| {
        let (address, zone, node) = (random.u8(1..20), ["a", "b"][random.usize(0..2)], random.u8(1..3));
        let hints = if random.u8(0..4) == 0 { ", hints: {forZones: [{name: a}]}" } else { "" };
        format!("{{addresses: [10.0.0.{address}], zone: {zone}, nodeName: n{node}{hints}}}")
    };
    let endpoints = (0..random.usize(0..4)).map(|_| endpoint(random)).collect::<Vec<_>>().join(", ");
    let slice = format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{endpoints}], \
         metadata: {{name: s{index}, namespace: shop, labels: {{kubernetes.io/service-name: s{index}}}}}, \
         ports: [{{name: {name}, port: 8080}}]}}\n"
    );
    // Pods stand in where there is no slice.
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p{index}, namespace: shop, labels: {{app: a{}}}}}, \
         spec: {{nodeName: n{}, containers: []}}, status: {{podIP: 10.0.1.{}}}}}\n",
        random.u8(0..3),
        random.u8(1..3),
        random.u8(1..9)
    );
    format!(
        "{{apiVersion: v1, kind: Service, \
         metadata: {{name: s{index}, namespace: shop, annotations: {{networking.istio.io/exportTo: '{seen_by}'}}}}, \
         spec: {{{reached_by}, selector: {{app: a{}}}, ports: [{{name: {name}, port: {port}}}]{wish}}}}}\n---\n{}",
        random.u8(0..3),
        if random.bool() { slice } else { pod }
    )
}

/// One random edit, and where; broken files are mended before the end.
fn edit(random: &mut fastrand::Rng, folder: &TempDir, allow_broken: bool) -> PathBuf {
    let index = random.usize(0..6);
    let path = folder.path().join(format!("s{index}.yaml"));
    match random.u8(0..10) {
        0 | 1 => _ = std::fs::remove_file(&path),
        2 if allow_broken => std::fs::write(&path, "{apiVersion: v1, kind: Service, spec: [").unwrap(),
        _ => std::fs::write(&path, random_manifest(random, index)).unwrap(),
    }
    path
}

fn walk(variant: Variant, seed: u64) {
    let history = format!("{variant:?}, seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut plane = Plane::new(folder.path().to_owned());
    let mut client = Client::new(variant, plane.snapshot());
    for _ in 0..EDITS {
        let path = edit(&mut random, &folder, true);
        client.session.set_snapshot(match random.bool() {
            true => plane.update(&HashSet::from([path])),
            false => plane.snapshot(),
        });
        for _ in 0..random.usize(0..12) {
            if random.bool() {
                if let Some(response) = client.session.next_response(client.now) {
                    client.take(response);
                    client.check(&history);
                }
            } else {
                client.answer(Kind::ALL[random.usize(0..4)]);
            }
        }
    }
    for index in 0..6 {
        // Whatever was broken is whole in the end.
        std::fs::write(folder.path().join(format!("s{index}.yaml")), random_manifest(&mut random, index)).unwrap();
    }
    edit(&mut random, &folder, false);
    client.session.set_snapshot(plane.snapshot());
    client.settle(&history);

    let mut fresh = Client::new(variant, Plane::new(folder.path().to_owned()).snapshot());
    fresh.settle(&history);
    for kind in Kind::ALL {
        let of = |client: &Client| {
            let resources = client.resources.get(&kind).into_iter().flat_map(BTreeMap::values);
            resources.map(|resource| (resource.name.clone(), resource.hash)).collect::<Vec<_>>()
        };
        assert_eq!(of(&client), of(&fresh), "{history}: {kind:?}");
        // One that has ended its subscription and one that never began it both hold nothing.
        let version = |client: &Client| {
            client
                .session
                .subscription(kind)
                .map(|held| held.held_version().to_string())
                .filter(|_| !of(client).is_empty())
        };
        assert_eq!(version(&client), version(&fresh), "{history}: {kind:?}");
    }
}

#[test]
fn any_history_of_edits_ends_in_a_fresh_start() {
    for seed in 0..HISTORIES {
        walk(Variant::StateOfTheWorld, seed);
        walk(Variant::Delta, seed);
    }
}
