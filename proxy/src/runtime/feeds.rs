//! Where resources come from, at work: one feed for the aggregated stream, one for each stream and file of its own. Opens and
//! closes them as they are named, and knows what each is asked for.
//!
//! Invariant: a feed lives as long as something of it is wanted; its task ends with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use tokio::{sync::mpsc, task::AbortHandle};
use weft_xds::pb::envoy::{config::core::v3::Node, service::discovery::v3::DiscoveryResponse};

use crate::{
    args::UnknownFields,
    config::{
        bootstrap::Bootstrap,
        cluster::ClusterConfig,
        config_source::{FileSource, ResourceKey, SourceOrigin, StreamSource},
        message_file::{self, MessageFileError},
    },
    xds::{
        client::{Client, StreamEvent},
        connect::{ControlPlane, ControlPlaneError},
        exchange::{AnswerId, Exchange, Request},
        files::{FileWatcher, Watch},
        kind::{ResourceKind, aggregated_method},
        rate_limit::Bucket,
        subscription::{Interest, Verdict},
    },
};

/// Tells feeds apart, those that were closed included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeedId(u64);

/// What a feed's task says.
#[derive(Debug)]
pub(super) enum FeedEvent {
    Stream(StreamEvent),
    /// The file was read.
    File(Result<Box<DiscoveryResponse>, MessageFileError>),
}

/// The aggregated stream serves every kind, any other feed one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FeedKey {
    origin: SourceOrigin,
    kind: Option<ResourceKind>,
}

pub(super) struct Feeds {
    feeds: BTreeMap<FeedKey, Feed>,
    next_id: u64,
    events: mpsc::Sender<(FeedId, FeedEvent)>,
    node: Node,
    ads: Option<Arc<StreamSource>>,
    /// Those of the bootstrap that streams can go to.
    clusters: Vec<Arc<ClusterConfig>>,
    /// Started with the first file.
    watcher: Option<Arc<FileWatcher>>,
}

struct Feed {
    id: FeedId,
    source: FeedSource,
    _task: AbortOnDrop,
}

enum FeedSource {
    Stream(StreamFeed),
    File(FileFeed),
}

struct StreamFeed {
    exchange: Exchange,
    /// There while a stream is open.
    requests: Option<mpsc::Sender<Request>>,
    bucket: Option<Bucket>,
}

struct FileFeed {
    interest: Interest,
    accepted_version: String,
    wake: Arc<tokio::sync::Notify>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whose event it is.
pub(super) struct Whose {
    pub(super) origin: SourceOrigin,
    /// None: any kind's.
    pub(super) kind: Option<ResourceKind>,
}

impl Feeds {
    pub(super) fn new(bootstrap: &Bootstrap, events: mpsc::Sender<(FeedId, FeedEvent)>) -> Feeds {
        Feeds {
            feeds: BTreeMap::new(),
            next_id: 0,
            events,
            node: bootstrap.node.clone(),
            ads: bootstrap.ads.clone(),
            clusters: bootstrap.clusters.clone(),
            watcher: None,
        }
    }

    /// Why nothing can come from there.
    pub(super) fn check(&self, key: &ResourceKey) -> Option<String> {
        match &key.origin {
            SourceOrigin::Bootstrap | SourceOrigin::File(_) => None,
            SourceOrigin::Ads if self.ads.is_some() => None,
            SourceOrigin::Ads => Some("ADS must be configured to support an ADS config source".to_owned()),
            SourceOrigin::Stream(source) => self.control_plane(source).err().map(|error| error.to_string()),
        }
    }

    /// The aggregated stream is there whether something comes by it or not.
    pub(super) fn open_aggregated(&mut self) -> Result<(), ControlPlaneError> {
        let key = FeedKey { origin: SourceOrigin::Ads, kind: None };
        if let Some(source) = &self.ads
            && !self.feeds.contains_key(&key)
        {
            self.control_plane(source)?;
            match self.open(&key) {
                Ok(feed) => drop(self.feeds.insert(key, feed)),
                Err(reason) => tracing::error!(reason, "there is no aggregated stream"),
            }
        }
        Ok(())
    }

    /// Everything of this kind is wanted.
    pub(super) fn want_all(&mut self, kind: ResourceKind, origin: &SourceOrigin) {
        self.set_interest(kind, origin, Interest::Wildcard);
    }

    /// Exactly these are wanted of this kind, from wherever they come.
    pub(super) fn want(&mut self, kind: ResourceKind, keys: &BTreeSet<ResourceKey>) {
        let mut by_origin: BTreeMap<SourceOrigin, BTreeSet<Arc<str>>> = BTreeMap::new();
        for key in keys.iter().filter(|key| key.origin != SourceOrigin::Bootstrap) {
            by_origin.entry(key.origin.clone()).or_default().insert(key.name.clone());
        }
        let serving = self.feeds.iter().filter(|(_, feed)| !feed.interest(kind).is_nothing());
        let abandoned: Vec<SourceOrigin> =
            serving.map(|(key, _)| key.origin.clone()).filter(|origin| !by_origin.contains_key(origin)).collect();
        for origin in abandoned {
            self.set_interest(kind, &origin, Interest::nothing());
        }
        for (origin, names) in by_origin {
            self.set_interest(kind, &origin, Interest::Names(names));
        }
    }

    pub(super) fn request_again(&mut self, kind: ResourceKind, keys: &[ResourceKey]) {
        let mut origins: Vec<&SourceOrigin> = keys.iter().map(|key| &key.origin).collect();
        origins.dedup();
        for origin in origins {
            let Some(feed) = self.feeds.get_mut(&FeedKey::of(origin, kind)) else { continue };
            let names: Vec<Arc<str>> =
                keys.iter().filter(|key| key.origin == *origin).map(|key| key.name.clone()).collect();
            match &mut feed.source {
                FeedSource::Stream(stream) => stream.exchange.request_again(kind, &names),
                FeedSource::File(file) => file.wake.notify_one(),
            }
        }
    }

    /// Nothing is acknowledged about this kind until `release`.
    pub(super) fn hold(&mut self, kind: ResourceKind) {
        self.streams().for_each(|stream| stream.exchange.hold(kind));
    }

    pub(super) fn release(&mut self, kind: ResourceKind) {
        self.streams().for_each(|stream| stream.exchange.release(kind));
    }

    /// None: it was closed meanwhile.
    pub(super) fn whose(&self, id: FeedId) -> Option<Whose> {
        let (key, _) = self.feeds.iter().find(|(_, feed)| feed.id == id)?;
        Some(Whose { origin: key.origin.clone(), kind: key.kind })
    }

    pub(super) fn opened(&mut self, id: FeedId, requests: mpsc::Sender<Request>) {
        if let Some(stream) = self.stream_mut(id) {
            stream.exchange.opened();
            stream.requests = Some(requests);
        }
    }

    /// Whether it was open.
    pub(super) fn closed(&mut self, id: FeedId) -> bool {
        let Some(stream) = self.stream_mut(id) else { return false };
        stream.exchange.closed();
        stream.requests.take().is_some()
    }

    /// The kinds that a feed is asked for.
    pub(super) fn asked_for(&self, id: FeedId) -> impl Iterator<Item = ResourceKind> {
        let feed = self.feeds.values().find(|feed| feed.id == id);
        ResourceKind::ALL.into_iter().filter(move |kind| feed.is_some_and(|feed| !feed.interest(*kind).is_nothing()))
    }

    pub(super) fn answered(
        &mut self,
        id: FeedId,
        kind: ResourceKind,
        answer: &AnswerId,
        verdict: Verdict,
        now: Instant,
    ) {
        let Some(feed) = self.feeds.values_mut().find(|feed| feed.id == id) else { return };
        match &mut feed.source {
            FeedSource::Stream(stream) => stream.exchange.answered(kind, answer, verdict, now),
            FeedSource::File(file) => {
                if verdict == Verdict::Accepted {
                    file.accepted_version.clone_from(&answer.version);
                }
            }
        }
    }

    /// Something that was accepted turned out to be unusable.
    pub(super) fn refused_late(&mut self, kind: ResourceKind, reason: &str) {
        for stream in self.streams() {
            if !stream.exchange.interest(kind).is_nothing() {
                stream.exchange.refused_late(kind, reason.to_owned());
            }
        }
    }

    /// Of a kind that comes from one place.
    pub(super) fn accepted_version(&self, kind: ResourceKind) -> &str {
        let feed = self.feeds.values().find(|feed| !feed.interest(kind).is_nothing());
        feed.map_or("", |feed| match &feed.source {
            FeedSource::Stream(stream) => stream.exchange.accepted_version(kind),
            FeedSource::File(file) => &file.accepted_version,
        })
    }

    /// When the next request may go, if one is owed and there is a stream to send it on.
    pub(super) fn due_at(&mut self, now: Instant) -> Option<Instant> {
        self.streams().filter_map(|stream| stream.due_at(now)).min()
    }

    /// Waits until something that is due can be sent, for ever if nothing is. Cancel-safe.
    pub(super) fn sendable(&mut self, now: Instant) -> impl Future<Output = Sendable> + use<> {
        let due = self.feeds.values_mut().filter_map(|feed| {
            let id = feed.id;
            let FeedSource::Stream(stream) = &mut feed.source else { return None };
            let is_due = stream.due_at(now).is_some_and(|due| due <= now);
            let requests = stream.requests.clone().filter(|_| is_due)?;
            Some(Box::pin(async move { Sendable { id, permit: requests.reserve_owned().await.ok() } }))
        });
        let due: Vec<_> = due.collect();
        async move {
            if due.is_empty() {
                return std::future::pending().await;
            }
            select_all(due).await.0
        }
    }

    pub(super) fn send(&mut self, sendable: Sendable, now: Instant) {
        let Sendable { id, permit } = sendable;
        let Some(stream) = self.stream_mut(id) else { return };
        let Some(permit) = permit else {
            // The stream is ending; its last event says so.
            stream.requests = None;
            return;
        };
        if let Some(request) = stream.exchange.next_request(now) {
            if let Some(bucket) = &mut stream.bucket {
                bucket.take(now);
            }
            permit.send(request);
        }
    }

    /// Hears of changes of a file that something from here names.
    pub(super) fn watch(&mut self, file: &FileSource) -> Option<Watch> {
        let watcher = self.watcher()?;
        watcher
            .watch(&file.path, file.watched_directory.as_deref())
            .inspect_err(|error| tracing::warn!(error = error as &dyn std::error::Error, "changes will go unnoticed"))
            .ok()
    }

    fn set_interest(&mut self, kind: ResourceKind, origin: &SourceOrigin, interest: Interest) {
        let key = FeedKey::of(origin, kind);
        if interest.is_nothing() && key.kind.is_some() {
            self.feeds.remove(&key);
            return;
        }
        if !self.feeds.contains_key(&key) {
            if interest.is_nothing() {
                return;
            }
            match self.open(&key) {
                Ok(feed) => drop(self.feeds.insert(key.clone(), feed)),
                // Whatever names it was checked before; what waits for it has its timeout.
                Err(error) => return tracing::error!(service = kind.service(), reason = error, "cannot be fetched"),
            }
        }
        if let Some(feed) = self.feeds.get_mut(&key) {
            feed.set_interest(kind, interest);
        }
    }

    fn open(&mut self, key: &FeedKey) -> Result<Feed, String> {
        let id = FeedId(self.next_id);
        self.next_id += 1;
        let source = match &key.origin {
            SourceOrigin::Bootstrap => return Err("it stands in the bootstrap".to_owned()),
            SourceOrigin::File(source) => return self.open_file(id, source),
            SourceOrigin::Ads => self.ads.clone().ok_or("there is no ads_config")?,
            SourceOrigin::Stream(source) => source.clone(),
        };
        let control_plane = self.control_plane(&source).map_err(|error| error.to_string())?;
        let method = match key.kind {
            None => aggregated_method(source.variant),
            Some(kind) => kind.method(source.variant),
        };
        let stream = StreamFeed {
            exchange: Exchange::new(self.node.clone(), &source),
            requests: None,
            bucket: source.rate_limit.map(|limit| Bucket::new(limit, Instant::now())),
        };
        let client = Client { control_plane, source, method };
        let (sender, mut receiver) = crate::xds::client::events();
        let events = self.events.clone();
        let task = tokio::spawn(async move {
            let forward = async {
                while let Some((id, event)) = receiver.recv().await {
                    if events.send((id, FeedEvent::Stream(event))).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(client.run(id, sender, fastrand::f64), forward);
        });
        let source = FeedSource::Stream(stream);
        Ok(Feed { id, source, _task: AbortOnDrop(task.abort_handle()) })
    }

    fn open_file(&mut self, id: FeedId, source: &Arc<FileSource>) -> Result<Feed, String> {
        let watch = self.watch(source).ok_or("it cannot be watched")?;
        let wake = Arc::new(tokio::sync::Notify::new());
        let file = FileFeed { interest: Interest::nothing(), accepted_version: String::new(), wake: wake.clone() };
        let task = tokio::spawn(follow(id, source.clone(), watch, wake, self.events.clone()));
        Ok(Feed { id, source: FeedSource::File(file), _task: AbortOnDrop(task.abort_handle()) })
    }

    fn control_plane(&self, source: &StreamSource) -> Result<ControlPlane, ControlPlaneError> {
        let cluster = self.clusters.iter().find(|cluster| cluster.name == source.cluster_name);
        let cluster = cluster.ok_or_else(|| ControlPlaneError::Unknown(source.cluster_name.clone()))?;
        ControlPlane::new(cluster, &source.authority)
    }

    fn watcher(&mut self) -> Option<Arc<FileWatcher>> {
        if self.watcher.is_none() {
            match FileWatcher::new() {
                Ok(watcher) => self.watcher = Some(Arc::new(watcher)),
                Err(error) => tracing::error!(%error, "files cannot be watched"),
            }
        }
        self.watcher.clone()
    }

    fn streams(&mut self) -> impl Iterator<Item = &mut StreamFeed> {
        self.feeds.values_mut().filter_map(|feed| match &mut feed.source {
            FeedSource::Stream(stream) => Some(stream),
            FeedSource::File(_) => None,
        })
    }

    fn stream_mut(&mut self, id: FeedId) -> Option<&mut StreamFeed> {
        let feed = self.feeds.values_mut().find(|feed| feed.id == id)?;
        match &mut feed.source {
            FeedSource::Stream(stream) => Some(stream),
            FeedSource::File(_) => None,
        }
    }
}

/// What can be sent, on the stream of this feed. None: the stream takes no more.
pub(super) struct Sendable {
    id: FeedId,
    permit: Option<mpsc::OwnedPermit<Request>>,
}

impl FeedKey {
    fn of(origin: &SourceOrigin, kind: ResourceKind) -> FeedKey {
        let kind = (*origin != SourceOrigin::Ads).then_some(kind);
        FeedKey { origin: origin.clone(), kind }
    }
}

impl Feed {
    fn interest(&self, kind: ResourceKind) -> &Interest {
        match &self.source {
            FeedSource::Stream(stream) => stream.exchange.interest(kind),
            FeedSource::File(file) => &file.interest,
        }
    }

    fn set_interest(&mut self, kind: ResourceKind, interest: Interest) {
        match &mut self.source {
            FeedSource::Stream(stream) => stream.exchange.set_interest(kind, interest),
            FeedSource::File(file) => {
                if file.interest != interest {
                    file.interest = interest;
                    // It may hold what is wanted now and was not before.
                    file.wake.notify_one();
                }
            }
        }
    }
}

impl StreamFeed {
    fn due_at(&mut self, now: Instant) -> Option<Instant> {
        self.requests.as_ref()?;
        let due = self.exchange.due_at(now)?;
        Some(self.bucket.as_mut().map_or(due, |bucket| due.max(bucket.ready_at(now))))
    }
}

/// Reads the file when asked to, and when it changed.
async fn follow(
    id: FeedId,
    source: Arc<FileSource>,
    watch: Watch,
    wake: Arc<tokio::sync::Notify>,
    events: mpsc::Sender<(FeedId, FeedEvent)>,
) {
    let mut seen = None;
    loop {
        let asked = tokio::select! {
            biased;
            () = wake.notified() => true,
            () = watch.changed() => false,
            () = poll_wait(source.poll_interval) => false,
        };
        let read = read(&source.path, &mut seen, asked);
        if let Some(read) = read
            && events.send((id, FeedEvent::File(read))).await.is_err()
        {
            return;
        }
    }
}

async fn poll_wait(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

/// None: it holds what it held before.
fn read(path: &Path, seen: &mut Option<u64>, asked: bool) -> Option<Result<Box<DiscoveryResponse>, MessageFileError>> {
    let bytes = match message_file::bytes(path) {
        Ok(bytes) => bytes,
        Err(error) => return Some(Err(error)),
    };
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    if seen.replace(hash) == Some(hash) && !asked {
        return None;
    }
    Some(message_file::parse(path, bytes, UnknownFields::Refused).map(Box::new))
}
