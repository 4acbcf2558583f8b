//! `transport_socket` and `transport_socket_matches` of a cluster: what stands between TCP and the bytes of a connection.

use std::{collections::HashSet, sync::Arc};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::{
            cluster::v3::cluster::TransportSocketMatch as ProtoTransportSocketMatch,
            core::v3::{TransportSocket, transport_socket},
        },
        extensions::transport_sockets::{
            proxy_protocol::v3::ProxyProtocolUpstreamTransport, raw_buffer::v3::RawBuffer, tls::v3::UpstreamTlsContext,
        },
    },
};

use crate::config::{
    field::{self, Extension, Result, Within as _, refuse, required, unsupported, without_typed_config},
    metadata::{Fields, Metadata, TRANSPORT_SOCKET_MATCH_NAMESPACE, Value, fields_of},
    proxy_protocol::UpstreamProxyProtocol,
    tls::UpstreamTls,
};

/// Outermost first.
pub(super) struct Transport {
    pub(super) proxy_protocol: Option<UpstreamProxyProtocol>,
    pub(super) tls: Option<UpstreamTls>,
}

/// Hosts whose metadata has these values take this transport.
#[derive(Debug)]
pub struct TransportMatch {
    pub name: Arc<str>,
    wanted: Fields,
    /// None: plain text.
    pub tls: Option<Arc<UpstreamTls>>,
}

impl Transport {
    pub(super) fn from_proto(message: Option<TransportSocket>) -> Result<Self> {
        let plain = Self { proxy_protocol: None, tls: None };
        let Some(TransportSocket { name: _, config_type }) = message else { return Ok(plain) };
        let Some(transport_socket::ConfigType::TypedConfig(typed_config)) = config_type else {
            return Err(without_typed_config());
        };
        let extension = Extension::new(typed_config)?;
        if extension.is::<UpstreamTlsContext>() {
            let tls = UpstreamTls::from_proto(extension.unpack()?).within("typed_config")?;
            Ok(Self { tls: Some(tls), ..plain })
        } else if extension.is::<RawBuffer>() {
            extension.unpack().map(|RawBuffer {}| plain)
        } else if extension.is::<ProxyProtocolUpstreamTransport>() {
            Self::behind_proxy_protocol(extension.unpack()?).within("typed_config")
        } else {
            Err(extension.unsupported())
        }
    }

    fn behind_proxy_protocol(message: ProxyProtocolUpstreamTransport) -> Result<Self> {
        let ProxyProtocolUpstreamTransport { config, transport_socket, allow_unspecified_address, tlv_as_pool_key: _ } =
            message; // connections are pooled by downstream, whose extensions are always the same
        refuse!(allow_unspecified_address);
        let proxy_protocol = UpstreamProxyProtocol::from_proto(config.unwrap_or_default()).within("config")?;
        let inner =
            Self::from_proto(Some(required(transport_socket, "transport_socket")?)).within("transport_socket")?;
        if inner.proxy_protocol.is_some() {
            return Err(FieldError::new("transport_socket", "one header of the PROXY protocol is enough"));
        }
        Ok(Self { proxy_protocol: Some(proxy_protocol), tls: inner.tls })
    }
}

impl TransportMatch {
    pub(super) fn list(messages: Vec<ProtoTransportSocketMatch>) -> Result<Vec<Self>> {
        let mut names = HashSet::new();
        field::each(messages, "transport_socket_matches", |message| {
            let ProtoTransportSocketMatch { name, r#match, transport_socket } = message;
            if !names.insert(name.clone()) {
                return Err(FieldError::new("name", format!("duplicate match '{name}'")));
            }
            let transport = Transport::from_proto(transport_socket).within("transport_socket")?;
            if transport.proxy_protocol.is_some() {
                return Err(unsupported("transport_socket.typed_config"));
            }
            let wanted = r#match.map(fields_of).unwrap_or_default();
            Ok(Self { name: name.into(), wanted, tls: transport.tls.map(Arc::new) })
        })
    }

    /// Whether a host has all of the values; a list of the host's stands for any of its elements.
    pub fn takes(&self, host: &Metadata) -> bool {
        let Some(fields) = host.namespace(TRANSPORT_SOCKET_MATCH_NAMESPACE) else { return self.wanted.is_empty() };
        self.wanted.iter().all(|(name, wanted)| match fields.get(name) {
            Some(Value::List(values)) if !matches!(wanted, Value::List(_)) => values.contains(wanted),
            Some(value) => value == wanted,
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        cluster::ClusterConfig,
        testing::{assert_refused, message},
    };

    const RAW: &str = "transport_socket: {name: raw, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}";
    const TLS: &str = "transport_socket: {name: tls, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}";

    #[test]
    fn hosts_take_the_first_transport_that_their_metadata_has() {
        let cluster = ClusterConfig::from_proto(message(&format!(
            "{{name: c, {TLS}, transport_socket_matches: [{{name: a, match: {{v: x, w: 1}}, {RAW}}}, {{name: b, match: {{v: \
             x}}, {TLS}}}]}}"
        )))
        .unwrap();
        let name = |metadata: &str| {
            let found = cluster.transport_match(&Metadata::from_proto(message(metadata)));
            found.map(|found| (found.name.to_string(), found.tls.is_some()))
        };
        let of = |fields: &str| name(&format!("filter_metadata: {{envoy.transport_socket_match: {fields}}}"));
        assert_eq!(of("{v: x, w: 1, z: 0}"), Some(("a".to_owned(), false)));
        assert_eq!(of("{v: [y, x]}"), Some(("b".to_owned(), true)));
        assert_eq!((of("{v: y}"), name("{}")), (None, None));
        assert_eq!(cluster.tls_contexts().count(), 2);
    }

    #[test]
    fn matches_have_names_of_their_own() {
        let twice = format!("transport_socket_matches: [{{name: a, {RAW}}}, {{name: a, {RAW}}}]");
        let unknown = "transport_socket_matches: [{name: a, transport_socket: {name: x}}]";
        assert_refused(
            "name: c",
            ClusterConfig::from_proto,
            &[
                (&twice, "transport_socket_matches[1].name: duplicate match 'a'"),
                (unknown, "transport_socket_matches[0].transport_socket.typed_config: value is required"),
            ],
        );
    }
}
