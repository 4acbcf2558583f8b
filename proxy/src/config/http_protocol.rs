//! `Http1ProtocolOptions` and `Http2ProtocolOptions` of `envoy.config.core.v3`: what connection managers and clusters say
//! about their connections in common.

use std::time::Duration;

use weft_xds::pb::envoy::config::core::v3::{Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings};

use crate::config::field::{self, Result, Within as _, positive_duration, refuse, required, timeout_or, unset};

#[derive(Clone, Debug, Default)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub default_host_for_http_10: Option<String>,
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
        let Http1ProtocolOptions { accept_http_10, ref default_host_for_http_10, .. } = message;
        let default_host_for_http_10 = Some(default_host_for_http_10.clone()).filter(|host| !host.is_empty());
        refuse_codec_options(message)?;
        Ok(Self { accept_http_10, default_host_for_http_10 })
    }

    /// Towards an upstream there is nothing to set.
    pub(crate) fn refuse_upstream(message: Http1ProtocolOptions) -> Result<()> {
        unset(&message.accept_http_10, "accept_http_10")?;
        unset(&message.default_host_for_http_10, "default_host_for_http_10")?;
        refuse_codec_options(message)
    }
}

/// What no HTTP/1 connection does, on either side.
#[expect(deprecated, reason = "named to be refused")]
fn refuse_codec_options(message: Http1ProtocolOptions) -> Result<()> {
    let Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10: _, // the callers read both
        default_host_for_http_10: _,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = message;
    refuse!(header_key_format, enable_trailers, allow_chunked_length, send_fully_qualified_url, use_balsa_parser);
    refuse!(allow_custom_methods, ignore_http_11_upgrade);
    field::only(allow_absolute_url, true, "allow_absolute_url")?;
    field::only(override_stream_error_on_invalid_http_message, false, "override_stream_error_on_invalid_http_message")
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
