//! Which resources a client wants: names, or all there are. Pure.
//!
//! A request without names asks for all listeners or clusters only until a name was sent on its stream (the "legacy"
//! wildcard); from then on `*` says it.

use std::collections::HashSet;

/// The name that stands for all resources.
pub const WILDCARD: &str = "*";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    names: HashSet<String>,
    wildcard: bool,
    /// A name was sent on this stream, so that an empty list means none.
    named_once: bool,
}

/// What a request changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterestChange {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub wildcard_added: bool,
    pub wildcard_removed: bool,
}

impl Interest {
    pub fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names asked for one by one, without the wildcard.
    pub fn names(&self) -> &HashSet<String> {
        &self.names
    }

    pub fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    /// State of the world: the request's names are all that is wanted. `all_without_names` where the kind has the legacy
    /// wildcard.
    pub fn replace(&mut self, names: Vec<String>, all_without_names: bool) -> InterestChange {
        self.named_once |= !names.is_empty();
        let mut wanted = names.into_iter().collect::<HashSet<_>>();
        let wildcard = wanted.remove(WILDCARD) || (all_without_names && !self.named_once);
        let change = InterestChange {
            added: wanted.difference(&self.names).cloned().collect(),
            removed: self.names.difference(&wanted).cloned().collect(),
            wildcard_added: wildcard && !self.wildcard,
            wildcard_removed: !wildcard && self.wildcard,
        };
        self.names = wanted;
        self.wildcard = wildcard;
        change
    }

    /// Delta: the request says what changes. `is_first` is the first request of the kind on its stream.
    pub fn amend(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        is_first: bool,
        all_without_names: bool,
    ) -> InterestChange {
        let mut change = InterestChange::default();
        if is_first && all_without_names && subscribe.is_empty() {
            self.wildcard = true;
            change.wildcard_added = true;
        }
        for name in subscribe {
            if name == WILDCARD {
                change.wildcard_added |= !self.wildcard;
                self.wildcard = true;
            } else {
                // Also if it was there: asking again means that it is to be sent again.
                self.names.insert(name.clone());
                change.added.push(name.clone());
            }
        }
        for name in unsubscribe {
            if name == WILDCARD {
                change.wildcard_removed |= self.wildcard;
                self.wildcard = false;
            } else if self.names.remove(name) || self.wildcard {
                change.removed.push(name.clone());
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_names_mean_everything_until_a_name_was_sent() {
        let mut interest = Interest::default();
        assert!(interest.replace(names(&[]), true).wildcard_added);
        assert!(interest.wants("anything"));
        interest.replace(names(&["a"]), true);
        assert!(interest.wants("a") && !interest.wants("b"));
        let change = interest.replace(names(&[]), true);
        assert_eq!(change.removed, names(&["a"]));
        assert!(!interest.wants("a") && !interest.wants("b"), "an empty list is none by now");
    }

    #[test]
    fn a_star_is_everything_at_any_time() {
        let mut interest = Interest::default();
        interest.replace(names(&["a"]), true);
        interest.replace(names(&["*", "a"]), true);
        assert!(interest.wants("b"));
        assert!(interest.replace(names(&["a"]), true).wildcard_removed);
        assert!(!interest.wants("b"));
    }

    #[test]
    fn other_kinds_have_no_wildcard_of_no_names() {
        let mut interest = Interest::default();
        interest.replace(names(&[]), false);
        assert!(interest.is_empty());
    }

    #[test]
    fn delta_starts_as_a_wildcard_only_in_its_first_request() {
        let mut interest = Interest::default();
        assert!(interest.amend(&[], &[], true, true).wildcard_added);
        assert!(interest.is_wildcard());
        let mut interest = Interest::default();
        interest.amend(&names(&["a"]), &[], true, true);
        interest.amend(&[], &[], false, true);
        assert!(!interest.is_wildcard());
    }

    #[test]
    fn delta_tells_of_names_asked_for_again_and_of_names_that_the_star_covers() {
        let mut interest = Interest::default();
        interest.amend(&names(&["*", "a"]), &[], true, true);
        assert_eq!(interest.amend(&names(&["a"]), &[], false, true).added, names(&["a"]));
        assert_eq!(interest.amend(&[], &names(&["a", "b"]), false, true).removed, names(&["a", "b"]));
        assert!(interest.wants("a"));
        assert!(interest.amend(&[], &names(&["*"]), false, true).wildcard_removed);
        assert!(!interest.wants("a"));
    }
}
