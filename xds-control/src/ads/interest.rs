//! Which resources a client wants: names, or all there are. Pure.
//!
//! A request without names asks for all listeners or clusters only until a name was sent on its stream (the "legacy"
//! wildcard); from then on `*` says it.

use std::collections::HashSet;
use std::sync::Arc;

/// The name that stands for all resources.
pub const WILDCARD: &str = "*";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Shared with the resources of these names, where there are any.
    names: HashSet<Arc<str>>,
    wildcard: bool,
    /// A name was sent on this stream, so that an empty list means none.
    named_once: bool,
}

/// What a request changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterestChange {
    pub added: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
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
    pub fn names(&self) -> &HashSet<Arc<str>> {
        &self.names
    }

    pub fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    /// State of the world: the request's names are all that is wanted. `all_without_names` where the kind has the legacy
    /// wildcard. Gives the new interest, as what was held by the old one is still of interest.
    pub fn replaced(&self, names: Vec<Arc<str>>, all_without_names: bool) -> (Self, InterestChange) {
        let named_once = self.named_once || !names.is_empty();
        let mut wanted = names.into_iter().collect::<HashSet<_>>();
        let wildcard = wanted.remove(WILDCARD) || (all_without_names && !named_once);
        let change = InterestChange {
            added: wanted.difference(&self.names).cloned().collect(),
            removed: self.names.difference(&wanted).cloned().collect(),
            wildcard_added: wildcard && !self.wildcard,
            wildcard_removed: !wildcard && self.wildcard,
        };
        (Self { names: wanted, wildcard, named_once }, change)
    }

    /// Delta: the request says what changes. `is_first` is the first request of the kind on its stream.
    pub fn amend(
        &mut self,
        subscribe: &[Arc<str>],
        unsubscribe: &[Arc<str>],
        is_first: bool,
        all_without_names: bool,
    ) -> InterestChange {
        let mut change = InterestChange::default();
        if is_first && all_without_names && subscribe.is_empty() {
            self.wildcard = true;
            change.wildcard_added = true;
        }
        for name in subscribe {
            if **name == *WILDCARD {
                change.wildcard_added |= !self.wildcard;
                self.wildcard = true;
            } else {
                // Also if it was there: asking again means that it is to be sent again.
                self.names.insert(name.clone());
                change.added.push(name.clone());
            }
        }
        for name in unsubscribe {
            if **name == *WILDCARD {
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

    fn names(list: &[&str]) -> Vec<Arc<str>> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    /// Replaces it for good.
    fn replace(interest: &mut Interest, names: Vec<Arc<str>>, all_without_names: bool) -> InterestChange {
        let (next, change) = interest.replaced(names, all_without_names);
        *interest = next;
        change
    }

    #[test]
    fn no_names_mean_everything_until_a_name_was_sent() {
        let mut interest = Interest::default();
        assert!(replace(&mut interest, names(&[]), true).wildcard_added);
        assert!(interest.wants("anything"));
        replace(&mut interest, names(&["a"]), true);
        assert!(interest.wants("a") && !interest.wants("b"));
        let change = replace(&mut interest, names(&[]), true);
        assert_eq!(change.removed, names(&["a"]));
        assert!(!interest.wants("a") && !interest.wants("b"), "an empty list is none by now");
    }

    #[test]
    fn a_star_is_everything_at_any_time() {
        let mut interest = Interest::default();
        replace(&mut interest, names(&["a"]), true);
        replace(&mut interest, names(&["*", "a"]), true);
        assert!(interest.wants("b"));
        assert!(replace(&mut interest, names(&["a"]), true).wildcard_removed);
        assert!(!interest.wants("b"));
    }

    #[test]
    fn a_name_given_twice_hides_no_other() {
        let mut interest = Interest::default();
        replace(&mut interest, names(&["a", "b"]), false);
        assert_eq!(replace(&mut interest, names(&["a", "a"]), false).removed, names(&["b"]));
    }

    #[test]
    fn other_kinds_have_no_wildcard_of_no_names() {
        let mut interest = Interest::default();
        replace(&mut interest, names(&[]), false);
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
