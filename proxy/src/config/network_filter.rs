//! `envoy.config.listener.v3.Filter`: what a filter chain does with its connections.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::listener::v3::{Filter, filter},
        extensions::filters::network::{
            connection_limit::v3::ConnectionLimit as ProtoConnectionLimit,
            direct_response::v3::Config as ProtoDirectResponse, echo::v3::Echo,
            http_connection_manager::v3::HttpConnectionManager as ProtoHttpConnectionManager,
            local_ratelimit::v3::LocalRateLimit as ProtoLocalRateLimit, sni_cluster::v3::SniCluster,
            tcp_proxy::v3::TcpProxy as ProtoTcpProxy,
        },
    },
};

use crate::config::{
    data_source,
    field::{self, Extension, Result, Within as _, refuse, required, unsupported, without_typed_config},
    http_connection_manager::HttpConnectionManager,
    listener::LocalRateLimit,
    tcp_proxy::TcpProxy,
    token_bucket::TokenBucket,
};

/// The last of a chain: it has the connection's bytes.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    HttpConnectionManager(Arc<HttpConnectionManager>),
    TcpProxy(Arc<TcpProxy>),
    /// Sends back what comes.
    Echo,
    /// Sends this and closes.
    DirectResponse(Arc<[u8]>),
    /// There is no filter.
    Close,
}

/// One before the last.
#[derive(Clone, Debug)]
pub enum ConnectionFilter {
    ConnectionLimit(Arc<ConnectionLimit>),
    LocalRateLimit(Arc<LocalRateLimit>),
    /// tcp_proxy goes to the cluster that the client names in TLS.
    SniCluster,
}

#[derive(Debug)]
pub struct ConnectionLimit {
    pub stat_prefix: Arc<str>,
    pub connections_max: u64,
    /// How long a connection too many is kept before it is closed.
    pub delay: Option<Duration>,
}

enum AnyFilter {
    Connection(ConnectionFilter),
    Terminal(NetworkFilter),
}

/// All before the last, and the last.
pub(super) fn chain_from_proto(filters: Vec<Filter>) -> Result<(Vec<ConnectionFilter>, NetworkFilter)> {
    let count = filters.len();
    let mut terminal = NetworkFilter::Close;
    let before = field::each(filters.into_iter().enumerate(), "filters", |(index, message)| {
        let Filter { name, config_type } = message;
        let is_last = index + 1 == count;
        match AnyFilter::from_config(config_type)? {
            AnyFilter::Terminal(filter) if is_last => {
                terminal = filter;
                Ok(None)
            }
            AnyFilter::Connection(filter) if !is_last => Ok(Some(filter)),
            AnyFilter::Terminal(_) => {
                Err(FieldError::new("", format!("terminal filter {name} must be the last filter of its chain")))
            }
            AnyFilter::Connection(_) => {
                Err(FieldError::new("", format!("non-terminal filter {name} is the last filter of its chain")))
            }
        }
    })?;
    Ok((before.into_iter().flatten().collect(), terminal))
}

impl AnyFilter {
    fn from_config(config_type: Option<filter::ConfigType>) -> Result<Self> {
        let extension = match config_type {
            Some(filter::ConfigType::TypedConfig(typed_config)) => Extension::new(typed_config)?,
            Some(filter::ConfigType::ConfigDiscovery(_)) => return Err(unsupported("config_discovery")),
            None => return Err(without_typed_config()),
        };
        if let Some(filter) = NetworkFilter::from_extension(&extension)? {
            return Ok(Self::Terminal(filter));
        }
        let filter = ConnectionFilter::from_extension(&extension)?;
        filter.map(Self::Connection).ok_or_else(|| extension.unsupported())
    }
}

impl NetworkFilter {
    /// None: it is none of these.
    fn from_extension(extension: &Extension) -> Result<Option<Self>> {
        Ok(Some(if extension.is::<ProtoHttpConnectionManager>() {
            let manager = HttpConnectionManager::from_proto(extension.unpack()?).within("typed_config")?;
            Self::HttpConnectionManager(Arc::new(manager))
        } else if extension.is::<ProtoTcpProxy>() {
            Self::TcpProxy(Arc::new(TcpProxy::from_proto(extension.unpack()?).within("typed_config")?))
        } else if extension.is::<Echo>() {
            let Echo {} = extension.unpack()?;
            Self::Echo
        } else if extension.is::<ProtoDirectResponse>() {
            let ProtoDirectResponse { response } = extension.unpack()?;
            let bytes = response.map(data_source::read).transpose().within("typed_config.response")?;
            Self::DirectResponse(bytes.unwrap_or_default().into())
        } else {
            return Ok(None);
        }))
    }
}

impl ConnectionFilter {
    fn from_extension(extension: &Extension) -> Result<Option<Self>> {
        Ok(Some(if extension.is::<ProtoConnectionLimit>() {
            Self::ConnectionLimit(Arc::new(ConnectionLimit::from_proto(extension.unpack()?).within("typed_config")?))
        } else if extension.is::<ProtoLocalRateLimit>() {
            Self::LocalRateLimit(Arc::new(local_rate_limit(extension.unpack()?).within("typed_config")?))
        } else if extension.is::<SniCluster>() {
            let SniCluster {} = extension.unpack()?;
            Self::SniCluster
        } else {
            return Ok(None);
        }))
    }
}

impl ConnectionLimit {
    fn from_proto(message: ProtoConnectionLimit) -> Result<Self> {
        let ProtoConnectionLimit { stat_prefix, max_connections, delay, runtime_enabled } = message;
        refuse!(runtime_enabled);
        // Envoy lets an absent limit stand for none at all to be taken, which nobody means.
        let connections_max = required(max_connections, "max_connections")?.value;
        Ok(Self { stat_prefix: stat_prefix.into(), connections_max, delay: field::timeout_or(delay, None, "delay")? })
    }
}

fn local_rate_limit(message: ProtoLocalRateLimit) -> Result<LocalRateLimit> {
    let ProtoLocalRateLimit { stat_prefix, token_bucket, runtime_enabled, share_key } = message;
    refuse!(runtime_enabled, share_key);
    let token_bucket = TokenBucket::from_proto(required(token_bucket, "token_bucket")?).within("token_bucket")?;
    Ok(LocalRateLimit { stat_prefix: stat_prefix.into(), token_bucket })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::refusal;

    fn chain(filters: &[(&str, &str)]) -> Result<(Vec<ConnectionFilter>, NetworkFilter)> {
        let filters = filters.iter().map(|(kind, fields)| {
            let any = format!("{{'@type': type.googleapis.com/envoy.extensions.filters.network.{kind}{fields}}}");
            weft_xds::json::from_yaml(&format!("{{name: x, typed_config: {any}}}")).unwrap()
        });
        chain_from_proto(filters.collect())
    }

    const ECHO: (&str, &str) = ("echo.v3.Echo", "");
    const SNI: (&str, &str) = ("sni_cluster.v3.SniCluster", "");
    const LIMIT: (&str, &str) =
        ("connection_limit.v3.ConnectionLimit", ", stat_prefix: l, max_connections: 2, delay: 1s");
    const RATE: (&str, &str) =
        ("local_ratelimit.v3.LocalRateLimit", ", stat_prefix: r, token_bucket: {max_tokens: 1, fill_interval: 1s}");

    #[test]
    fn chains_are_read_in_their_order() {
        let (before, last) = chain(&[LIMIT, RATE, SNI, ECHO]).unwrap();
        assert!(matches!(last, NetworkFilter::Echo));
        let [
            ConnectionFilter::ConnectionLimit(limit),
            ConnectionFilter::LocalRateLimit(rate),
            ConnectionFilter::SniCluster,
        ] = &before[..]
        else {
            panic!("{before:?}")
        };
        assert_eq!((limit.connections_max, limit.delay, &*rate.stat_prefix), (2, Some(Duration::from_secs(1)), "r"));
        let (_, last) = chain(&[("direct_response.v3.Config", ", response: {inline_string: bye}")]).unwrap();
        assert!(matches!(last, NetworkFilter::DirectResponse(bytes) if &*bytes == b"bye"));
        assert!(matches!(chain(&[]).unwrap().1, NetworkFilter::Close));
    }

    #[test]
    fn the_terminal_filter_is_the_last() {
        assert_eq!(refusal(chain(&[ECHO, ECHO])), "filters[0]: terminal filter x must be the last filter of its chain");
        assert_eq!(refusal(chain(&[SNI])), "filters[0]: non-terminal filter x is the last filter of its chain");
        let unlimited = ("connection_limit.v3.ConnectionLimit", ", stat_prefix: l");
        assert_eq!(refusal(chain(&[unlimited, ECHO])), "filters[0].typed_config.max_connections: value is required");
    }
}
