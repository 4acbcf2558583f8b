//! `original_dst_lb_config`: where a cluster of original destinations finds the address.

use http::HeaderName;
use weft_xds::{FieldError, pb::envoy::config::cluster::v3::cluster::OriginalDstLbConfig};

use crate::config::field::{self, Result, refuse};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct OriginalDst {
    /// An `ip:port` in this request header wins over the connection's own destination.
    pub header: Option<HeaderName>,
    pub port_override: Option<u16>,
}

const HEADER: HeaderName = HeaderName::from_static("x-envoy-original-dst-host");

impl OriginalDst {
    pub(super) fn from_proto(message: OriginalDstLbConfig) -> Result<Self> {
        let OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } = message;
        refuse!(metadata_key);
        let header = match (use_http_header, &http_header_name[..]) {
            (false, "") => None,
            (false, _) => {
                let reason = "ORIGINAL_DST cluster: invalid config http_header_name and use_http_header is false";
                return Err(FieldError::new("http_header_name", reason));
            }
            (true, "") => Some(HEADER),
            (true, name) => Some(
                HeaderName::try_from(name)
                    .map_err(|_| FieldError::new("http_header_name", "not a valid header name"))?,
            ),
        };
        let port_override = match upstream_port_override {
            None => None,
            Some(port) => Some(field::port(port.value, "upstream_port_override")?),
        };
        Ok(Self { header, port_override })
    }
}
