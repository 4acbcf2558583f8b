//! Resources that are to go unless the control plane says that they may stay (TTL). Pure.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{config::config_source::SourceOrigin, xds::kind::ResourceKind};

type Key = (ResourceKind, SourceOrigin, Arc<str>);

#[derive(Debug, Default)]
pub struct Expiries {
    lives: HashMap<Key, Life>,
    by_end: BTreeSet<(Instant, Key)>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    ends: Instant,
    ttl: Duration,
}

impl Expiries {
    /// The resource came, to stay for `ttl`, or for ever.
    pub fn set(
        &mut self,
        kind: ResourceKind,
        origin: &SourceOrigin,
        name: &Arc<str>,
        ttl: Option<Duration>,
        now: Instant,
    ) {
        // Most resources have no TTL: they cost a look into an empty map.
        if ttl.is_none() && self.lives.is_empty() {
            return;
        }
        let key = (kind, origin.clone(), name.clone());
        self.end(&key);
        if let Some(ttl) = ttl {
            let life = Life { ends: now + ttl, ttl };
            self.by_end.insert((life.ends, key.clone()));
            self.lives.insert(key, life);
        }
    }

    /// A heartbeat: the resource stays for another `ttl`, or for as long as was said before.
    pub fn extend(
        &mut self,
        kind: ResourceKind,
        origin: &SourceOrigin,
        name: &Arc<str>,
        ttl: Option<Duration>,
        now: Instant,
    ) {
        let known = self.lives.get(&(kind, origin.clone(), name.clone())).map(|life| life.ttl);
        if let Some(ttl) = ttl.or(known) {
            self.set(kind, origin, name, Some(ttl), now);
        }
    }

    /// The resource went otherwise.
    pub fn forget(&mut self, kind: ResourceKind, origin: &SourceOrigin, name: &Arc<str>) {
        self.set(kind, origin, name, None, Instant::now());
    }

    /// When the next one ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.by_end.first().map(|(ends, _)| *ends)
    }

    /// Takes one that ended.
    pub fn next_ended(&mut self, now: Instant) -> Option<Key> {
        self.by_end.first().filter(|(ends, _)| *ends <= now)?;
        let (_, key) = self.by_end.pop_first()?;
        self.lives.remove(&key);
        Some(key)
    }

    fn end(&mut self, key: &Key) {
        if let Some(life) = self.lives.remove(key) {
            self.by_end.remove(&(life.ends, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ResourceKind = ResourceKind::Cluster;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_resource_ends_unless_a_heartbeat_comes() {
        let (mut expiries, now) = (Expiries::default(), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        expiries.set(KIND, &SourceOrigin::Ads, &a, Some(SECOND), now);
        expiries.set(KIND, &SourceOrigin::Ads, &b, Some(SECOND * 3), now);
        assert_eq!(expiries.deadline(), Some(now + SECOND));
        expiries.extend(KIND, &SourceOrigin::Ads, &a, None, now + SECOND / 2);
        assert!(expiries.next_ended(now + SECOND).is_none());
        assert_eq!(expiries.next_ended(now + SECOND * 2).map(|(.., name)| name), Some(a.clone()));
        assert!(expiries.next_ended(now + SECOND * 2).is_none());
        // One that comes without a TTL stays.
        expiries.set(KIND, &SourceOrigin::Ads, &b, None, now);
        assert_eq!(expiries.deadline(), None);
        // What has no TTL gets none by a heartbeat that says none.
        expiries.extend(KIND, &SourceOrigin::Ads, &b, None, now);
        assert_eq!(expiries.deadline(), None);
        expiries.set(KIND, &SourceOrigin::Ads, &b, Some(SECOND), now);
        expiries.forget(KIND, &SourceOrigin::Ads, &b);
        assert_eq!(expiries.deadline(), None);
    }
}
