//! `google.protobuf.Any`: packing, and unpacking with TypedStruct seen through.
//!
//! A TypedStruct carries a message as JSON (a Struct) beside its type URL, for senders that lack the message's .proto. It is
//! read like JSON: fields that do not exist are refused with their path.

use crate::error::{FieldError, wrong};
use crate::json::{self, FieldNames, decode, descriptor};
use crate::pb::google::protobuf::{Any, Struct};
use crate::{type_url, validate};
use prost::{Message, Name};

/// An Any that holds `message`, its map entries in no particular order (`canonical` has a deterministic one).
pub fn pack<T: Name>(message: &T) -> Any {
    Any { type_url: type_url::of::<T>(), value: message.encode_to_vec() }
}

/// The message that `any` holds, which must be a `T`, be it directly or in a TypedStruct.
pub fn unpack<T: Name + Default>(any: &Any) -> Result<T, FieldError> {
    let expected = T::full_name();
    if type_name(any) == expected {
        return decode(&any.value);
    }
    match typed_struct(any)? {
        Some(TypedStruct { type_url, value }) if name_of(&type_url) == expected => {
            let value = json::to_value(&value.unwrap_or_default(), FieldNames::Json)?;
            let mut bytes = Vec::new();
            json::read::message(descriptor::<T>()?, &value, 0, &mut bytes)?;
            decode(&bytes)
        }
        Some(TypedStruct { type_url, .. }) => {
            wrong(format!("expected a {expected}, got a TypedStruct of {type_url:?}"))
        }
        None => wrong(format!("expected a {expected}, got {:?}", any.type_url)),
    }
}

/// [`unpack`], then [`validate::validate`].
pub fn unpack_valid<T: Name + Default>(any: &Any) -> Result<T, FieldError> {
    let message = unpack(any)?;
    validate::validate(&message)?;
    Ok(message)
}

/// The full name of the type in the URL: what follows the last slash.
pub fn type_name(any: &Any) -> &str {
    name_of(&any.type_url)
}

/// The full name of the message in it: for a TypedStruct the one that the struct stands for.
pub fn effective_type_name(any: &Any) -> Result<String, FieldError> {
    Ok(match typed_struct(any)? {
        Some(inner) => name_of(&inner.type_url).to_owned(),
        None => type_name(any).to_owned(),
    })
}

/// The fields of either kind of TypedStruct, xDS's and the older UDPA one.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Struct>,
}

fn typed_struct(any: &Any) -> Result<Option<TypedStruct>, FieldError> {
    let name = type_name(any);
    if !matches!(name, "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct") {
        return Ok(None);
    }
    match TypedStruct::decode(any.value.as_slice()) {
        Ok(inner) => Ok(Some(inner)),
        Err(error) => wrong(format!("not a valid {name}: {error}")),
    }
}

fn name_of(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}
