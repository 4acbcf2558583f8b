//! `envoy.config.core.v3.DataSource`: bytes that stand in the configuration or in a file beside it.

use std::io::Read as _;

use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{DataSource, data_source::Specifier},
};

use crate::config::field::{Result, refuse, required};

/// Certificates, keys, bodies and formats are far smaller; a device or a log named by mistake ends here.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The bytes. A file is read once, now; following a `watched_directory` is refused. Errors name the file or variable, never
/// what is in it: it may be a secret.
pub fn read(message: DataSource) -> Result<Vec<u8>> {
    let DataSource { watched_directory, specifier } = message;
    refuse!(watched_directory);
    match required(specifier, "specifier")? {
        Specifier::InlineBytes(bytes) => Ok(bytes),
        Specifier::InlineString(text) => Ok(text.into_bytes()),
        Specifier::Filename(path) => read_file(&path).map_err(|reason| FieldError::new("filename", reason)),
        Specifier::EnvironmentVariable(name) => std::env::var_os(&name)
            .map(std::os::unix::ffi::OsStringExt::into_vec)
            .ok_or_else(|| FieldError::new("environment_variable", format!("{name} is not set"))),
    }
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let cannot_read = |error: std::io::Error| format!("cannot read {path}: {error}");
    // Asked before it is opened: opening a named pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(cannot_read)?.is_file() {
        return Err(format!("{path} is not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(cannot_read)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot_read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{path} is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    #[test]
    fn bytes_come_from_where_they_are_said_to_be() {
        assert_eq!(read(message("inline_string: abc")).unwrap(), b"abc");
        assert_eq!(read(message("inline_bytes: YWJj")).unwrap(), b"abc");
        assert!(read(message("filename: tests/fixtures/tls/ca.pem")).unwrap().starts_with(b"-----BEGIN CERTIFICATE"));
        assert!(!read(message("environment_variable: PATH")).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (yaml, reason) in [
            ("{}", "specifier: value is required"),
            ("filename: src", "filename: src is not a file"),
            ("filename: /dev/zero", "filename: /dev/zero is not a file"),
            ("filename: /none", "filename: cannot read /none: No such file or directory (os error 2)"),
            ("environment_variable: WEFT_NONE", "environment_variable: WEFT_NONE is not set"),
            ("{filename: x, watched_directory: {path: y}}", "watched_directory: not supported"),
        ] {
            assert_eq!(refusal(read(weft_xds::json::from_yaml(yaml).unwrap())), reason, "{yaml}");
        }
    }
}
