//! `envoy.config.route.v3.RouteAction`: where a request goes, how long it may take, and how often it is tried.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::config::route::v3::{
        RouteAction as ProtoRouteAction, WeightedCluster as ProtoWeightedCluster,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier as ProtoClusterSpecifier, HostRewriteSpecifier,
            MaxStreamDuration,
        },
        weighted_cluster::{ClusterWeight, RandomValueSpecifier},
    },
};

use super::{ClusterSpecifier, ForwardAction, HashPolicy, RetryPolicy, RoutingPriority, WeightedCluster};
use crate::config::{
    field::{self, Result, Within as _, refuse, required, timeout_or, unset, unsupported},
    metadata::Metadata,
};

/// How long a request may take where the route says nothing.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);

impl ForwardAction {
    #[expect(deprecated, reason = "named to be refused")]
    pub(super) fn from_proto(message: ProtoRouteAction, retry_policy_of_host: Option<&RetryPolicy>) -> Result<Self> {
        let ProtoRouteAction {
            cluster_not_found_response_code,
            metadata_match,
            prefix_rewrite,
            regex_rewrite,
            path_rewrite_policy,
            path_rewrite,
            append_x_forwarded_host,
            timeout,
            idle_timeout,
            flush_timeout,
            early_data_policy,
            retry_policy,
            retry_policy_typed_config,
            request_mirror_policies,
            priority,
            rate_limits,
            include_vh_rate_limits,
            hash_policy,
            cors,
            max_grpc_timeout,
            grpc_timeout_offset,
            upgrade_configs,
            internal_redirect_policy,
            internal_redirect_action,
            max_internal_redirects,
            hedge_policy,
            max_stream_duration,
            cluster_specifier,
            host_rewrite_specifier,
        } = message;
        refuse!(regex_rewrite, path_rewrite_policy, path_rewrite, append_x_forwarded_host);
        refuse!(flush_timeout, early_data_policy, retry_policy_typed_config, request_mirror_policies, rate_limits);
        refuse!(include_vh_rate_limits, cors, max_grpc_timeout, grpc_timeout_offset, upgrade_configs);
        refuse!(internal_redirect_policy, internal_redirect_action, max_internal_redirects, hedge_policy);
        refuse_max_stream_duration(max_stream_duration).within("max_stream_duration")?;
        let retry_policy = retry_policy.map(RetryPolicy::from_proto).transpose().within("retry_policy")?;
        Ok(Self {
            cluster: cluster_specifier_from(required(cluster_specifier, "cluster_specifier")?)?,
            cluster_not_found_response_code: cluster_not_found_status(cluster_not_found_response_code)?,
            timeout: timeout_or(timeout, Some(ROUTE_TIMEOUT), "timeout")?,
            idle_timeout: match idle_timeout {
                None => None,
                bound => Some(timeout_or(bound, None, "idle_timeout")?),
            },
            retry_policy: retry_policy.or_else(|| retry_policy_of_host.cloned()),
            priority: RoutingPriority::from_proto(priority, "priority")?,
            prefix_rewrite: Some(prefix_rewrite).filter(|prefix| !prefix.is_empty()),
            host_rewrite_literal: host_rewrite(host_rewrite_specifier)?,
            hash_policy: field::each(hash_policy, "hash_policy", HashPolicy::from_proto)?,
            metadata_match: metadata_match.and_then(Metadata::load_balancing_criteria).map(Arc::new),
        })
    }
}

/// Only its absence is supported; a `max_stream_duration` of 0 says the same.
fn refuse_max_stream_duration(message: Option<MaxStreamDuration>) -> Result<()> {
    let Some(MaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset }) = message
    else {
        return Ok(());
    };
    refuse!(grpc_timeout_header_max, grpc_timeout_header_offset);
    unset(&max_stream_duration.unwrap_or_default(), "max_stream_duration")
}

fn cluster_not_found_status(code: i32) -> Result<http::StatusCode> {
    Ok(match field::enumeration(code, "cluster_not_found_response_code")? {
        ClusterNotFoundResponseCode::ServiceUnavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        ClusterNotFoundResponseCode::NotFound => http::StatusCode::NOT_FOUND,
        ClusterNotFoundResponseCode::InternalServerError => http::StatusCode::INTERNAL_SERVER_ERROR,
    })
}

fn host_rewrite(specifier: Option<HostRewriteSpecifier>) -> Result<Option<http::HeaderValue>> {
    match specifier {
        None => Ok(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if host.is_empty() => Ok(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            field::header_value(&host, "host_rewrite_literal").map(Some)
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(wrapper)) => {
            field::only(Some(wrapper), false, "auto_host_rewrite").map(|()| None)
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(_)) => Err(unsupported("host_rewrite_header")),
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => Err(unsupported("host_rewrite_path_regex")),
        Some(HostRewriteSpecifier::HostRewrite(_)) => Err(unsupported("host_rewrite")),
    }
}

fn cluster_specifier_from(specifier: ProtoClusterSpecifier) -> Result<ClusterSpecifier> {
    match specifier {
        ProtoClusterSpecifier::Cluster(name) => Ok(ClusterSpecifier::Cluster(name.into())),
        ProtoClusterSpecifier::WeightedClusters(message) => {
            weighted_clusters(message).within("weighted_clusters").map(ClusterSpecifier::Weighted)
        }
        ProtoClusterSpecifier::ClusterHeader(_) => Err(unsupported("cluster_header")),
        ProtoClusterSpecifier::ClusterSpecifierPlugin(_) => Err(unsupported("cluster_specifier_plugin")),
        ProtoClusterSpecifier::InlineClusterSpecifierPlugin(_) => Err(unsupported("inline_cluster_specifier_plugin")),
    }
}

fn weighted_clusters(message: ProtoWeightedCluster) -> Result<Vec<WeightedCluster>> {
    #[expect(deprecated, reason = "named to be ignored")]
    let ProtoWeightedCluster {
        clusters,
        total_weight: _,       // Envoy takes the sum of the weights whatever this says
        runtime_key_prefix: _, // there is no runtime that could override weights
        random_value_specifier,
    } = message;
    match random_value_specifier {
        None => {}
        Some(RandomValueSpecifier::UseHashPolicy(wrapper)) => field::only(Some(wrapper), false, "use_hash_policy")?,
        Some(RandomValueSpecifier::HeaderName(_)) => return Err(unsupported("header_name")),
    }
    let clusters = field::each(clusters, "clusters", cluster_weight)?;
    check_weights(&clusters)?;
    Ok(clusters)
}

/// A draw needs a sum of at least 1, which fits 32 bits as Envoy's does.
pub(crate) fn check_weights(clusters: &[WeightedCluster]) -> Result<()> {
    match clusters.iter().map(|cluster| u64::from(cluster.weight)).sum::<u64>() {
        0 => Err(FieldError::new("clusters", "sum of weights must be greater than 0")),
        sum if sum > u64::from(u32::MAX) => {
            Err(FieldError::new("clusters", format!("sum of weights must not exceed {}", u32::MAX)))
        }
        _ => Ok(()),
    }
}

fn cluster_weight(message: ClusterWeight) -> Result<WeightedCluster> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = message;
    refuse!(cluster_header, metadata_match, request_headers_to_add, request_headers_to_remove);
    refuse!(response_headers_to_add, response_headers_to_remove, typed_per_filter_config);
    unset(&host_rewrite_specifier, "host_rewrite_literal")?;
    if name.is_empty() {
        return Err(FieldError::new("name", "value is required"));
    }
    Ok(WeightedCluster { name: name.into(), weight: required(weight, "weight")?.value })
}
