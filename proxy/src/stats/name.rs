//! The names of statistics: Envoy's dotted names, and the parts of them that are labels in Prometheus text.
//!
//! Envoy finds such parts again by regular expressions; here whoever builds a name says which parts they are, so that a
//! cluster whose name has dots keeps it whole.

use std::ops::Range;

/// What a part of a name says. In the order in which Prometheus text has the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    ResponseCode,
    ResponseCodeClass,
    WorkerId,
    LocalHttpRateLimitPrefix,
    ExtAuthzPrefix,
    RbacPolicyName,
    RbacHttpPrefix,
    /// Those before it come before tags of the bootstrap, the others behind them.
    TcpPrefix,
    ClusterName,
    HttpConnectionManagerPrefix,
    ListenerAddress,
    RouteConfiguration,
    LocalNetworkRateLimitPrefix,
    LocalListenerRateLimitPrefix,
    ConnectionLimitPrefix,
    ProxyProtocolVersion,
    ProxyProtocolPrefix,
    RbacPrefix,
}

/// A dotted name, whole or as far as it is known, with the parts that are tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricName {
    text: String,
    tagged: Vec<TaggedPart>,
}

/// `removed` goes from the name where the tag stands beside it; `value` lies within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedPart {
    pub tag: Tag,
    pub removed: Range<usize>,
    pub value: Range<usize>,
}

impl Tag {
    /// As Envoy calls it.
    pub fn name(self) -> &'static str {
        match self {
            Tag::ResponseCode => "envoy.response_code",
            Tag::ResponseCodeClass => "envoy.response_code_class",
            Tag::WorkerId => "envoy.worker_id",
            Tag::LocalHttpRateLimitPrefix => "envoy.local_http_ratelimit_prefix",
            Tag::TcpPrefix => "envoy.tcp_prefix",
            Tag::ClusterName => "envoy.cluster_name",
            Tag::HttpConnectionManagerPrefix => "envoy.http_conn_manager_prefix",
            Tag::ListenerAddress => "envoy.listener_address",
            Tag::RouteConfiguration => "envoy.rds_route_config",
            Tag::LocalNetworkRateLimitPrefix => "envoy.local_network_ratelimit_prefix",
            Tag::LocalListenerRateLimitPrefix => "envoy.local_listener_ratelimit_prefix",
            Tag::ConnectionLimitPrefix => "envoy.connection_limit_prefix",
            Tag::ProxyProtocolVersion => "envoy.proxy_protocol_version",
            Tag::ExtAuthzPrefix => "envoy.ext_authz_prefix",
            Tag::RbacPolicyName => "envoy.rbac_policy_name",
            Tag::RbacHttpPrefix => "envoy.rbac_http_prefix",
            Tag::RbacPrefix => "envoy.rbac_prefix",
            Tag::ProxyProtocolPrefix => "envoy.proxy_protocol_prefix",
        }
    }
}

impl MetricName {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), tagged: Vec::new() }
    }

    /// Goes on with this text.
    pub fn then(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Goes on with a value and a dot. Nothing where the value is empty. What would be mistaken for a part of an address
    /// is an underscore in it, as in Envoy.
    pub fn tagged(self, tag: Tag, value: &str) -> Self {
        if value.is_empty() {
            return self;
        }
        let value = value.replace("://", "_").replace([':', '\0'], "_");
        self.with_part(tag, "", &value, ".")
    }

    /// Goes on with a value and what stands around it, all of which is gone where the tag is known.
    pub fn with_part(mut self, tag: Tag, before: &str, value: &str, after: &str) -> Self {
        let start = self.text.len();
        for text in [before, value, after] {
            self.text.push_str(text);
        }
        let value = start + before.len()..start + before.len() + value.len();
        self.tagged.push(TaggedPart { tag, removed: start..self.text.len(), value });
        self
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn tagged_parts(&self) -> &[TaggedPart] {
        &self.tagged
    }

    /// How much of it there is, for `cut_to`.
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.text.len(), self.tagged.len())
    }

    pub(super) fn cut_to(&mut self, (text, tagged): (usize, usize)) {
        self.text.truncate(text);
        self.tagged.truncate(tagged);
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_knows_its_parts() {
        let name = MetricName::new("cluster.").tagged(Tag::ClusterName, "a.b:80").then("upstream_rq");
        let name = name.with_part(Tag::ResponseCode, "_", "200", "");
        assert_eq!(name.text(), "cluster.a.b_80.upstream_rq_200");
        let parts: Vec<_> =
            name.tagged_parts().iter().map(|part| (part.tag, &name.text()[part.value.clone()])).collect();
        assert_eq!(parts, [(Tag::ClusterName, "a.b_80"), (Tag::ResponseCode, "200")]);
        assert_eq!(&name.text()[name.tagged_parts()[0].removed.clone()], "a.b_80.");
        assert_eq!(MetricName::new("x.").tagged(Tag::TcpPrefix, ""), MetricName::new("x."));
    }
}
