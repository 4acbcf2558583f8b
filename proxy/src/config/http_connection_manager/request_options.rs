//! What a connection manager does to every request before it is routed: its path, its host, its headers, and whose it is.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;
use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::core::v3::{
                SchemeHeaderTransformation, TypedExtensionConfig, http_protocol_options::HeadersWithUnderscoresAction,
                scheme_header_transformation::Transformation,
            },
            extensions::{
                filters::network::http_connection_manager::v3::http_connection_manager::{
                    ForwardClientCertDetails as ProtoForwardClientCertDetails, InternalAddressConfig,
                    PathWithEscapedSlashesAction, SetCurrentClientCertDetails, StripPortMode,
                },
                http::{
                    early_header_mutation::header_mutation::v3::HeaderMutation as ProtoEarlyMutation,
                    original_ip_detection::{custom_header::v3::CustomHeaderConfig, xff::v3::XffConfig},
                },
                request_id::uuid::v3::UuidRequestIdConfig,
            },
        },
        google::protobuf::BoolValue,
    },
};

use crate::config::{
    address,
    field::{self, Extension, Result, Within as _, without_typed_config},
    header_mutation::HeaderMutation,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    pub escaped_slashes: EscapedSlashes,
    pub normalize: bool,
    pub merge_slashes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    pub strip_port: StripPort,
    pub strip_trailing_dot: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StripPort {
    #[default]
    No,
    /// The listener's own.
    Matching,
    Any,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchemeOptions {
    /// `https` or `http` whatever the request says.
    pub overwrite: Option<&'static str>,
    /// As the upstream connection is.
    pub match_upstream: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscoresAction {
    #[default]
    Allow,
    Reject,
    Drop,
}

/// Whose request it is.
#[derive(Clone, Debug, Default)]
pub struct CallerOptions {
    pub use_remote_address: bool,
    pub xff_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub internal: InternalAddresses,
    /// Asked in order instead of `x-forwarded-for`.
    pub detection: Vec<IpDetection>,
    pub append_x_forwarded_port: bool,
    pub ipv4_mapped: bool,
}

/// Callers from these are trusted with headers that steer the router.
#[derive(Clone, Debug, Default)]
pub struct InternalAddresses {
    pub ranges: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub enum IpDetection {
    ForwardedFor { trusted: TrustedProxies, skip_xff_append: bool },
    CustomHeader { name: HeaderName, trusted: bool, reject_with: Option<http::StatusCode> },
}

#[derive(Clone, Debug)]
pub enum TrustedProxies {
    Hops(u32),
    Ranges(Vec<IpNet>),
}

#[derive(Clone, Debug)]
pub struct RequestIdOptions {
    pub generate: bool,
    pub preserve_external: bool,
    pub always_set_in_response: bool,
}

/// `x-forwarded-client-cert`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardClientCert {
    pub forwarding: ClientCertForwarding,
    /// What is said of the caller's certificate besides its hash, in order.
    pub details: Vec<ClientCertDetail>,
}

/// What becomes of what a request brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertForwarding {
    #[default]
    Sanitize,
    /// Of callers that have shown a certificate of their own; of others it is removed. So it is in the two cases that follow.
    ForwardOnly,
    /// And what is known of the caller goes behind it.
    AppendForward,
    /// What is known of the caller goes in its place.
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertDetail {
    Cert,
    Chain,
    Subject,
    Issuer,
    Uri,
    Dns,
}

impl PathOptions {
    pub(super) fn from_proto(normalize: Option<BoolValue>, merge_slashes: bool, escaped_slashes: i32) -> Result<Self> {
        let escaped_slashes = match field::enumeration(escaped_slashes, "path_with_escaped_slashes_action")? {
            // Envoy's own choice is to leave them alone.
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        };
        Ok(Self { escaped_slashes, normalize: field::bool_or(normalize, false), merge_slashes })
    }
}

impl HostOptions {
    pub(super) fn from_proto(matching: bool, mode: Option<StripPortMode>, strip_trailing_dot: bool) -> Result<Self> {
        let strip_port = match mode {
            Some(StripPortMode::StripAnyHostPort(true)) if matching => {
                return Err(FieldError::new(
                    "strip_any_host_port",
                    "cannot be set together with strip_matching_host_port",
                ));
            }
            Some(StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
            Some(StripPortMode::StripAnyHostPort(false)) | None if matching => StripPort::Matching,
            Some(StripPortMode::StripAnyHostPort(false)) | None => StripPort::No,
        };
        Ok(Self { strip_port, strip_trailing_dot })
    }
}

impl SchemeOptions {
    pub(super) fn from_proto(message: Option<SchemeHeaderTransformation>) -> Result<Self> {
        let SchemeHeaderTransformation { match_upstream, transformation } = message.unwrap_or_default();
        let overwrite = match transformation {
            None => None,
            Some(Transformation::SchemeToOverwrite(scheme)) => match scheme.as_str() {
                "http" => Some("http"),
                "https" => Some("https"),
                _ => return Err(FieldError::new("scheme_to_overwrite", "neither http nor https")),
            },
        };
        Ok(Self { overwrite, match_upstream })
    }
}

impl UnderscoresAction {
    pub(super) fn from_proto(action: i32) -> Result<Self> {
        Ok(match field::enumeration(action, "headers_with_underscores_action")? {
            HeadersWithUnderscoresAction::Allow => Self::Allow,
            HeadersWithUnderscoresAction::RejectRequest => Self::Reject,
            HeadersWithUnderscoresAction::DropHeader => Self::Drop,
        })
    }
}

impl InternalAddresses {
    /// Where nothing is configured no caller is internal, as in Envoy.
    pub(super) fn from_proto(message: Option<InternalAddressConfig>) -> Result<Self> {
        let InternalAddressConfig { unix_sockets: _, cidr_ranges } = message.unwrap_or_default(); // nobody calls by one
        Ok(Self { ranges: field::each(cidr_ranges, "cidr_ranges", address::network)? })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

impl IpDetection {
    pub(super) fn from_proto(message: TypedExtensionConfig) -> Result<Self> {
        let TypedExtensionConfig { name: _, typed_config } = message;
        let extension = Extension::new(typed_config.ok_or_else(without_typed_config)?)?;
        if extension.is::<XffConfig>() {
            Self::forwarded_for(extension.unpack()?).within("typed_config")
        } else if extension.is::<CustomHeaderConfig>() {
            Self::custom_header(extension.unpack()?).within("typed_config")
        } else {
            Err(extension.unsupported())
        }
    }

    fn forwarded_for(message: XffConfig) -> Result<Self> {
        let XffConfig { xff_num_trusted_hops, xff_trusted_cidrs, skip_xff_append } = message;
        let trusted = match xff_trusted_cidrs {
            None => TrustedProxies::Hops(xff_num_trusted_hops),
            Some(_) if xff_num_trusted_hops > 0 => {
                return Err(FieldError::new("xff_trusted_cidrs", "cannot be set together with xff_num_trusted_hops"));
            }
            Some(trusted) => {
                let ranges = field::each(trusted.cidrs, "cidrs", address::network).within("xff_trusted_cidrs")?;
                TrustedProxies::Ranges(ranges)
            }
        };
        Ok(Self::ForwardedFor { trusted, skip_xff_append: field::bool_or(skip_xff_append, true) })
    }

    fn custom_header(message: CustomHeaderConfig) -> Result<Self> {
        let CustomHeaderConfig { header_name, allow_extension_to_set_address_as_trusted, reject_with_status } = message;
        let name = HeaderName::from_bytes(header_name.as_bytes())
            .map_err(|_| FieldError::new("header_name", "not a header name"))?;
        let reject_with = reject_with_status
            .and_then(|status| u16::try_from(status.code).ok())
            .map(|code| http::StatusCode::from_u16(code).ok().filter(|code| code.as_u16() >= 400))
            .map(|code| code.unwrap_or(http::StatusCode::FORBIDDEN));
        Ok(Self::CustomHeader { name, trusted: allow_extension_to_set_address_as_trusted, reject_with })
    }
}

impl ForwardClientCert {
    pub(super) fn from_proto(forwarding: i32, details: Option<SetCurrentClientCertDetails>) -> Result<Self> {
        let forwarding = match field::enumeration(forwarding, "forward_client_cert_details")? {
            ProtoForwardClientCertDetails::Sanitize => ClientCertForwarding::Sanitize,
            ProtoForwardClientCertDetails::ForwardOnly => ClientCertForwarding::ForwardOnly,
            ProtoForwardClientCertDetails::AppendForward => ClientCertForwarding::AppendForward,
            ProtoForwardClientCertDetails::SanitizeSet => ClientCertForwarding::SanitizeSet,
            ProtoForwardClientCertDetails::AlwaysForwardOnly => ClientCertForwarding::AlwaysForwardOnly,
        };
        let SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format } =
            details.unwrap_or_default();
        field::unset(&format, "format").within("set_current_client_cert_details")?;
        let wanted = [
            (cert, ClientCertDetail::Cert),
            (chain, ClientCertDetail::Chain),
            (field::bool_or(subject, false), ClientCertDetail::Subject),
            (issuer, ClientCertDetail::Issuer),
            (uri, ClientCertDetail::Uri),
            (dns, ClientCertDetail::Dns),
        ];
        let details = wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, detail)| detail).collect();
        Ok(Self { forwarding, details })
    }
}

/// `early_header_mutation_extensions`: before anything else looks at a request.
pub(super) fn early_mutation(message: TypedExtensionConfig) -> Result<Vec<HeaderMutation>> {
    let TypedExtensionConfig { name: _, typed_config } = message;
    let extension = Extension::new(typed_config.ok_or_else(without_typed_config)?)?;
    if !extension.is::<ProtoEarlyMutation>() {
        return Err(extension.unsupported());
    }
    let ProtoEarlyMutation { mutations } = extension.unpack()?;
    field::each(mutations, "mutations", HeaderMutation::from_proto).within("typed_config")
}

/// The one extension that there is. Trace reasons are packed into nothing as long as nothing is traced.
pub(super) fn check_request_id(message: Option<weft_xds::pb::google::protobuf::Any>) -> Result<()> {
    let Some(typed_config) = message else { return Ok(()) };
    let extension = Extension::new(typed_config)?;
    if !extension.is::<UuidRequestIdConfig>() {
        return Err(extension.unsupported());
    }
    let UuidRequestIdConfig { pack_trace_reason: _, use_request_id_for_trace_sampling: _ } = extension.unpack()?;
    Ok(())
}
