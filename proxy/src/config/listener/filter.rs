//! `envoy.config.listener.v3.ListenerFilter`: what is learned of a connection before a filter chain has it.

use std::sync::Arc;

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::listener::v3::{
            ListenerFilter as ProtoListenerFilter, ListenerFilterChainMatchPredicate,
            listener_filter::ConfigType,
            listener_filter_chain_match_predicate::{MatchSet, Rule},
        },
        extensions::filters::listener::{
            http_inspector::v3::HttpInspector, local_ratelimit::v3::LocalRateLimit as ProtoLocalRateLimit,
            original_dst::v3::OriginalDst, original_src::v3::OriginalSrc,
            proxy_protocol::v3::ProxyProtocol as ProtoProxyProtocol,
            tls_inspector::v3::TlsInspector as ProtoTlsInspector,
        },
        r#type::v3::Int32Range,
    },
};

use crate::{
    config::{
        field::{self, Extension, Result, Within as _, refuse, required, unsupported, without_typed_config},
        proxy_protocol::ProxyProtocol,
        token_bucket::TokenBucket,
    },
    listener::inspect::client_hello::HELLO_BYTES_MAX,
};

#[derive(Debug)]
pub struct ListenerFilter {
    pub kind: ListenerFilterKind,
    /// Connections that it passes over.
    pub disabled: Option<Predicate>,
}

#[derive(Debug)]
pub enum ListenerFilterKind {
    OriginalDst,
    /// Upstream connections come from the downstream's address; the mark, if not 0, on their packets.
    OriginalSrc {
        mark: u32,
    },
    TlsInspector(TlsInspector),
    HttpInspector,
    ProxyProtocol(Arc<ProxyProtocol>),
    LocalRateLimit(Arc<LocalRateLimit>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsInspector {
    pub hello_bytes_max: usize,
    /// What is no TLS is closed, rather than taken for plain text.
    pub must_be_tls: bool,
}

/// Connections at a rate.
#[derive(Debug)]
pub struct LocalRateLimit {
    pub stat_prefix: Arc<str>,
    pub token_bucket: TokenBucket,
}

/// Over a connection's destination port, as it is known when the filter's turn comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    Any,
    Or(Vec<Predicate>),
    And(Vec<Predicate>),
    Not(Box<Predicate>),
    /// From the first to before the second.
    DestinationPort {
        start: i32,
        end: i32,
    },
}

impl ListenerFilter {
    pub(super) fn from_proto(message: ProtoListenerFilter) -> Result<Self> {
        let ProtoListenerFilter { name: _, filter_disabled, config_type } = message;
        let extension = match config_type {
            Some(ConfigType::TypedConfig(typed_config)) => Extension::new(typed_config)?,
            Some(ConfigType::ConfigDiscovery(_)) => return Err(unsupported("config_discovery")),
            None => return Err(without_typed_config()),
        };
        Ok(Self {
            kind: ListenerFilterKind::from_extension(&extension)?,
            disabled: filter_disabled.map(Predicate::from_proto).transpose().within("filter_disabled")?,
        })
    }

    /// As the older `use_proxy_proto` of a filter chain asks for it.
    pub(super) fn proxy_protocol() -> Self {
        Self { kind: ListenerFilterKind::ProxyProtocol(Arc::default()), disabled: None }
    }

    pub fn is_enabled(&self, destination_port: u16) -> bool {
        self.disabled.as_ref().is_none_or(|predicate| !predicate.matches(destination_port))
    }

    /// Whether it has to see bytes of the connection.
    pub fn needs_bytes(&self) -> bool {
        match self.kind {
            ListenerFilterKind::TlsInspector(_)
            | ListenerFilterKind::HttpInspector
            | ListenerFilterKind::ProxyProtocol(_) => true,
            ListenerFilterKind::OriginalDst
            | ListenerFilterKind::OriginalSrc { .. }
            | ListenerFilterKind::LocalRateLimit(_) => false,
        }
    }
}

impl ListenerFilterKind {
    fn from_extension(extension: &Extension) -> Result<Self> {
        if extension.is::<OriginalDst>() {
            extension.unpack().map(|OriginalDst {}| Self::OriginalDst)
        } else if extension.is::<OriginalSrc>() {
            // Envoy does not bind the port either.
            extension.unpack().map(|OriginalSrc { bind_port: _, mark }| Self::OriginalSrc { mark })
        } else if extension.is::<HttpInspector>() {
            extension.unpack().map(|HttpInspector {}| Self::HttpInspector)
        } else if extension.is::<ProtoTlsInspector>() {
            TlsInspector::from_proto(extension.unpack()?).within("typed_config").map(Self::TlsInspector)
        } else if extension.is::<ProtoProxyProtocol>() {
            let filter = ProxyProtocol::from_proto(extension.unpack()?).within("typed_config")?;
            Ok(Self::ProxyProtocol(Arc::new(filter)))
        } else if extension.is::<ProtoLocalRateLimit>() {
            let filter = LocalRateLimit::from_proto(extension.unpack()?).within("typed_config")?;
            Ok(Self::LocalRateLimit(Arc::new(filter)))
        } else {
            Err(extension.unsupported())
        }
    }
}

impl TlsInspector {
    fn from_proto(message: ProtoTlsInspector) -> Result<Self> {
        let ProtoTlsInspector {
            enable_ja3_fingerprinting,
            enable_ja4_fingerprinting,
            initial_read_buffer_size: _, // how the peeking begins: no one sees it outside
            close_connection_on_client_hello_parsing_errors,
            max_client_hello_size,
        } = message;
        field::only(enable_ja3_fingerprinting, false, "enable_ja3_fingerprinting")?;
        field::only(enable_ja4_fingerprinting, false, "enable_ja4_fingerprinting")?;
        let hello_bytes_max = field::u32_or(max_client_hello_size, HELLO_BYTES_MAX as u32) as usize;
        Ok(Self { hello_bytes_max, must_be_tls: close_connection_on_client_hello_parsing_errors })
    }
}

impl LocalRateLimit {
    fn from_proto(message: ProtoLocalRateLimit) -> Result<Self> {
        let ProtoLocalRateLimit { stat_prefix, token_bucket, runtime_enabled } = message;
        refuse!(runtime_enabled);
        let token_bucket = TokenBucket::from_proto(required(token_bucket, "token_bucket")?).within("token_bucket")?;
        Ok(Self { stat_prefix: stat_prefix.into(), token_bucket })
    }
}

impl Predicate {
    fn from_proto(message: ListenerFilterChainMatchPredicate) -> Result<Self> {
        let set = |MatchSet { rules }, path: &str| field::each(rules, "rules", Self::from_proto).within(path);
        match required(message.rule, "rule")? {
            Rule::OrMatch(rules) => set(rules, "or_match").map(Self::Or),
            Rule::AndMatch(rules) => set(rules, "and_match").map(Self::And),
            Rule::NotMatch(rule) => Self::from_proto(*rule).within("not_match").map(|rule| Self::Not(Box::new(rule))),
            Rule::AnyMatch(true) => Ok(Self::Any),
            Rule::AnyMatch(false) => Err(FieldError::new("any_match", "value must be true")),
            Rule::DestinationPortRange(Int32Range { start, end }) => Ok(Self::DestinationPort { start, end }),
        }
    }

    pub fn matches(&self, destination_port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(destination_port)),
            Self::And(rules) => rules.iter().all(|rule| rule.matches(destination_port)),
            Self::Not(rule) => !rule.matches(destination_port),
            Self::DestinationPort { start, end } => (*start..*end).contains(&i32::from(destination_port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    fn filter(kind: &str, fields: &str) -> Result<ListenerFilter> {
        let any = format!("{{'@type': type.googleapis.com/envoy.extensions.filters.listener.{kind}{fields}}}");
        ListenerFilter::from_proto(weft_xds::json::from_yaml(&format!("{{name: x, typed_config: {any}}}")).unwrap())
    }

    fn predicate(yaml: &str) -> Predicate {
        Predicate::from_proto(message(yaml)).unwrap()
    }

    #[test]
    fn filters_are_read() {
        let kind = |kind: &str, fields: &str| filter(kind, fields).unwrap().kind;
        let tls = kind(
            "tls_inspector.v3.TlsInspector",
            ", max_client_hello_size: 300, close_connection_on_client_hello_parsing_errors: true",
        );
        let expected = TlsInspector { hello_bytes_max: 300, must_be_tls: true };
        assert!(matches!(tls, ListenerFilterKind::TlsInspector(read) if read == expected), "{tls:?}");
        let source = kind("original_src.v3.OriginalSrc", ", mark: 7");
        assert!(matches!(source, ListenerFilterKind::OriginalSrc { mark: 7 }), "{source:?}");
        let limit = kind(
            "local_ratelimit.v3.LocalRateLimit",
            ", stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 1s}",
        );
        assert!(matches!(&limit, ListenerFilterKind::LocalRateLimit(limit) if &*limit.stat_prefix == "s"), "{limit:?}");
        assert!(filter("proxy_protocol.v3.ProxyProtocol", "").unwrap().needs_bytes());
        assert!(!filter("original_dst.v3.OriginalDst", "").unwrap().needs_bytes());
    }

    #[test]
    fn refusals_name_the_field() {
        for (kind, fields, expected) in [
            (
                "tls_inspector.v3.TlsInspector",
                ", enable_ja3_fingerprinting: true",
                "typed_config.enable_ja3_fingerprinting: true is not supported",
            ),
            (
                "local_ratelimit.v3.LocalRateLimit",
                ", stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 0.01s}",
                "typed_config.token_bucket.fill_interval: value must be at least 50ms",
            ),
        ] {
            assert_eq!(refusal(filter(kind, fields)), expected);
        }
    }

    #[test]
    fn predicates_are_over_the_destination_port() {
        let mysql = predicate("destination_port_range: {start: 3306, end: 3307}");
        assert!(mysql.matches(3306) && !mysql.matches(3307) && !mysql.matches(3305));
        let either = predicate(
            "or_match: {rules: [{destination_port_range: {start: 1, end: 3}}, {not_match: {destination_port_range: {start: 0, end: 9}}}]}",
        );
        assert_eq!([0, 1, 2, 3, 8, 9].map(|port| either.matches(port)), [false, true, true, false, false, true]);
        let both = predicate("and_match: {rules: [{any_match: true}, {destination_port_range: {start: 5, end: 6}}]}");
        assert!(both.matches(5) && !both.matches(6));
    }
}
