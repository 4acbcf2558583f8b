//! Versions: a function of the content alone, so that every replica gives the same ones, today and after a restart.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::translate::resource::Resource;

/// The version of a set of resources. The order of adding does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(u64);

impl Version {
    /// The length of what `Display` writes.
    pub const TEXT_BYTES: usize = 16;

    pub fn of(resource: &Resource) -> Self {
        Self(resource.hash)
    }

    /// Adds a resource to a set. A sum commutes, and can be taken back; the name is mixed in so that two resources that
    /// swap their contents change it.
    pub fn add(&mut self, name: &str, version: Self) {
        self.0 = self.0.wrapping_add(xxh3_64_with_seed(name.as_bytes(), version.0));
    }

    /// Takes a resource out of a set again.
    pub fn subtract(&mut self, name: &str, version: Self) {
        self.0 = self.0.wrapping_sub(xxh3_64_with_seed(name.as_bytes(), version.0));
    }

    /// What a peer says that it has; `None` is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().filter(|_| text.len() == Self::TEXT_BYTES).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use weft_xds::pb::envoy::config::cluster::v3::Cluster;

    use super::*;

    fn cluster(name: &str, alt_stat_name: &str) -> Resource {
        let alt_stat_name = alt_stat_name.to_owned();
        Resource::cluster(Cluster { name: name.to_owned(), alt_stat_name, ..Cluster::default() })
    }

    #[test]
    fn order_does_not_matter_and_content_does() {
        let (a, b) = (cluster("a", "1"), cluster("b", "2"));
        let version = |resources: &[&Resource]| {
            let mut version = Version::default();
            resources.iter().for_each(|resource| version.add(&resource.name, Version::of(resource)));
            version
        };
        assert_eq!(version(&[&a, &b]), version(&[&b, &a]));
        assert_ne!(version(&[&a, &b]), version(&[&a]));
        assert_ne!(version(&[&a, &b]), version(&[&cluster("a", "2"), &cluster("b", "1")]));
    }

    #[test]
    fn what_was_added_can_be_taken_back() {
        let (mut version, a) = (Version::default(), cluster("a", "1"));
        version.add(&a.name, Version::of(&a));
        version.subtract(&a.name, Version::of(&a));
        assert_eq!(version, Version::default());
    }

    #[test]
    fn what_is_printed_is_read_back_and_other_texts_are_not() {
        let version = Version::of(&cluster("a", "1"));
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse(""), None);
        assert_eq!(Version::parse("1"), None);
        assert_eq!(Version::parse("not-a-version-of-us"), None);
    }
}
