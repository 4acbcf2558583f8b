//! A message in a file: by the file's name YAML, an encoded message (`.pb`), or JSON.

use std::{io, path::Path};

use prost::Name;
use serde_json::Value;
use weft_xds::{FieldError, json, unknown};

use crate::args::UnknownFields;

/// Some hundred thousand endpoints; a device named by mistake ends here.
const FILE_BYTES_MAX: u64 = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub enum MessageFileError {
    #[error("Invalid path: {path}")]
    Path {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{0} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge(String),
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    #[error(transparent)]
    Message(#[from] FieldError),
}

/// The file's bytes.
pub fn bytes(path: &Path) -> Result<Vec<u8>, MessageFileError> {
    let name = || path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|source| MessageFileError::Path { path: name(), source })?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(MessageFileError::TooLarge(name()));
    }
    std::fs::read(path).map_err(|source| MessageFileError::Path { path: name(), source })
}

/// What the bytes of the file of this name say.
pub fn parse<T: Name + Default>(
    path: &Path,
    bytes: Vec<u8>,
    unknown_fields: UnknownFields,
) -> Result<T, MessageFileError> {
    let extension = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    if extension == "pb" {
        return Ok(weft_xds::decode(&bytes)?);
    }
    let text = String::from_utf8(bytes).map_err(|_| MessageFileError::NotText(path.display().to_string()))?;
    Ok(match extension {
        "yaml" | "yml" => yaml(&text, unknown_fields)?,
        _ => from_value(json::json_to_value(&text)?, unknown_fields)?,
    })
}

pub fn yaml<T: Name + Default>(text: &str, unknown_fields: UnknownFields) -> Result<T, FieldError> {
    from_value(json::yaml_to_value(text)?, unknown_fields)
}

fn from_value<T: Name + Default>(mut value: Value, unknown_fields: UnknownFields) -> Result<T, FieldError> {
    if unknown_fields == UnknownFields::Ignored {
        for path in unknown::drop_unknown_fields::<T>(&mut value)? {
            tracing::warn!(field = path, "ignored a field that is not known");
        }
    }
    let encoded = json::encode::<T>(&value)?;
    // The tree takes ten times the room of what it says.
    drop(value);
    weft_xds::decode(&encoded)
}
