//! Leaves out of a dump what nobody may read: private keys and passwords, where the API marks fields as sensitive.

use serde_json::Value;

/// Fields that the API annotates as sensitive, among the messages that this proxy takes.
const SENSITIVE: [&str; 6] = ["generic_secret", "password", "pkcs12", "private_key", "secret", "session_ticket_keys"];

const REDACTED: &str = "[redacted]";
/// The same where bytes are printed.
const REDACTED_BASE64: &str = "W3JlZGFjdGVkXQ==";

pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match SENSITIVE.contains(&name.as_str()) {
                    true => blank(field),
                    false => redact(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Everything below, but for the names of files, which say where a secret is and not what it is.
fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "filename" | "environment_variable" | "watched_directory" | "@type" => {}
                    "inline_bytes" => *field = REDACTED_BASE64.into(),
                    _ => blank(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => *value = REDACTED.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_the_place_and_drops_the_secret() {
        let mut value = json!({"tls_certificates": [{
            "certificate_chain": {"inline_string": "public"},
            "private_key": {"inline_bytes": "c2VjcmV0"},
            "password": {"inline_string": "secret"},
        }, {"private_key": {"filename": "/etc/certs/key.pem"}}]});
        redact(&mut value);
        assert_eq!(
            value,
            json!({"tls_certificates": [{
                "certificate_chain": {"inline_string": "public"},
                "private_key": {"inline_bytes": REDACTED_BASE64},
                "password": {"inline_string": REDACTED},
            }, {"private_key": {"filename": "/etc/certs/key.pem"}}]})
        );
    }
}
