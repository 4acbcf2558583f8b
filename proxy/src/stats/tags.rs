//! What becomes of names on their way out: tags are taken from them, and some are not told at all. By the bootstrap's
//! `stats_config`.

use std::borrow::Cow;

use regex::Regex;

use crate::{
    config::matcher::StringMatcher,
    stats::{MetricName, Tag, TaggedPart},
};

/// `envoy.config.metrics.v3.StatsConfig`, and the tags of the command line.
#[derive(Debug)]
pub struct StatsRules {
    pub default_tags: DefaultTags,
    pub tags: Vec<TagRule>,
    pub matcher: StatsMatcher,
    /// The first that matches a histogram's name gives its buckets.
    pub buckets: Vec<(StringMatcher, Vec<f64>)>,
}

/// Which of the tags that are known stand beside the name, and which stay in it. By their names.
#[derive(Clone, Debug)]
pub enum DefaultTags {
    AllBut(Vec<String>),
    Only(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct TagRule {
    pub name: String,
    pub value: TagValue,
}

#[derive(Clone, Debug)]
pub enum TagValue {
    Fixed(String),
    /// The first group goes from the name; the second, or else the first, is the value.
    Extracted(Regex),
}

#[derive(Debug, Default)]
pub enum StatsMatcher {
    #[default]
    All,
    Nothing,
    Only(Vec<StringMatcher>),
    AllBut(Vec<StringMatcher>),
}

/// Envoy's, in milliseconds.
pub const DEFAULT_BUCKETS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10000., 30000., 60000., 300000., 600000.,
    1800000., 3600000.,
];

impl Default for StatsRules {
    fn default() -> Self {
        Self {
            default_tags: DefaultTags::AllBut(Vec::new()),
            tags: Vec::new(),
            matcher: StatsMatcher::default(),
            buckets: Vec::new(),
        }
    }
}

impl StatsMatcher {
    pub fn takes(&self, name: &str) -> bool {
        let any = |patterns: &[StringMatcher]| patterns.iter().any(|pattern| pattern.matches(name));
        match self {
            StatsMatcher::All => true,
            StatsMatcher::Nothing => false,
            StatsMatcher::Only(patterns) => any(patterns),
            StatsMatcher::AllBut(patterns) => !any(patterns),
        }
    }
}

/// A name without its tags, and the tags.
pub struct Extracted<'a> {
    pub name: String,
    pub tags: Vec<(&'a str, Cow<'a, str>)>,
}

impl StatsRules {
    pub fn buckets_of(&self, name: &str) -> &[f64] {
        let found = self.buckets.iter().find(|(matcher, _)| matcher.matches(name));
        found.map_or(&DEFAULT_BUCKETS[..], |(_, buckets)| buckets)
    }

    pub fn extract<'a>(&'a self, name: &'a MetricName) -> Extracted<'a> {
        let text = name.text();
        let mut removed = Vec::new();
        let mut tags = Vec::new();
        let mut parts: Vec<&TaggedPart> = name.tagged_parts().iter().filter(|part| self.has_tag(part.tag)).collect();
        parts.sort_by_key(|part| part.tag);
        let behind = parts.iter().position(|part| part.tag > Tag::LocalHttpRateLimitPrefix).unwrap_or(parts.len());
        let (first, last) = parts.split_at(behind);
        let mut take_parts = |parts: &[&TaggedPart], tags: &mut Vec<(&'a str, Cow<'a, str>)>| {
            for part in parts {
                removed.push(part.removed.clone());
                tags.push((part.tag.name(), text[part.value.clone()].into()));
            }
        };
        take_parts(first, &mut tags);
        let at = tags.len();
        take_parts(last, &mut tags);
        let mut ahead = Vec::new();
        for TagRule { name, value } in &self.tags {
            if tags.iter().chain(&ahead).any(|(known, _)| known == name) {
                continue;
            }
            match value {
                TagValue::Fixed(value) => ahead.push((name.as_str(), value.as_str().into())),
                TagValue::Extracted(regex) => {
                    let Some(captures) = regex.captures(text) else { continue };
                    let Some(first) = captures.get(1) else { continue };
                    let value = captures.get(2).unwrap_or(first);
                    removed.push(first.range());
                    // As Envoy has them: such that look at one kind of names alone come last.
                    let to = if is_of_one_kind(regex.as_str()) { &mut tags } else { &mut ahead };
                    to.push((name.as_str(), value.as_str().into()));
                }
            }
        }
        tags.splice(at..at, ahead);
        Extracted { name: without(text, removed), tags }
    }

    fn has_tag(&self, tag: Tag) -> bool {
        let is_among = |names: &[String]| names.iter().any(|name| name == tag.name());
        match &self.default_tags {
            DefaultTags::AllBut(names) => !is_among(names),
            DefaultTags::Only(names) => is_among(names),
        }
    }
}

/// `^word\.`
fn is_of_one_kind(regex: &str) -> bool {
    let Some(rest) = regex.strip_prefix('^') else { return false };
    let word = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    word.len() < rest.len() && word.starts_with("\\.")
}

fn without(text: &str, mut removed: Vec<std::ops::Range<usize>>) -> String {
    removed.sort_by_key(|range| range.start);
    let mut left = String::with_capacity(text.len());
    let mut at = 0;
    for range in removed {
        if range.start > at {
            left.push_str(&text[at..range.start]);
        }
        at = at.max(range.end);
    }
    left.push_str(&text[at..]);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, value: TagValue) -> TagRule {
        TagRule { name: name.to_owned(), value }
    }

    fn extracted(rules: &StatsRules, name: &MetricName) -> String {
        let Extracted { name, tags } = rules.extract(name);
        let tags: Vec<_> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{name} {}", tags.join(","))
    }

    fn code() -> MetricName {
        let name = MetricName::new("cluster.").tagged(Tag::ClusterName, "a.b").then("upstream_rq");
        name.with_part(Tag::ResponseCode, "_", "200", "")
    }

    #[test]
    fn tags_stand_beside_the_name_in_the_order_of_envoy() {
        let regex = |text: &str| TagValue::Extracted(Regex::new(text).unwrap());
        let rules = StatsRules {
            tags: vec![
                rule("fixed", TagValue::Fixed("f".to_owned())),
                rule("kind", regex(r"^cluster\.((.+?)\.)upstream")),
                rule("any", regex("_(r(q))")),
                rule("fixed", TagValue::Fixed("again".to_owned())),
                rule("none", regex("nothing(x)")),
            ],
            ..StatsRules::default()
        };
        assert_eq!(
            extracted(&rules, &code()),
            "cluster.upstream_ envoy.response_code=200,fixed=f,any=q,envoy.cluster_name=a.b,kind=a.b"
        );
        assert_eq!(extracted(&rules, &MetricName::new("server.live")), "server.live fixed=f");
    }

    #[test]
    fn default_tags_can_be_left_in_the_name() {
        let rules = |names: &[&str]| StatsRules {
            default_tags: DefaultTags::Only(names.iter().map(|name| (*name).to_owned()).collect()),
            ..StatsRules::default()
        };
        assert_eq!(extracted(&rules(&[]), &code()), "cluster.a.b.upstream_rq_200 ");
        let only = rules(&["envoy.response_code"]);
        assert_eq!(extracted(&only, &code()), "cluster.a.b.upstream_rq envoy.response_code=200");
    }
}
