//! `envoy.extensions.filters.http.set_metadata.v3.Config` and `envoy.extensions.filters.http.set_filter_state.v3.Config`: what is
//! known of every request that comes here.

use std::sync::Arc;

use weft_xds::{
    FieldError,
    pb::envoy::extensions::filters::{
        common::set_filter_state::v3::{
            FilterStateValue as ProtoValue,
            filter_state_value::{Key, SharedWithUpstream, Value as ProtoFormat},
        },
        http::{
            set_filter_state::v3::Config as SetFilterStateConfig,
            set_metadata::v3::{Config as SetMetadataConfig, Metadata as ProtoMetadata},
        },
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse, required},
    metadata::{Fields, fields_of},
    substitution::SubstitutionFormat,
};

#[derive(Debug)]
pub struct SetMetadata(pub Vec<MetadataValue>);

#[derive(Debug)]
pub struct MetadataValue {
    pub namespace: String,
    pub fields: Fields,
    /// Added to what is there; otherwise only where nothing is.
    pub merges: bool,
}

#[derive(Debug)]
pub struct SetFilterState {
    pub values: Vec<FilterStateValue>,
    /// The route is to be looked up again.
    pub clears_route: bool,
}

#[derive(Debug)]
pub struct FilterStateValue {
    pub key: Arc<str>,
    pub format: SubstitutionFormat,
    pub is_read_only: bool,
    pub skips_empty: bool,
}

/// Kinds of objects that are texts.
const TEXT_FACTORIES: [&str; 2] = ["envoy.string", "envoy.hashable_string"];

impl SetMetadata {
    pub(super) fn from_proto(message: SetMetadataConfig) -> Result<Self> {
        #[expect(deprecated, reason = "control planes still send the older spelling")]
        let SetMetadataConfig { metadata_namespace, value, metadata } = message;
        let mut values = Vec::new();
        if let Some(fields) = value.filter(|_| !metadata_namespace.is_empty()) {
            values.push(MetadataValue { namespace: metadata_namespace, fields: fields_of(fields), merges: true });
        }
        values.extend(field::each(metadata, "metadata", |message| {
            let ProtoMetadata { metadata_namespace, allow_overwrite, value, typed_value } = message;
            refuse!(typed_value);
            let fields = fields_of(required(value, "value")?);
            Ok(MetadataValue { namespace: metadata_namespace, fields, merges: allow_overwrite })
        })?);
        Ok(Self(values))
    }
}

impl SetFilterState {
    pub(super) fn from_proto(message: SetFilterStateConfig) -> Result<Self> {
        let SetFilterStateConfig { on_request_headers, clear_route_cache } = message;
        let values = field::each(on_request_headers, "on_request_headers", FilterStateValue::from_proto)?;
        Ok(Self { values, clears_route: clear_route_cache })
    }
}

impl FilterStateValue {
    fn from_proto(message: ProtoValue) -> Result<Self> {
        #[expect(deprecated, reason = "control planes still send it")]
        let ProtoValue { factory_key, read_only, shared_with_upstream, skip_if_empty, key, value } = message;
        let Key::ObjectKey(key) = required(key, "object_key")?;
        let factory = if factory_key.is_empty() { &key } else { &factory_key };
        if !TEXT_FACTORIES.contains(&factory.as_str()) {
            return Err(FieldError::new("factory_key", format!("'{factory}' does not have an object factory")));
        }
        // Nothing upstream has filters that could look at it.
        let _: SharedWithUpstream = field::enumeration(shared_with_upstream, "shared_with_upstream")?;
        let ProtoFormat::FormatString(format) = required(value, "format_string")?;
        Ok(Self {
            key: key.into(),
            format: SubstitutionFormat::from_proto(format).within("format_string")?,
            is_read_only: read_only,
            skips_empty: skip_if_empty,
        })
    }
}
