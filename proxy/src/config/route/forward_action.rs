//! `envoy.config.route.v3.RouteAction`: where a request goes, how long it may take, and how often it is tried.

use std::{collections::HashMap, sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::{
                core::v3::TypedExtensionConfig,
                route::v3::{
                    ClusterSpecifierPlugin, InternalRedirectPolicy, RouteAction as ProtoRouteAction,
                    WeightedCluster as ProtoWeightedCluster,
                    route_action::{
                        ClusterNotFoundResponseCode, ClusterSpecifier as ProtoClusterSpecifier, HostRewriteSpecifier,
                        InternalRedirectAction, MaxStreamDuration as ProtoMaxStreamDuration,
                    },
                    weighted_cluster::{
                        ClusterWeight, RandomValueSpecifier,
                        cluster_weight::HostRewriteSpecifier as WeightedHostRewrite,
                    },
                },
            },
            extensions::{
                early_data::v3::DefaultEarlyDataPolicy,
                path::rewrite::uri_template::v3::UriTemplateRewriteConfig,
                router::cluster_specifiers::matcher::v3::{ClusterAction, MatcherClusterSpecifier},
            },
            r#type::matcher::v3::RegexMatchAndSubstitute,
        },
        google::protobuf::{Any, UInt32Value},
    },
};

use super::{
    ClusterField, ClusterSpecifier, ForwardAction, GrpcTimeout, HashPolicy, HostRewrite, InternalRedirects, Limits,
    MaxStreamDuration, PathMatch, PathRewrite, RetryPolicy, RoutingPriority, UriTemplateRewrite, WeightedCluster,
    WeightedClusters, WeightedDraw, WeightedTarget,
};
use crate::config::{
    field::{self, Extension, Result, Within as _, element, refuse, required, timeout_or, unsupported},
    header_mutation::HeaderRules,
    http_filter::{CorsPolicy, RouteFilters},
    match_tree::MatchTree,
    matcher::RegexRewrite,
    metadata::{Fields, Metadata},
    mirror::MirrorPolicy,
    rate_limit::RateLimitEntry,
    substitution,
    upgrade::Upgrades,
};

/// How long a request may take where the route says nothing.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);

impl ForwardAction {
    #[expect(deprecated, reason = "named to be refused")]
    pub(super) fn from_proto(
        message: ProtoRouteAction,
        retry_policy_of_host: Option<&RetryPolicy>,
        path: &PathMatch,
        limits: &Limits,
    ) -> Result<Self> {
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
        refuse!(retry_policy_typed_config, hedge_policy);
        early_data(early_data_policy).within("early_data_policy")?;
        let rewrites = [
            !prefix_rewrite.is_empty(),
            regex_rewrite.is_some(),
            path_rewrite_policy.is_some(),
            !path_rewrite.is_empty(),
        ];
        if rewrites.iter().filter(|is_set| **is_set).count() > 1 {
            let reason = "only one of prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite may be set";
            return Err(FieldError::new("prefix_rewrite", reason));
        }
        let grpc_timeout_max = field::duration(max_grpc_timeout, "max_grpc_timeout")?;
        let grpc_timeout_offset = field::duration_or(grpc_timeout_offset, Duration::ZERO, "grpc_timeout_offset")?;
        let retry_policy = retry_policy.map(RetryPolicy::from_proto).transpose().within("retry_policy")?;
        let cluster = cluster_specifier_from(required(cluster_specifier, "cluster_specifier")?, limits)?;
        let criteria = metadata_match.and_then(Metadata::load_balancing_criteria);
        Ok(Self {
            cluster: with_criteria_of_route(cluster, criteria.as_ref()),
            cluster_not_found_response_code: cluster_not_found_status(cluster_not_found_response_code)?,
            timeout: timeout_or(timeout, Some(ROUTE_TIMEOUT), "timeout")?,
            idle_timeout: match idle_timeout {
                None => None,
                bound => Some(timeout_or(bound, None, "idle_timeout")?),
            },
            max_stream_duration: max_stream_duration
                .map(max_stream_duration_from)
                .transpose()
                .within("max_stream_duration")?,
            retry_policy: retry_policy.or_else(|| retry_policy_of_host.cloned()),
            priority: RoutingPriority::from_proto(priority, "priority")?,
            path_rewrite: path_rewrite_from(prefix_rewrite, regex_rewrite, path_rewrite_policy, &path_rewrite, path)?,
            host_rewrite: host_rewrite(host_rewrite_specifier)?,
            append_x_forwarded_host,
            upgrades: Upgrades::of_route(upgrade_configs)?,
            hash_policy: field::each(hash_policy, "hash_policy", HashPolicy::from_proto)?,
            metadata_match: criteria.map(Arc::new),
            cors: cors.map(CorsPolicy::from_route).transpose().within("cors")?,
            mirrors: MirrorPolicy::all_from_proto(request_mirror_policies)?,
            rate_limits: field::each(rate_limits, "rate_limits", RateLimitEntry::from_proto)?,
            includes_host_rate_limits: field::bool_or(include_vh_rate_limits, false),
            internal_redirects: internal_redirects(
                internal_redirect_policy,
                internal_redirect_action,
                max_internal_redirects,
            )?,
            flush_timeout: match flush_timeout {
                None => None,
                bound => Some(timeout_or(bound, None, "flush_timeout")?),
            },
            grpc_timeout: grpc_timeout_max.map(|max| GrpcTimeout { max, offset: grpc_timeout_offset }),
        })
    }

    pub(super) fn named_clusters(&self) -> Vec<(ClusterField, &Arc<str>)> {
        let mut names: Vec<(ClusterField, &Arc<str>)> = Vec::new();
        match &self.cluster {
            ClusterSpecifier::Header(_) => {}
            ClusterSpecifier::Cluster(name) => names.push((ClusterField::Cluster, name)),
            ClusterSpecifier::Matched(tree) => tree.actions(&mut |name| names.push((ClusterField::Cluster, name))),
            ClusterSpecifier::Weighted(weighted) => {
                for (index, cluster) in weighted.clusters.iter().enumerate() {
                    if let WeightedTarget::Named(name) = &cluster.cluster {
                        names.push((ClusterField::Weighted(index), name));
                    }
                }
            }
        }
        let mirrors = self.mirrors.iter().enumerate();
        names.extend(mirrors.filter_map(|(at, policy)| Some((ClusterField::Mirror(at), policy.named_cluster()?))));
        names
    }
}

/// What a weighted cluster asks of a host it asks on top of what the route does.
fn with_criteria_of_route(mut cluster: ClusterSpecifier, criteria: Option<&Fields>) -> ClusterSpecifier {
    if let (ClusterSpecifier::Weighted(weighted), Some(criteria)) = (&mut cluster, criteria) {
        for own in weighted.clusters.iter_mut().filter_map(|cluster| cluster.metadata_match.as_mut()) {
            let mut both = criteria.clone();
            both.extend((**own).clone());
            *own = Arc::new(both);
        }
    }
    cluster
}

/// There is no early data upstream, so that the default policy, which allows some, says nothing.
fn early_data(message: Option<TypedExtensionConfig>) -> Result<()> {
    let Some(TypedExtensionConfig { name: _, typed_config }) = message else { return Ok(()) };
    let extension = Extension::new(required(typed_config, "typed_config")?)?;
    if extension.is::<DefaultEarlyDataPolicy>() { Ok(()) } else { Err(extension.unsupported()) }
}

/// The older fields say the same with fewer words.
fn internal_redirects(
    policy: Option<InternalRedirectPolicy>,
    action: i32,
    max: Option<UInt32Value>,
) -> Result<Option<InternalRedirects>> {
    let action: InternalRedirectAction = field::enumeration(action, "internal_redirect_action")?;
    let older = InternalRedirectPolicy { max_internal_redirects: max, ..Default::default() };
    match policy {
        Some(policy) => InternalRedirects::from_proto(policy).within("internal_redirect_policy").map(Some),
        None if action == InternalRedirectAction::HandleInternalRedirect => {
            InternalRedirects::from_proto(older).map(Some)
        }
        None => Ok(None),
    }
}

fn max_stream_duration_from(message: ProtoMaxStreamDuration) -> Result<MaxStreamDuration> {
    let ProtoMaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset } = message;
    Ok(MaxStreamDuration {
        duration: field::duration(max_stream_duration, "max_stream_duration")?,
        grpc_timeout_max: field::duration(grpc_timeout_header_max, "grpc_timeout_header_max")?,
        grpc_timeout_offset: field::duration_or(
            grpc_timeout_header_offset,
            Duration::ZERO,
            "grpc_timeout_header_offset",
        )?,
    })
}

fn cluster_not_found_status(code: i32) -> Result<http::StatusCode> {
    Ok(match field::enumeration(code, "cluster_not_found_response_code")? {
        ClusterNotFoundResponseCode::ServiceUnavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        ClusterNotFoundResponseCode::NotFound => http::StatusCode::NOT_FOUND,
        ClusterNotFoundResponseCode::InternalServerError => http::StatusCode::INTERNAL_SERVER_ERROR,
    })
}

/// Of which at most one is set.
fn path_rewrite_from(
    prefix: String,
    regex: Option<RegexMatchAndSubstitute>,
    policy: Option<TypedExtensionConfig>,
    format: &str,
    path: &PathMatch,
) -> Result<Option<PathRewrite>> {
    if !prefix.is_empty() {
        return Ok(Some(PathRewrite::Prefix(prefix)));
    }
    if let Some(message) = regex {
        return RegexRewrite::from_proto(message).within("regex_rewrite").map(PathRewrite::Regex).map(Some);
    }
    if let Some(message) = policy {
        return template_rewrite(message, path).within("path_rewrite_policy").map(Some);
    }
    if format.is_empty() {
        return Ok(None);
    }
    substitution::parse(format).within("path_rewrite").map(PathRewrite::Format).map(Some)
}

fn template_rewrite(message: TypedExtensionConfig, path: &PathMatch) -> Result<PathRewrite> {
    let TypedExtensionConfig { name: _, typed_config } = message; // the type alone says which
    let extension = Extension::new(required(typed_config, "typed_config")?)?;
    if !extension.is::<UriTemplateRewriteConfig>() {
        return Err(extension.unsupported());
    }
    let PathMatch::Template(matched) = path else {
        return Err(FieldError::new("typed_config", "needs a route that is matched by a template"));
    };
    let UriTemplateRewriteConfig { path_template_rewrite } = extension.unpack()?;
    UriTemplateRewrite::parse(&path_template_rewrite, matched).within("typed_config").map(PathRewrite::Template)
}

fn host_rewrite(specifier: Option<HostRewriteSpecifier>) -> Result<Option<HostRewrite>> {
    Ok(match specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if host.is_empty() => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(HostRewrite::Literal(field::header_value(&host, "host_rewrite_literal")?))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(wrapper)) => wrapper.value.then_some(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) if name.is_empty() => None,
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(header_name(&name, "host_rewrite_header")?))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(message)) => {
            Some(HostRewrite::PathRegex(RegexRewrite::from_proto(message).within("host_rewrite_path_regex")?))
        }
        Some(HostRewriteSpecifier::HostRewrite(format)) if format.is_empty() => None,
        Some(HostRewriteSpecifier::HostRewrite(format)) => {
            Some(HostRewrite::Format(substitution::parse(&format).within("host_rewrite")?))
        }
    })
}

fn header_name(name: &str, path: &str) -> Result<http::HeaderName> {
    http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| FieldError::new(path, "not a header name"))
}

/// Those that the table has by name. None: of a kind that is not known, and may be left out.
pub(super) type ClusterPlugins = HashMap<String, Option<Any>>;

pub(super) fn cluster_specifier_plugins(messages: Vec<ClusterSpecifierPlugin>) -> Result<ClusterPlugins> {
    let mut plugins = HashMap::new();
    for (index, message) in messages.into_iter().enumerate() {
        let ClusterSpecifierPlugin { extension, is_optional } = message;
        let path = element("cluster_specifier_plugins", index);
        let TypedExtensionConfig { name, typed_config } = required(extension, "extension").within(&path)?;
        let typed_config = required(typed_config, "extension.typed_config").within(&path)?;
        let extension = Extension::new(typed_config.clone()).within("extension").within(&path)?;
        let known = extension.is::<MatcherClusterSpecifier>();
        if !known && !is_optional {
            return Err(extension.unsupported()).within("extension").within(&path);
        }
        plugins.insert(name, known.then_some(typed_config));
    }
    Ok(plugins)
}

fn cluster_specifier_from(specifier: ProtoClusterSpecifier, limits: &Limits) -> Result<ClusterSpecifier> {
    match specifier {
        ProtoClusterSpecifier::Cluster(name) => Ok(ClusterSpecifier::Cluster(name.into())),
        ProtoClusterSpecifier::WeightedClusters(message) => {
            weighted_clusters(message).within("weighted_clusters").map(ClusterSpecifier::Weighted)
        }
        ProtoClusterSpecifier::ClusterHeader(name) => {
            header_name(&name, "cluster_header").map(ClusterSpecifier::Header)
        }
        ProtoClusterSpecifier::ClusterSpecifierPlugin(name) => match limits.plugins.get(&name) {
            Some(Some(plugin)) => matched_cluster(&Extension::new(plugin.clone())?).within("cluster_specifier_plugin"),
            Some(None) => Err(unsupported("cluster_specifier_plugin")),
            None => Err(FieldError::new("cluster_specifier_plugin", format!("the table has no plugin '{name}'"))),
        },
        ProtoClusterSpecifier::InlineClusterSpecifierPlugin(message) => {
            let ClusterSpecifierPlugin { extension, is_optional: _ } = message; // a route needs its cluster
            let path = "inline_cluster_specifier_plugin.extension";
            let TypedExtensionConfig { name: _, typed_config } = required(extension, path)?;
            let typed_config = required(typed_config, &format!("{path}.typed_config"))?;
            matched_cluster(&Extension::new(typed_config).within(path)?).within(path)
        }
    }
}

fn matched_cluster(extension: &Extension) -> Result<ClusterSpecifier> {
    if !extension.is::<MatcherClusterSpecifier>() {
        return Err(extension.unsupported());
    }
    let MatcherClusterSpecifier { cluster_matcher } = extension.unpack()?;
    let matcher = required(cluster_matcher, "typed_config.cluster_matcher")?;
    let mut to_action = |action: &Extension| {
        if !action.is::<ClusterAction>() {
            return Err(action.unsupported());
        }
        let ClusterAction { cluster } = action.unpack()?;
        Ok(cluster.into())
    };
    MatchTree::from_proto(matcher, &mut to_action).within("typed_config.cluster_matcher").map(ClusterSpecifier::Matched)
}

fn weighted_clusters(message: ProtoWeightedCluster) -> Result<WeightedClusters> {
    #[expect(deprecated, reason = "named to be ignored")]
    let ProtoWeightedCluster {
        clusters,
        total_weight: _,       // Envoy takes the sum of the weights whatever this says
        runtime_key_prefix: _, // there is no runtime that could override weights
        random_value_specifier,
    } = message;
    let drawn_by = match random_value_specifier {
        None => WeightedDraw::Random,
        Some(RandomValueSpecifier::UseHashPolicy(wrapper)) if wrapper.value => WeightedDraw::HashPolicy,
        Some(RandomValueSpecifier::UseHashPolicy(_)) => WeightedDraw::Random,
        Some(RandomValueSpecifier::HeaderName(name)) => WeightedDraw::Header(header_name(&name, "header_name")?),
    };
    let clusters = field::each(clusters, "clusters", cluster_weight)?;
    check_weights(clusters.iter().map(|cluster| cluster.weight))?;
    Ok(WeightedClusters { clusters, drawn_by })
}

/// A draw needs a sum of at least 1, which fits 32 bits as Envoy's does.
pub(crate) fn check_weights(weights: impl Iterator<Item = u32>) -> Result<()> {
    match weights.map(u64::from).sum::<u64>() {
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
    let cluster = match (name.is_empty(), cluster_header.is_empty()) {
        (false, true) => WeightedTarget::Named(name.into()),
        (true, false) => WeightedTarget::Header(header_name(&cluster_header, "cluster_header")?),
        (true, true) => return Err(FieldError::new("name", "value is required")),
        (false, false) => return Err(FieldError::new("name", "cannot be set together with cluster_header")),
    };
    let host_rewrite_literal = match host_rewrite_specifier {
        Some(WeightedHostRewrite::HostRewriteLiteral(host)) if !host.is_empty() => {
            Some(field::header_value(&host, "host_rewrite_literal")?)
        }
        _ => None,
    };
    Ok(WeightedCluster {
        cluster,
        weight: required(weight, "weight")?.value,
        metadata_match: metadata_match.and_then(Metadata::load_balancing_criteria).map(Arc::new),
        request_headers: HeaderRules::from_proto(request_headers_to_add, request_headers_to_remove, "request")?,
        response_headers: HeaderRules::from_proto(response_headers_to_add, response_headers_to_remove, "response")?,
        filters: RouteFilters::from_proto(typed_per_filter_config)?,
        host_rewrite_literal,
    })
}
