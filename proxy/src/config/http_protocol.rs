//! `Http1ProtocolOptions` and `Http2ProtocolOptions` of `envoy.config.core.v3`: what connection managers and clusters say
//! about their connections in common.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::{
            Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings, TypedExtensionConfig,
            http1_protocol_options::{
                HeaderKeyFormat,
                header_key_format::{HeaderFormat, ProperCaseWords},
            },
            http2_protocol_options::SettingsParameter,
        },
        extensions::http::header_formatters::preserve_case::v3::{
            PreserveCaseFormatterConfig, preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders,
        },
    },
};

use crate::config::field::{
    self, Extension, Result, Within as _, positive_duration, refuse, required, timeout_or, unset, without_typed_config,
};

/// A connection manager's HTTP/1 connections.
#[derive(Clone, Debug, Default)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub default_host_for_http_10: Option<String>,
    pub allow_custom_methods: bool,
    /// A bad request does not end its connection where that can be helped.
    pub stream_errors: bool,
    pub codec: Http1CodecOptions,
}

/// What both sides have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http1CodecOptions {
    /// Trailers pass; otherwise they are dropped.
    pub enable_trailers: bool,
    /// A message with both `content-length` and `transfer-encoding: chunked` is taken as chunked; otherwise it is refused.
    pub allow_chunked_length: bool,
    pub header_case: HeaderCase,
    /// Names that came by HTTP/1 go on as they are written. It is what comes in that is remembered: of a downstream, requests.
    pub preserve_case: Option<PreserveCase>,
}

/// `envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreserveCase {
    /// Of responses.
    pub forward_reason_phrase: bool,
    /// Names of the proxy's own.
    pub otherwise: HeaderCase,
}

/// How names of fields are written: HTTP does not care (RFC 9110 section 5.1), some old applications do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderCase {
    #[default]
    Lower,
    /// `Content-Type`: a capital at the start and behind whatever is no letter or digit.
    ProperWords,
}

/// A cluster's HTTP/1 connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http1UpstreamOptions {
    pub codec: Http1CodecOptions,
    /// Requests name their target in full (RFC 9112 section 3.2.2).
    pub send_fully_qualified_url: bool,
}

/// Defaults are Envoy's; sizes in bytes.
#[derive(Clone, Debug)]
pub struct Http2Options {
    pub hpack_table_size: u32,
    pub max_concurrent_streams: u32,
    pub initial_stream_window_size: u32,
    pub initial_connection_window_size: u32,
    /// RFC 8441, where we are the server.
    pub allow_connect: bool,
    /// What is wrong with one message ends its stream only.
    pub stream_error_on_invalid_message: bool,
    /// Sent besides the others, (identifier, value).
    pub custom_settings: Arc<[(u16, u32)]>,
    /// None: where it pays.
    pub huffman: Option<bool>,
    /// Of a header's name or value as it is on the wire.
    pub header_field_bytes_max: usize,
    pub floods: Http2FloodLimits,
    pub keepalive: Option<Http2Keepalive>,
}

/// What a peer may do before it counts as an attack.
#[derive(Clone, Debug)]
pub struct Http2FloodLimits {
    pub max_outbound_frames: u32,
    pub max_outbound_control_frames: u32,
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    pub max_inbound_priority_frames_per_stream: u32,
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    pub stream_reset_burst: u64,
    /// Given back a second.
    pub stream_reset_rate: u64,
}

#[derive(Clone, Debug)]
pub struct Http2Keepalive {
    pub interval: Duration,
    pub timeout: Duration,
    /// How much longer an interval may be, of its length.
    pub interval_jitter: f64,
}

const HPACK_TABLE_SIZE: u32 = 4096;
const MAX_CONCURRENT_STREAMS: u32 = 1024;
const INITIAL_STREAM_WINDOW_SIZE: u32 = 16 << 20;
const INITIAL_CONNECTION_WINDOW_SIZE: u32 = 24 << 20;

impl Http1Options {
    /// `stream_errors`: what the connection manager says of all protocols.
    pub(crate) fn downstream(message: Http1ProtocolOptions, stream_errors: Option<bool>) -> Result<Self> {
        unset(&message.send_fully_qualified_url, "send_fully_qualified_url")?;
        let own = message.override_stream_error_on_invalid_http_message.map(|value| value.value);
        let stream_errors = own.or(stream_errors).unwrap_or(false);
        let Http1ProtocolOptions { accept_http_10, allow_custom_methods, ref default_host_for_http_10, .. } = message;
        let default_host_for_http_10 = Some(default_host_for_http_10.clone()).filter(|host| !host.is_empty());
        let codec = Http1CodecOptions::from_proto(message)?;
        Ok(Self { accept_http_10, default_host_for_http_10, allow_custom_methods, stream_errors, codec })
    }
}

impl Http1UpstreamOptions {
    pub(crate) fn from_proto(message: Http1ProtocolOptions) -> Result<Self> {
        unset(&message.accept_http_10, "accept_http_10")?;
        unset(&message.default_host_for_http_10, "default_host_for_http_10")?;
        unset(&message.allow_custom_methods, "allow_custom_methods")?;
        let stream_errors = message.override_stream_error_on_invalid_http_message;
        field::only(stream_errors, false, "override_stream_error_on_invalid_http_message")?;
        let send_fully_qualified_url = message.send_fully_qualified_url;
        Ok(Self { codec: Http1CodecOptions::from_proto(message)?, send_fully_qualified_url })
    }
}

impl Http1CodecOptions {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: Http1ProtocolOptions) -> Result<Self> {
        let Http1ProtocolOptions {
            allow_absolute_url,
            accept_http_10: _, // these six are read by the callers
            default_host_for_http_10: _,
            allow_custom_methods: _,
            send_fully_qualified_url: _,
            header_key_format,
            enable_trailers,
            allow_chunked_length,
            override_stream_error_on_invalid_http_message: _,
            use_balsa_parser: _, // which of Envoy's parsers does the work
            ignore_http_11_upgrade,
        } = message;
        refuse!(ignore_http_11_upgrade);
        field::only(allow_absolute_url, true, "allow_absolute_url")?;
        let (header_case, preserve_case) = header_format(header_key_format).within("header_key_format")?;
        Ok(Self { enable_trailers, allow_chunked_length, header_case, preserve_case })
    }
}

fn header_format(format: Option<HeaderKeyFormat>) -> Result<(HeaderCase, Option<PreserveCase>)> {
    match format.and_then(|HeaderKeyFormat { header_format }| header_format) {
        None => Ok((HeaderCase::Lower, None)),
        Some(HeaderFormat::ProperCaseWords(ProperCaseWords {})) => Ok((HeaderCase::ProperWords, None)),
        Some(HeaderFormat::StatefulFormatter(message)) => {
            let formatter = PreserveCase::from_proto(message).within("stateful_formatter")?;
            Ok((HeaderCase::Lower, Some(formatter)))
        }
    }
}

impl PreserveCase {
    fn from_proto(message: TypedExtensionConfig) -> Result<Self> {
        let TypedExtensionConfig { name: _, typed_config } = message;
        let extension = Extension::new(typed_config.ok_or_else(without_typed_config)?)?;
        if !extension.is::<PreserveCaseFormatterConfig>() {
            return Err(extension.unsupported());
        }
        let PreserveCaseFormatterConfig { forward_reason_phrase, formatter_type_on_envoy_headers } =
            extension.unpack()?;
        let formatter_type = field::enumeration(formatter_type_on_envoy_headers, "formatter_type_on_envoy_headers");
        let otherwise = match formatter_type.within("typed_config")? {
            FormatterTypeOnEnvoyHeaders::Default => HeaderCase::Lower,
            FormatterTypeOnEnvoyHeaders::ProperCase => HeaderCase::ProperWords,
        };
        Ok(Self { forward_reason_phrase, otherwise })
    }
}

impl Http2Options {
    /// `stream_errors`: what the connection manager says of all protocols.
    pub(crate) fn downstream(message: Http2ProtocolOptions, stream_errors: Option<bool>) -> Result<Self> {
        let own = message.override_stream_error_on_invalid_http_message.map(|value| value.value);
        let options = Self::from_proto(message)?;
        let stream_error_on_invalid_message = own.or(stream_errors).unwrap_or(options.stream_error_on_invalid_message);
        Ok(Self { stream_error_on_invalid_message, ..options })
    }

    #[expect(deprecated, reason = "named to be read")]
    pub(crate) fn from_proto(message: Http2ProtocolOptions) -> Result<Self> {
        let Http2ProtocolOptions {
            hpack_table_size,
            max_concurrent_streams,
            initial_stream_window_size,
            initial_connection_window_size,
            allow_connect,
            allow_metadata,
            max_outbound_frames,
            max_outbound_control_frames,
            max_consecutive_inbound_frames_with_empty_payload,
            max_inbound_priority_frames_per_stream,
            max_inbound_window_update_frames_per_data_frame_sent,
            stream_error_on_invalid_http_messaging,
            override_stream_error_on_invalid_http_message,
            custom_settings_parameters,
            connection_keepalive,
            use_oghttp2_codec: _, // which of Envoy's libraries does the work
            max_metadata_size: _, // of METADATA frames, which are not taken
            enable_huffman_encoding,
            max_header_field_size_kb,
            disallow_obs_text: _, // of the one of Envoy's libraries that is not the default
            stream_reset_burst,
            stream_reset_rate,
        } = message;
        refuse!(allow_metadata);
        let default = Self::default();
        let floods = default.floods;
        let or = field::u32_or;
        Ok(Self {
            hpack_table_size: or(hpack_table_size, HPACK_TABLE_SIZE),
            max_concurrent_streams: or(max_concurrent_streams, MAX_CONCURRENT_STREAMS),
            initial_stream_window_size: or(initial_stream_window_size, INITIAL_STREAM_WINDOW_SIZE),
            initial_connection_window_size: or(initial_connection_window_size, INITIAL_CONNECTION_WINDOW_SIZE),
            allow_connect,
            stream_error_on_invalid_message: field::bool_or(
                override_stream_error_on_invalid_http_message,
                stream_error_on_invalid_http_messaging,
            ),
            custom_settings: custom_settings(custom_settings_parameters)?.into(),
            huffman: enable_huffman_encoding.map(|value| value.value),
            header_field_bytes_max: or(max_header_field_size_kb, HEADER_FIELD_KB_MAX) as usize * 1024,
            floods: Http2FloodLimits {
                max_outbound_frames: or(max_outbound_frames, floods.max_outbound_frames),
                max_outbound_control_frames: or(max_outbound_control_frames, floods.max_outbound_control_frames),
                max_consecutive_inbound_frames_with_empty_payload: or(
                    max_consecutive_inbound_frames_with_empty_payload,
                    floods.max_consecutive_inbound_frames_with_empty_payload,
                ),
                max_inbound_priority_frames_per_stream: or(
                    max_inbound_priority_frames_per_stream,
                    floods.max_inbound_priority_frames_per_stream,
                ),
                max_inbound_window_update_frames_per_data_frame_sent: or(
                    max_inbound_window_update_frames_per_data_frame_sent,
                    floods.max_inbound_window_update_frames_per_data_frame_sent,
                ),
                stream_reset_burst: stream_reset_burst.map_or(floods.stream_reset_burst, |value| value.value),
                stream_reset_rate: stream_reset_rate.map_or(floods.stream_reset_rate, |value| value.value),
            },
            keepalive: match connection_keepalive {
                None => None,
                Some(message) => Http2Keepalive::from_proto(message).within("connection_keepalive")?,
            },
        })
    }
}

/// Settings that have fields of their own may not be given twice, and pushes are not for us to allow.
fn custom_settings(parameters: Vec<SettingsParameter>) -> Result<Vec<(u16, u32)>> {
    let mut settings: Vec<(u16, u32)> = Vec::new();
    for (index, SettingsParameter { identifier, value }) in parameters.into_iter().enumerate() {
        let setting = required(identifier, "identifier").and_then(|identifier| {
            let id =
                u16::try_from(identifier.value).map_err(|_| FieldError::new("identifier", "value out of range"))?;
            let named = match id {
                1 => "hpack_table_size",
                2 => return Err(FieldError::new("identifier", "server push is not supported")),
                3 => "max_concurrent_streams",
                4 => "initial_stream_window_size",
                8 => "allow_connect",
                _ => return Ok((id, required(value, "value")?.value)),
            };
            Err(FieldError::new("identifier", format!("is set by {named}")))
        });
        let setting = setting.at("custom_settings_parameters", index)?;
        match settings.iter().find(|known| known.0 == setting.0) {
            None => settings.push(setting),
            Some(known) if *known == setting => {}
            Some(_) => {
                let error = FieldError::new("identifier", "was given another value before");
                return Err(error).at("custom_settings_parameters", index);
            }
        }
    }
    Ok(settings)
}

const HEADER_FIELD_KB_MAX: u32 = 64;

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: HPACK_TABLE_SIZE,
            max_concurrent_streams: MAX_CONCURRENT_STREAMS,
            initial_stream_window_size: INITIAL_STREAM_WINDOW_SIZE,
            initial_connection_window_size: INITIAL_CONNECTION_WINDOW_SIZE,
            allow_connect: false,
            stream_error_on_invalid_message: false,
            custom_settings: Arc::default(),
            huffman: None,
            header_field_bytes_max: HEADER_FIELD_KB_MAX as usize * 1024,
            floods: Http2FloodLimits::default(),
            keepalive: None,
        }
    }
}

impl Default for Http2FloodLimits {
    fn default() -> Self {
        Self {
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_reset_burst: 1000,
            stream_reset_rate: 33,
        }
    }
}

impl Http2Keepalive {
    /// None: without an interval no PING is sent.
    fn from_proto(message: KeepaliveSettings) -> Result<Option<Self>> {
        let KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = message;
        unset(&connection_idle_interval.unwrap_or_default(), "connection_idle_interval")?;
        let timeout = required(positive_duration(timeout, "timeout")?, "timeout")?;
        let interval_jitter = interval_jitter.map_or(INTERVAL_JITTER_PERCENT, |percent| percent.value) / 100.0;
        let interval = timeout_or(interval, None, "interval")?;
        Ok(interval.map(|interval| Self { interval, timeout, interval_jitter }))
    }

    /// `random` is in 0..1.
    pub fn next_interval(&self, random: f64) -> Duration {
        self.interval + self.interval.mul_f64(self.interval_jitter * random)
    }
}

const INTERVAL_JITTER_PERCENT: f64 = 15.0;
