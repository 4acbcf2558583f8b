//! `Http1ProtocolOptions` and `Http2ProtocolOptions` of `envoy.config.core.v3`: what connection managers and clusters say
//! about their connections in common.

use std::time::Duration;

use weft_xds::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings,
    http1_protocol_options::{
        HeaderKeyFormat,
        header_key_format::{HeaderFormat, ProperCaseWords},
    },
};

use crate::config::field::{
    self, Result, Within as _, positive_duration, refuse, required, timeout_or, unset, unsupported,
};

/// A connection manager's HTTP/1 connections.
#[derive(Clone, Debug, Default)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub default_host_for_http_10: Option<String>,
    pub allow_custom_methods: bool,
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
    pub keepalive: Option<Http2Keepalive>,
}

#[derive(Clone, Debug)]
pub struct Http2Keepalive {
    pub interval: Duration,
    pub timeout: Duration,
}

const HPACK_TABLE_SIZE: u32 = 4096;
const MAX_CONCURRENT_STREAMS: u32 = 1024;
const INITIAL_STREAM_WINDOW_SIZE: u32 = 16 << 20;
const INITIAL_CONNECTION_WINDOW_SIZE: u32 = 24 << 20;

impl Http1Options {
    pub(crate) fn downstream(message: Http1ProtocolOptions) -> Result<Self> {
        unset(&message.send_fully_qualified_url, "send_fully_qualified_url")?;
        let Http1ProtocolOptions { accept_http_10, allow_custom_methods, ref default_host_for_http_10, .. } = message;
        let default_host_for_http_10 = Some(default_host_for_http_10.clone()).filter(|host| !host.is_empty());
        let codec = Http1CodecOptions::from_proto(message)?;
        Ok(Self { accept_http_10, default_host_for_http_10, allow_custom_methods, codec })
    }
}

impl Http1UpstreamOptions {
    pub(crate) fn from_proto(message: Http1ProtocolOptions) -> Result<Self> {
        unset(&message.accept_http_10, "accept_http_10")?;
        unset(&message.default_host_for_http_10, "default_host_for_http_10")?;
        unset(&message.allow_custom_methods, "allow_custom_methods")?;
        let send_fully_qualified_url = message.send_fully_qualified_url;
        Ok(Self { codec: Http1CodecOptions::from_proto(message)?, send_fully_qualified_url })
    }
}

impl Http1CodecOptions {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: Http1ProtocolOptions) -> Result<Self> {
        let Http1ProtocolOptions {
            allow_absolute_url,
            accept_http_10: _, // these five are read by the callers
            default_host_for_http_10: _,
            allow_custom_methods: _,
            send_fully_qualified_url: _,
            header_key_format,
            enable_trailers,
            allow_chunked_length,
            override_stream_error_on_invalid_http_message,
            use_balsa_parser: _, // which of Envoy's parsers does the work
            ignore_http_11_upgrade,
        } = message;
        refuse!(ignore_http_11_upgrade);
        field::only(allow_absolute_url, true, "allow_absolute_url")?;
        field::only(
            override_stream_error_on_invalid_http_message,
            false,
            "override_stream_error_on_invalid_http_message",
        )?;
        let header_case = HeaderCase::from_proto(header_key_format).within("header_key_format")?;
        Ok(Self { enable_trailers, allow_chunked_length, header_case })
    }
}

impl HeaderCase {
    fn from_proto(format: Option<HeaderKeyFormat>) -> Result<Self> {
        match format.and_then(|HeaderKeyFormat { header_format }| header_format) {
            None => Ok(Self::Lower),
            Some(HeaderFormat::ProperCaseWords(ProperCaseWords {})) => Ok(Self::ProperWords),
            Some(HeaderFormat::StatefulFormatter(_)) => Err(unsupported("stateful_formatter")),
        }
    }
}

impl Http2Options {
    #[expect(deprecated, reason = "named to be refused")]
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
            max_metadata_size,
            enable_huffman_encoding,
            max_header_field_size_kb,
            disallow_obs_text,
            stream_reset_burst,
            stream_reset_rate,
        } = message;
        refuse!(allow_connect, allow_metadata, max_outbound_frames, max_outbound_control_frames);
        refuse!(max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream);
        refuse!(max_inbound_window_update_frames_per_data_frame_sent, stream_error_on_invalid_http_messaging);
        refuse!(custom_settings_parameters, max_metadata_size, max_header_field_size_kb, disallow_obs_text);
        refuse!(stream_reset_burst, stream_reset_rate);
        field::only(enable_huffman_encoding, true, "enable_huffman_encoding")?;
        field::only(
            override_stream_error_on_invalid_http_message,
            false,
            "override_stream_error_on_invalid_http_message",
        )?;
        Ok(Self {
            hpack_table_size: field::u32_or(hpack_table_size, HPACK_TABLE_SIZE),
            max_concurrent_streams: field::u32_or(max_concurrent_streams, MAX_CONCURRENT_STREAMS),
            initial_stream_window_size: field::u32_or(initial_stream_window_size, INITIAL_STREAM_WINDOW_SIZE),
            initial_connection_window_size: field::u32_or(
                initial_connection_window_size,
                INITIAL_CONNECTION_WINDOW_SIZE,
            ),
            keepalive: match connection_keepalive {
                None => None,
                Some(message) => Http2Keepalive::from_proto(message).within("connection_keepalive")?,
            },
        })
    }
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: HPACK_TABLE_SIZE,
            max_concurrent_streams: MAX_CONCURRENT_STREAMS,
            initial_stream_window_size: INITIAL_STREAM_WINDOW_SIZE,
            initial_connection_window_size: INITIAL_CONNECTION_WINDOW_SIZE,
            keepalive: None,
        }
    }
}

impl Http2Keepalive {
    /// None: without an interval no PING is sent.
    fn from_proto(message: KeepaliveSettings) -> Result<Option<Self>> {
        let KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = message;
        refuse!(interval_jitter);
        unset(&connection_idle_interval.unwrap_or_default(), "connection_idle_interval")?;
        let timeout = required(positive_duration(timeout, "timeout")?, "timeout")?;
        Ok(timeout_or(interval, None, "interval")?.map(|interval| Self { interval, timeout }))
    }
}
