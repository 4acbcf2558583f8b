//! `envoy.extensions.filters.http.buffer.v3`: requests are read whole before they go on.

use weft_xds::pb::envoy::extensions::filters::http::buffer::v3::{Buffer, BufferPerRoute, buffer_per_route::Override};

use crate::config::field::{Result, Within as _, required};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferOverride {
    Disabled,
    RequestBytesMax(u32),
}

pub(super) fn request_bytes_max(message: Buffer) -> Result<u32> {
    let Buffer { max_request_bytes } = message;
    Ok(required(max_request_bytes, "max_request_bytes")?.value)
}

impl BufferOverride {
    pub(super) fn from_proto(message: BufferPerRoute) -> Result<Self> {
        let BufferPerRoute { r#override } = message;
        Ok(match required(r#override, "override")? {
            Override::Disabled(_) => Self::Disabled,
            Override::Buffer(buffer) => Self::RequestBytesMax(request_bytes_max(buffer).within("buffer")?),
        })
    }
}
