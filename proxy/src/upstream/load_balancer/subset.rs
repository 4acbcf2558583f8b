//! Subsets: parts of a cluster whose hosts share values of some metadata keys. Built with the endpoint set; looked up by
//! what a request's route asks of a host.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::Chooser;
use crate::{
    config::{
        cluster::{Fallback, LoadBalancing, LocalityPolicy, Selector, SelectorFallback, SubsetConfig},
        metadata::{Fields, LB_NAMESPACE, Value},
    },
    stats::ClusterStat,
    upstream::{
        endpoint_set::Member,
        levels::{Levels, LocalityWeights, Shape},
    },
};

pub struct Subsets {
    config: Arc<SubsetConfig>,
    /// By what their hosts share: names and values, in the order of the names.
    numbers: HashMap<Criteria, usize>,
    levels: Vec<Levels>,
    default_subset: Option<usize>,
}

pub(super) type Criteria = Vec<(Arc<str>, Value)>;

/// Where a host may come from.
pub(super) struct Candidate<'a> {
    subsets: &'a Subsets,
    from: From,
    /// What finding nobody there leads to: nothing more.
    is_final: bool,
    counted: Option<ClusterStat>,
}

#[derive(Clone, Copy)]
enum From {
    Subset(usize),
    Anywhere,
    Nowhere,
}

/// A route's own list of what to ask for in turn.
const FALLBACK_LIST: &str = "fallback_list";
/// Values that lists multiply to, for one host and selector.
const COMBINATIONS_MAX: usize = 256;

impl Subsets {
    /// None: the cluster has no subsets.
    pub fn new(members: &[Member], shape: &Shape, balancing: &LoadBalancing) -> Option<Subsets> {
        let config = balancing.subsets.clone()?;
        let mut scopes: BTreeMap<Criteria, Vec<u32>> = BTreeMap::new();
        for (index, member) in members.iter().enumerate() {
            for selector in &config.selectors {
                for criteria in shared_by(member, selector, config.list_as_any) {
                    let scope = scopes.entry(criteria).or_default();
                    let taken = selector.single_host_per_subset && !scope.is_empty();
                    if !taken && scope.last() != Some(&(index as u32)) {
                        scope.push(index as u32);
                    }
                }
            }
        }
        let weights = match (&balancing.localities, config.locality_weight_aware, config.scale_locality_weight) {
            (LocalityPolicy::Weighted, true, true) => LocalityWeights::Scaled,
            (LocalityPolicy::Weighted, true, false) => LocalityWeights::Kept,
            _ => LocalityWeights::Ignored,
        };
        let build = |scope: Vec<u32>| Levels::new(members, scope, shape, balancing, weights);
        let mut numbers = HashMap::new();
        let mut levels = Vec::new();
        for (criteria, scope) in scopes {
            numbers.insert(criteria, levels.len());
            levels.push(build(scope));
        }
        let mut default_subset = None;
        if let Fallback::DefaultSubset(wanted) = &config.fallback {
            default_subset = Some(levels.len());
            let scope = members.iter().enumerate().filter(|(_, member)| has_all(member, wanted, config.list_as_any));
            levels.push(build(scope.map(|(index, _)| index as u32).collect()));
        }
        Some(Subsets { config, numbers, levels, default_subset })
    }

    /// How many there are, without the default one.
    pub fn active(&self) -> usize {
        self.numbers.len()
    }

    /// In the order in which they are to be tried.
    pub(super) fn candidates(&self, asked: Option<&Fields>) -> impl Iterator<Item = Candidate<'_>> {
        let mut candidates = Vec::with_capacity(3);
        match self.config.fallback_list.then(|| asked.and_then(fallback_list)).flatten() {
            Some(lists) => {
                let rest = || asked.into_iter().flatten().filter(|(name, _)| &***name != FALLBACK_LIST);
                for list in lists {
                    let mut merged: Fields = rest().map(|(name, value)| (name.clone(), value.clone())).collect();
                    merged.extend(list.iter().map(|(name, value)| (name.clone(), value.clone())));
                    self.add_candidates(merged.into_iter().collect(), &mut candidates);
                }
            }
            None => {
                let asked = asked.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
                self.add_candidates(asked.collect(), &mut candidates);
            }
        }
        candidates.into_iter()
    }

    fn add_candidates<'a>(&'a self, asked: Criteria, candidates: &mut Vec<Candidate<'a>>) {
        let candidate = |from, is_final, counted| Candidate { subsets: self, from, is_final, counted };
        if let Some(number) = self.find(&asked) {
            candidates.push(candidate(From::Subset(number), true, Some(ClusterStat::LbSubsetsSelected)));
            return;
        }
        let fallback = Some(ClusterStat::LbSubsetsFallback);
        let selector = (!asked.is_empty()).then(|| self.selector_of(&asked)).flatten();
        match selector.map(|selector| &selector.fallback) {
            Some(SelectorFallback::None) => return candidates.push(candidate(From::Nowhere, true, None)),
            Some(SelectorFallback::AnyEndpoint) => {
                return candidates.push(candidate(From::Anywhere, true, fallback));
            }
            Some(SelectorFallback::DefaultSubset) => {
                let from = self.default_subset.map_or(From::Nowhere, From::Subset);
                return candidates.push(candidate(from, true, fallback));
            }
            Some(SelectorFallback::Keys(keys)) => {
                let fewer = asked.into_iter().filter(|(name, _)| keys.contains(name)).collect();
                return self.add_candidates(fewer, candidates);
            }
            Some(SelectorFallback::NotDefined) | None => {}
        }
        match (&self.config.fallback, self.default_subset) {
            (Fallback::None, _) => return candidates.push(candidate(From::Nowhere, true, None)),
            (Fallback::DefaultSubset(_), Some(number)) => {
                candidates.push(candidate(From::Subset(number), !self.config.panic_mode_any, fallback));
            }
            (Fallback::AnyEndpoint | Fallback::DefaultSubset(_), _) => {
                candidates.push(candidate(From::Anywhere, !self.config.panic_mode_any, fallback));
            }
        }
        if self.config.panic_mode_any {
            candidates.push(candidate(From::Anywhere, true, Some(ClusterStat::LbSubsetsFallbackPanic)));
        }
    }

    fn find(&self, asked: &Criteria) -> Option<usize> {
        if asked.is_empty() {
            return None;
        }
        let found = self.numbers.get(asked).copied();
        if found.is_some() || !self.config.allow_redundant_keys {
            return found;
        }
        // The selector with the most of the asked keys.
        let mut selectors: Vec<&Selector> = self.config.selectors.iter().collect();
        selectors.sort_by_key(|selector| std::cmp::Reverse(selector.keys.len()));
        selectors.into_iter().find_map(|selector| {
            let part: Criteria = asked.iter().filter(|(name, _)| selector.keys.contains(name)).cloned().collect();
            (part.len() == selector.keys.len()).then(|| self.numbers.get(&part).copied()).flatten()
        })
    }

    fn selector_of(&self, asked: &Criteria) -> Option<&Selector> {
        let fits = |selector: &&Selector| {
            selector.keys.len() == asked.len() && asked.iter().all(|(name, _)| selector.keys.contains(name))
        };
        self.config.selectors.iter().find(fits)
    }
}

impl<'a> Candidate<'a> {
    pub(super) fn source(&self) -> Source<'a> {
        match self.from {
            From::Anywhere => Source::Whole,
            From::Nowhere => Source::Nobody,
            From::Subset(number) => Source::Subset(number, &self.subsets.levels[number]),
        }
    }

    pub(super) fn count(&self, chooser: &impl Chooser) {
        if let Some(stat) = self.counted {
            chooser.count(stat);
        }
    }

    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }
}

pub(super) enum Source<'a> {
    Whole,
    Subset(usize, &'a Levels),
    Nobody,
}

fn fallback_list(asked: &Fields) -> Option<Vec<&Fields>> {
    let Value::List(list) = asked.get(FALLBACK_LIST)? else { return None };
    let structs = list.iter().filter_map(|value| match value {
        Value::Struct(fields) => Some(fields),
        _ => None,
    });
    Some(structs.collect())
}

/// What a host contributes to: one subset a selector whose keys it has all of, more where lists stand for their values.
fn shared_by(member: &Member, selector: &Selector, list_as_any: bool) -> Vec<Criteria> {
    let Some(fields) = member.host.metadata.namespace(LB_NAMESPACE) else { return Vec::new() };
    let mut combinations: Vec<Criteria> = vec![Vec::new()];
    for key in &selector.keys {
        let Some(value) = fields.get(key) else { return Vec::new() };
        let values = match value {
            Value::List(values) if list_as_any => &values[..],
            value => std::slice::from_ref(value),
        };
        combinations = combinations
            .iter()
            .flat_map(|criteria| {
                values.iter().map(move |value| {
                    let mut criteria = criteria.clone();
                    criteria.push((key.clone(), value.clone()));
                    criteria
                })
            })
            .take(COMBINATIONS_MAX)
            .collect();
    }
    combinations.retain(|criteria| !criteria.is_empty());
    combinations
}

fn has_all(member: &Member, wanted: &[(Arc<str>, Value)], list_as_any: bool) -> bool {
    let empty = Fields::default();
    let fields = member.host.metadata.namespace(LB_NAMESPACE).unwrap_or(&empty);
    wanted.iter().all(|(name, value)| match fields.get(name) {
        Some(Value::List(values)) if list_as_any => values.contains(value),
        found => found == Some(value),
    })
}
