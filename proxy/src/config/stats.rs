//! `envoy.config.metrics.v3.StatsConfig`: which statistics are told, with which tags and buckets.

use regex::Regex;
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::metrics::v3::{
            HistogramBucketSettings, StatsConfig, StatsMatcher as ProtoStatsMatcher, TagSpecifier,
            stats_matcher::StatsMatcher as MatcherKind, tag_specifier::TagValue as ProtoTagValue,
        },
        r#type::matcher::v3::ListStringMatcher,
    },
};

use crate::{
    config::{
        field::{self, Result, Within as _, bool_or, required},
        matcher::StringMatcher,
    },
    stats::tags::{DefaultTags, StatsMatcher, StatsRules, TagRule, TagValue},
};

impl StatsRules {
    pub(crate) fn from_proto(message: StatsConfig) -> Result<Self> {
        let StatsConfig {
            stats_tags,
            use_all_default_tags,
            stats_matcher,
            histogram_bucket_settings,
            allow_default_tag_overrides,
        } = message;
        let mut named_defaults = Vec::new();
        let mut tags = Vec::new();
        for (index, message) in stats_tags.into_iter().enumerate() {
            let TagSpecifier { tag_name, tag_value } = message;
            match tag_rule(&tag_name, tag_value).at("stats_tags", index)? {
                Some(value) => tags.push(TagRule { name: tag_name, value }),
                None => named_defaults.push(tag_name),
            }
        }
        let default_tags = if !bool_or(use_all_default_tags, true) {
            DefaultTags::Only(named_defaults)
        } else if bool_or(allow_default_tag_overrides, false) {
            DefaultTags::AllBut(tags.iter().map(|tag| tag.name.clone()).collect())
        } else {
            DefaultTags::AllBut(Vec::new())
        };
        Ok(Self {
            default_tags,
            tags,
            matcher: stats_matcher.map(matcher).transpose().within("stats_matcher")?.unwrap_or_default(),
            buckets: field::each(histogram_bucket_settings, "histogram_bucket_settings", buckets)?,
        })
    }
}

/// None: the tag that Envoy has under this name.
fn tag_rule(name: &str, value: Option<ProtoTagValue>) -> Result<Option<TagValue>> {
    match value {
        Some(ProtoTagValue::FixedValue(value)) => Ok(Some(TagValue::Fixed(value))),
        Some(ProtoTagValue::Regex(text)) if !text.is_empty() => {
            if name.is_empty() {
                return Err(FieldError::new("tag_name", "tag_name cannot be empty"));
            }
            match Regex::new(&text) {
                Ok(regex) => Ok(Some(TagValue::Extracted(regex))),
                Err(error) => Err(FieldError::new("regex", format!("not a regular expression: {error}"))),
            }
        }
        Some(ProtoTagValue::Regex(_)) | None if DEFAULT_TAG_NAMES.contains(&name) => Ok(None),
        Some(ProtoTagValue::Regex(_)) | None => {
            let reason = format!("No regex specified for tag specifier and no default regex for name: '{name}'");
            Err(FieldError::new("tag_value", reason))
        }
    }
}

fn matcher(message: ProtoStatsMatcher) -> Result<StatsMatcher> {
    let patterns = |list: ListStringMatcher, path: &str| {
        field::each(list.patterns, "patterns", StringMatcher::from_proto).within(path)
    };
    Ok(match required(message.stats_matcher, "stats_matcher")? {
        MatcherKind::RejectAll(true) => StatsMatcher::Nothing,
        MatcherKind::RejectAll(false) => StatsMatcher::All,
        MatcherKind::ExclusionList(list) => StatsMatcher::AllBut(patterns(list, "exclusion_list")?),
        MatcherKind::InclusionList(list) => StatsMatcher::Only(patterns(list, "inclusion_list")?),
    })
}

fn buckets(message: HistogramBucketSettings) -> Result<(StringMatcher, Vec<f64>)> {
    let HistogramBucketSettings { r#match, mut buckets, bins: _ } = message; // bins: how much room Envoy makes at first
    buckets.sort_by(f64::total_cmp);
    Ok((StringMatcher::from_proto(required(r#match, "match")?).within("match")?, buckets))
}

/// Those that Envoy knows, whether or not there is such a statistic here.
const DEFAULT_TAG_NAMES: &[&str] = &[
    "envoy.response_code",
    "envoy.response_code_class",
    "envoy.dynamo_partition_id",
    "envoy.dynamo_operation",
    "envoy.mongo_callsite",
    "envoy.dynamo_table",
    "envoy.mongo_collection",
    "envoy.mongo_cmd",
    "envoy.grpc_bridge_method",
    "envoy.http_user_agent",
    "envoy.virtual_cluster",
    "envoy.fault_downstream_cluster",
    "cipher_suite",
    "envoy.ssl_cipher",
    "envoy.ssl_curve",
    "envoy.ssl_sigalg",
    "envoy.ssl_version",
    "envoy.grpc_bridge_service",
    "envoy.tcp_prefix",
    "envoy.udp_prefix",
    "envoy.clientssl_prefix",
    "envoy.ratelimit_prefix",
    "envoy.cluster_name",
    "envoy.ext_authz_prefix",
    "envoy.http_conn_manager_prefix",
    "envoy.worker_id",
    "envoy.listener_address",
    "envoy.virtual_host",
    "envoy.mongo_prefix",
    "envoy.rds_route_config",
    "envoy.route",
    "envoy.thrift_prefix",
    "envoy.redis_prefix",
    "envoy.local_http_ratelimit_prefix",
    "envoy.local_network_ratelimit_prefix",
    "envoy.local_listener_ratelimit_prefix",
    "envoy.dns_filter_prefix",
    "envoy.connection_limit_prefix",
    "envoy.rbac_prefix",
    "envoy.rbac_http_hcm_prefix",
    "envoy.rbac_http_prefix",
    "envoy.rbac_policy_name",
    "envoy.proxy_protocol_version",
    "envoy.proxy_protocol_prefix",
    "xds.resource_name",
    "xds.authority",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_refused, message};

    #[test]
    fn stats_config_is_read() {
        let rules = StatsRules::from_proto(message(
            "
stats_tags: [{tag_name: a, fixed_value: b}, {tag_name: c, regex: 'x((y))'}, {tag_name: envoy.cluster_name}]
use_all_default_tags: false
stats_matcher: {inclusion_list: {patterns: [{prefix: cluster.}]}}
histogram_bucket_settings: [{match: {suffix: _time}, buckets: [10, 1]}]",
        ))
        .unwrap();
        assert_eq!(rules.tags.iter().map(|tag| &*tag.name).collect::<Vec<_>>(), ["a", "c"]);
        assert!(matches!(&rules.default_tags, DefaultTags::Only(names) if *names == ["envoy.cluster_name"]));
        assert!(rules.matcher.takes("cluster.x") && !rules.matcher.takes("http.x"));
        assert_eq!(rules.buckets_of("cluster.x.upstream_rq_time"), [1.0, 10.0]);
        assert_eq!(rules.buckets_of("other").len(), 19);
        let rules = StatsRules::from_proto(message(
            "{allow_default_tag_overrides: true, stats_tags: [{tag_name: x, fixed_value: ''}], stats_matcher: \
             {reject_all: true}}",
        ))
        .unwrap();
        assert!(matches!(&rules.default_tags, DefaultTags::AllBut(names) if *names == ["x"]));
        assert!(!rules.matcher.takes("anything"));
    }

    #[test]
    fn what_envoy_refuses_is_refused() {
        let unknown =
            "stats_tags[0].tag_value: No regex specified for tag specifier and no default regex for name: 'x'";
        assert_refused(
            "use_all_default_tags: true",
            StatsRules::from_proto,
            &[
                ("stats_tags: [{tag_name: x}]", unknown),
                ("stats_tags: [{tag_name: x, regex: ''}]", unknown),
                ("stats_tags: [{tag_name: '', regex: '(a)'}]", "stats_tags[0].tag_name: tag_name cannot be empty"),
            ],
        );
        let refused = StatsRules::from_proto(message("stats_tags: [{tag_name: x, regex: '(y'}]")).unwrap_err();
        assert_eq!(refused.path(), "stats_tags[0].regex");
    }
}
