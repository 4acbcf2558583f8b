//! `LocalReplyConfig`: how the responses that the proxy gives itself are worded.

use http::StatusCode;
use weft_xds::{
    FieldError,
    pb::envoy::extensions::filters::network::http_connection_manager::v3::{
        LocalReplyConfig as ProtoLocalReplyConfig, ResponseMapper as ProtoResponseMapper,
    },
};

use crate::config::{
    access_log::Condition,
    data_source,
    field::{self, Result, Within as _, required},
    header_mutation::AppendHeader,
    substitution::SubstitutionFormat,
};

#[derive(Debug, Default)]
pub struct LocalReplyConfig {
    /// The first whose condition holds counts.
    pub mappers: Vec<ResponseMapper>,
    pub body_format: Option<SubstitutionFormat>,
}

#[derive(Debug)]
pub struct ResponseMapper {
    pub condition: Condition,
    pub status: Option<StatusCode>,
    pub body: Option<bytes::Bytes>,
    pub body_format: Option<SubstitutionFormat>,
    pub headers: Vec<AppendHeader>,
}

impl LocalReplyConfig {
    pub(super) fn from_proto(message: ProtoLocalReplyConfig) -> Result<Self> {
        let ProtoLocalReplyConfig { mappers, body_format } = message;
        Ok(Self {
            mappers: field::each(mappers, "mappers", ResponseMapper::from_proto)?,
            body_format: body_format.map(SubstitutionFormat::from_proto).transpose().within("body_format")?,
        })
    }

    pub fn is_plain(&self) -> bool {
        self.mappers.is_empty() && self.body_format.is_none()
    }
}

impl ResponseMapper {
    fn from_proto(message: ProtoResponseMapper) -> Result<Self> {
        let ProtoResponseMapper { filter, status_code, body, body_format_override, headers_to_add } = message;
        let status = status_code.map(|wrapper| {
            let code = u16::try_from(wrapper.value).ok().and_then(|code| StatusCode::from_u16(code).ok());
            code.ok_or_else(|| FieldError::new("status_code", "not an HTTP status code"))
        });
        Ok(Self {
            condition: required(filter, "filter").and_then(|filter| Condition::from_proto(filter).within("filter"))?,
            status: status.transpose()?,
            body: body.map(data_source::read).transpose().within("body")?.map(Into::into),
            body_format: body_format_override
                .map(SubstitutionFormat::from_proto)
                .transpose()
                .within("body_format_override")?,
            headers: field::each(headers_to_add, "headers_to_add", AppendHeader::from_proto)?,
        })
    }
}
