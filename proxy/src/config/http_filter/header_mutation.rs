//! `envoy.extensions.filters.http.header_mutation.v3.Mutations`.

use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::core::v3::{
                KeyValueAppend, KeyValueMutation, KeyValuePair, key_value_append::KeyValueAppendAction,
            },
            extensions::filters::http::header_mutation::v3::Mutations,
        },
        google::protobuf::value::Kind,
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse, required},
    header_mutation::{AppendAction, HeaderMutation},
    substitution::{self, Operator},
};

#[derive(Debug, Default)]
pub struct HeaderMutations {
    pub request: Vec<HeaderMutation>,
    pub query_parameters: Vec<ParameterMutation>,
    pub response: Vec<HeaderMutation>,
}

#[derive(Debug)]
pub enum ParameterMutation {
    Append { key: String, value: Vec<Operator>, action: AppendAction },
    Remove(String),
}

impl HeaderMutations {
    pub(super) fn from_proto(message: Option<Mutations>) -> Result<Self> {
        let Mutations {
            request_mutations,
            query_parameter_mutations,
            response_mutations,
            response_trailers_mutations,
            request_trailers_mutations,
        } = message.unwrap_or_default();
        refuse!(request_trailers_mutations, response_trailers_mutations);
        Ok(Self {
            request: field::each(request_mutations, "request_mutations", HeaderMutation::from_proto)?,
            query_parameters: field::each(
                query_parameter_mutations,
                "query_parameter_mutations",
                ParameterMutation::from_proto,
            )?,
            response: field::each(response_mutations, "response_mutations", HeaderMutation::from_proto)?,
        })
    }
}

impl ParameterMutation {
    fn from_proto(message: KeyValueMutation) -> Result<Self> {
        let KeyValueMutation { append, remove } = message;
        let Some(append) = append else {
            return if remove.is_empty() {
                Err(FieldError::new("", "no mutation is specified"))
            } else {
                Ok(Self::Remove(remove))
            };
        };
        #[expect(deprecated, reason = "named to be refused")]
        let KeyValueAppend { record, entry, action } = append;
        refuse!(entry);
        let KeyValuePair { key, value } = required(record, "append.record")?;
        let Some(Kind::StringValue(text)) = value.and_then(|value| value.kind) else {
            return Err(FieldError::new("append.record.value", "only a string value is allowed for parameters"));
        };
        let value = substitution::parse(&text).within("append.record.value")?;
        let action = match field::enumeration(action, "append.action")? {
            KeyValueAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
            KeyValueAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
            KeyValueAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
            KeyValueAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
        };
        Ok(Self::Append { key, value, action })
    }
}
