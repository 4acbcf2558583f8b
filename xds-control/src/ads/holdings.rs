//! What a client was sent of one kind, by name. Pure.
//!
//! A client that has everything is described by the view that it has everything of, which it shares with all others; only
//! where it differs from that are there entries of its own. So a thousand clients of a large mesh cost little more than
//! one, but for the names that they subscribe to.

use std::collections::HashMap;
use std::sync::Arc;

use super::interest::Interest;
use crate::snapshot::View;
use crate::snapshot::version::Version;

#[derive(Debug, Default)]
pub struct Holdings {
    /// Whatever of it is wanted is held, but for `differing`.
    base: View,
    /// `None`: not held.
    differing: HashMap<Arc<str>, Option<Version>>,
    /// Of everything that is held.
    total: Version,
}

impl Holdings {
    pub fn total(&self) -> Version {
        self.total
    }

    pub fn version_of(&self, name: &str, interest: &Interest) -> Option<Version> {
        match self.differing.get(name) {
            Some(version) => *version,
            None if interest.wants(name) => self.base.lookup(name).map(|resource| Version::of(resource)),
            None => None,
        }
    }

    pub fn names(&self, interest: &Interest) -> Vec<Arc<str>> {
        let of_base = |name: &Arc<str>| interest.wants(name) && !self.differing.contains_key(name);
        let base = self.base.iter().map(|resource| &resource.name).filter(|name| of_base(name));
        let others = self.differing.iter().filter(|(_, version)| version.is_some()).map(|(name, _)| name);
        base.chain(others).cloned().collect()
    }

    pub fn insert(&mut self, name: Arc<str>, version: Version, interest: &Interest) {
        self.remove(name.clone(), interest);
        self.total.add(&name, version);
        self.differing.insert(name, Some(version));
    }

    pub fn remove(&mut self, name: Arc<str>, interest: &Interest) {
        if let Some(version) = self.version_of(&name, interest) {
            self.total.subtract(&name, version);
        }
        self.differing.insert(name, None);
    }

    /// To be called before an interest changes between names and everything: what is held becomes independent of it.
    pub fn detach(&mut self, interest: &Interest) {
        for name in self.names(interest) {
            let version = self.version_of(&name, interest);
            self.differing.insert(name, version);
        }
        self.base = View::default();
    }

    /// To be called when exactly the wanted resources of `view` are held.
    pub fn settle(&mut self, view: &View) {
        self.base = view.clone();
        // Not cleared: that would keep its memory.
        self.differing = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use weft_xds::pb::envoy::config::cluster::v3::Cluster;

    use super::*;
    use crate::snapshot::{Sets, Snapshot};
    use crate::translate::resource::{Kind, Resource};

    fn view(names: &[&str]) -> View {
        let cluster = |name: &&str| Resource::cluster(Cluster { name: name.to_string(), ..Cluster::default() });
        let (shared, _) = Sets::sort(names.iter().map(cluster).collect());
        Snapshot { shared, particular: Sets::default(), own: Sets::default() }.view(Kind::Cluster)
    }

    fn names(holdings: &Holdings, interest: &Interest) -> Vec<String> {
        let mut names = holdings.names(interest).iter().map(ToString::to_string).collect::<Vec<_>>();
        names.sort();
        names
    }

    #[test]
    fn a_settled_client_holds_what_it_wants_of_the_view() {
        let (mut holdings, mut interest, view) = (Holdings::default(), Interest::default(), view(&["a", "b"]));
        interest = interest.replaced(vec!["a".into(), "c".into()], false).0;
        let version = Version::of(view.lookup("a").unwrap());
        holdings.insert("a".into(), version, &interest);
        let total = holdings.total();
        holdings.settle(&view);
        assert_eq!(holdings.version_of("a", &interest), Some(version));
        assert_eq!(holdings.version_of("b", &interest), None);
        assert_eq!(names(&holdings, &interest), ["a"]);
        holdings.remove("a".into(), &interest);
        assert_eq!((holdings.version_of("a", &interest), holdings.total()), (None, Version::default()));
        holdings.insert("a".into(), version, &interest);
        assert_eq!(holdings.total(), total);
    }

    #[test]
    fn what_is_held_outlives_a_change_to_everything() {
        let (mut holdings, mut interest, view) = (Holdings::default(), Interest::default(), view(&["a", "b"]));
        interest = interest.replaced(vec!["a".into()], true).0;
        holdings.settle(&view);
        holdings.detach(&interest);
        interest = interest.replaced(vec!["*".into()], true).0;
        assert_eq!(names(&holdings, &interest), ["a"]);
        assert_eq!(holdings.version_of("b", &interest), None);
    }
}
