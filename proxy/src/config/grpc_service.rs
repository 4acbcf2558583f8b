//! `envoy.config.core.v3.GrpcService`: whom a filter asks.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{
        GrpcService, HeaderValue as ProtoHeaderValue,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
};

use crate::config::field::{self, Result, refuse, required, timeout_or, unsupported};

#[derive(Clone, Debug)]
pub struct GrpcTarget {
    pub cluster: Arc<str>,
    /// None: no bound.
    pub timeout: Option<Duration>,
    /// Goes with every call.
    pub metadata: HeaderMap,
    pub response_bytes_max: usize,
}

/// gRPC's own default bound.
const RESPONSE_BYTES_MAX: u32 = 4 << 20;

impl GrpcTarget {
    /// `timeout`: what holds where the message says nothing.
    pub(crate) fn from_proto(message: GrpcService, timeout: Option<Duration>) -> Result<Self> {
        let GrpcService { timeout: own_timeout, initial_metadata, retry_policy, target_specifier } = message;
        refuse!(retry_policy);
        let target = match required(target_specifier, "target_specifier")? {
            TargetSpecifier::EnvoyGrpc(target) => target,
            TargetSpecifier::GoogleGrpc(_) => return Err(unsupported("google_grpc")),
        };
        let EnvoyGrpc { cluster_name, authority, retry_policy, max_receive_message_length, skip_envoy_headers } =
            target;
        field::unset(&authority, "envoy_grpc.authority")?;
        field::unset(&retry_policy, "envoy_grpc.retry_policy")?;
        field::unset(&skip_envoy_headers, "envoy_grpc.skip_envoy_headers")?;
        let mut metadata = HeaderMap::new();
        for (index, message) in initial_metadata.into_iter().enumerate() {
            let ProtoHeaderValue { key, value, raw_value } = message;
            let path = field::element("initial_metadata", index);
            field::unset(&raw_value, &format!("{path}.raw_value"))?;
            let name = HeaderName::from_bytes(key.as_bytes())
                .map_err(|_| FieldError::new(format!("{path}.key"), "not a header name"))?;
            metadata.append(name, field::header_value(&value, &format!("{path}.value"))?);
        }
        Ok(Self {
            cluster: cluster_name.into(),
            timeout: timeout_or(own_timeout, timeout, "timeout")?,
            metadata,
            response_bytes_max: field::u32_or(max_receive_message_length, RESPONSE_BYTES_MAX) as usize,
        })
    }
}
