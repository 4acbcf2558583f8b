//! `envoy.config.route.v3.RouteAction.RequestMirrorPolicy`: where copies of a request go.

use std::sync::Arc;

use weft_xds::{FieldError, pb::envoy::config::route::v3::route_action::RequestMirrorPolicy};

use crate::config::{
    field::{self, Result, Within as _},
    fraction::Fraction,
    header_mutation::HeaderMutation,
};

#[derive(Debug)]
pub struct MirrorPolicy {
    pub cluster: MirrorCluster,
    pub share: Fraction,
    /// The copy's host says what it is.
    pub appends_shadow: bool,
    pub host: Option<http::HeaderValue>,
    pub request_headers: Vec<HeaderMutation>,
}

#[derive(Debug)]
pub enum MirrorCluster {
    Named(Arc<str>),
    /// As a request header says.
    Header(http::HeaderName),
}

impl MirrorPolicy {
    pub(crate) fn all_from_proto(messages: Vec<RequestMirrorPolicy>) -> Result<Arc<[Self]>> {
        field::each(messages, "request_mirror_policies", Self::from_proto).map(Into::into)
    }

    fn from_proto(message: RequestMirrorPolicy) -> Result<Self> {
        let RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction,
            trace_sampled: _, // of the spans of the copy: a connection manager that makes any is refused
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = message;

        let cluster = match (cluster.is_empty(), cluster_header.is_empty()) {
            (false, true) => MirrorCluster::Named(cluster.into()),
            (true, false) => MirrorCluster::Header(
                http::HeaderName::from_bytes(cluster_header.as_bytes())
                    .map_err(|_| FieldError::new("cluster_header", "not a header name"))?,
            ),
            (true, true) => return Err(FieldError::new("cluster", "either cluster or cluster_header is required")),
            (false, false) => {
                return Err(FieldError::new("cluster", "only one of cluster and cluster_header may be set"));
            }
        };
        Ok(Self {
            cluster,
            share: match runtime_fraction {
                None => Fraction::ALWAYS,
                Some(share) => Fraction::from_runtime(share).within("runtime_fraction")?,
            },
            appends_shadow: !disable_shadow_host_suffix_append,
            host: match host_rewrite_literal.as_str() {
                "" => None,
                host => Some(field::header_value(host, "host_rewrite_literal")?),
            },
            request_headers: field::each(
                request_headers_mutations,
                "request_headers_mutations",
                HeaderMutation::from_proto,
            )?,
        })
    }

    /// The cluster that is named whatever the request says.
    pub fn named_cluster(&self) -> Option<&Arc<str>> {
        match &self.cluster {
            MirrorCluster::Named(name) => Some(name),
            MirrorCluster::Header(_) => None,
        }
    }
}
