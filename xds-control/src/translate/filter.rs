//! What listeners are made of: filter chains, their filters, and the access log that these write.

use std::time::Duration;

use weft_xds::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use weft_xds::pb::envoy::config::core::v3::substitution_format_string::Format;
use weft_xds::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString, data_source};
use weft_xds::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, ListenerFilter, filter, listener_filter,
};
use weft_xds::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use weft_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use weft_xds::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use weft_xds::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use weft_xds::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use weft_xds::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier, UpgradeConfig,
};
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use weft_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use weft_xds::pb::envoy::r#type::v3::{HashPolicy, hash_policy};
use weft_xds::pb::google::protobuf::{Any, Struct, Value, value};

use super::proto::{aggregated, boolean, duration, pack, uint32};
use super::{AccessLogFormat, MeshSettings};
use crate::model::service::Affinity;

pub(super) fn chain(name: &str, filter_chain_match: Option<FilterChainMatch>, filter: Filter) -> FilterChain {
    FilterChain { name: name.to_owned(), filter_chain_match, filters: vec![filter], ..FilterChain::default() }
}

pub(super) fn port_match(port: u16) -> FilterChainMatch {
    FilterChainMatch { destination_port: uint32(u32::from(port)), ..FilterChainMatch::default() }
}

/// Requests of either version, HTTP/2 with prior knowledge.
pub(super) fn http_match() -> FilterChainMatch {
    FilterChainMatch {
        application_protocols: vec!["http/1.0".to_owned(), "http/1.1".to_owned(), "h2c".to_owned()],
        ..FilterChainMatch::default()
    }
}

pub(super) fn rds(route_config_name: &str) -> RouteSpecifier {
    RouteSpecifier::Rds(Rds { config_source: aggregated(), route_config_name: route_config_name.to_owned() })
}

pub(super) fn http(stat_prefix: String, routes: RouteSpecifier, settings: &MeshSettings) -> Filter {
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix,
        route_specifier: Some(routes),
        http_filters: vec![router()],
        // The peer is a sidecar or the application, not the outer world: its headers are believed.
        use_remote_address: boolean(false),
        // How long a stream may be silent is for the application to say.
        stream_idle_timeout: duration(Duration::ZERO),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        access_log: access_log(settings),
        ..HttpConnectionManager::default()
    };
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&manager))),
    }
}

pub(super) fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..HttpFilter::default()
    }
}

pub(super) fn tcp(cluster: &str, affinity: Affinity, settings: &MeshSettings) -> Filter {
    let by_source =
        HashPolicy { policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})) };
    let proxy = TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        hash_policy: match affinity {
            Affinity::None => Vec::new(),
            Affinity::ClientAddress => vec![by_source],
        },
        access_log: access_log(settings),
        ..TcpProxy::default()
    };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&proxy))),
    }
}

pub(super) fn access_log(settings: &MeshSettings) -> Vec<AccessLog> {
    let Some(log) = &settings.access_log else { return Vec::new() };
    let format = match &log.format {
        AccessLogFormat::Default => None,
        AccessLogFormat::Text(text) => Some(Format::TextFormatSource(DataSource {
            specifier: Some(data_source::Specifier::InlineString(text.clone())),
            ..DataSource::default()
        })),
        AccessLogFormat::Json(fields) => {
            let value = |text: &String| Value { kind: Some(value::Kind::StringValue(text.clone())) };
            let fields = fields.iter().map(|(key, text)| (key.clone(), value(text))).collect();
            Some(Format::JsonFormat(Struct { fields }))
        }
    };
    let format = format.map(|format| SubstitutionFormatString {
        // In JSON, what is not there is null; in text, a dash.
        omit_empty_values: false,
        format: Some(format),
        ..SubstitutionFormatString::default()
    });
    let file = FileAccessLog {
        path: log.file.clone(),
        access_log_format: format.map(file_access_log::AccessLogFormat::LogFormat),
    };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(pack(&file))),
    }]
}

pub(super) fn original_dst() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", pack(&OriginalDst::default()))
}

/// Connections upstream come from the client's own address, with the mark that redirection knows them by.
pub(super) fn original_src() -> ListenerFilter {
    let config = OriginalSrc { mark: TPROXY_MARK, ..OriginalSrc::default() };
    listener_filter("envoy.filters.listener.original_src", pack(&config))
}

const TPROXY_MARK: u32 = 1337;

pub(super) fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", pack(&HttpInspector::default()))
}

pub(super) fn tls_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.tls_inspector", pack(&TlsInspector::default()))
}

fn listener_filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
    }
}
