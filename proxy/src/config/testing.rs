//! What the tests of conversions share: messages from YAML, and tables of what must be refused.

use weft_xds::{json, validate};

use crate::config::field::Result;

/// A valid message.
pub(crate) fn message<M: prost::Name + Default>(yaml: &str) -> M {
    let message: M = json::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    validate::validate(&message).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    message
}

pub(crate) fn refusal<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

/// Adds each line to the base, which is accepted by itself, and compares the whole text of the refusal.
#[track_caller]
pub(crate) fn assert_refused<M: prost::Name + Default, T>(
    base: &str,
    convert: impl Fn(M) -> Result<T>,
    cases: &[(&str, &str)],
) {
    convert(message(base)).unwrap_or_else(|error| panic!("the base is refused: {error}"));
    for (line, expected) in cases {
        let yaml = format!("{base}\n{line}\n");
        let message: M = json::from_yaml(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        match convert(message) {
            Ok(_) => panic!("accepted: {line}"),
            Err(error) => assert_eq!(error.to_string(), *expected, "{line}"),
        }
    }
}

/// Each line names a field that is not supported, and the refusal its path: the part before the first colon.
#[track_caller]
pub(crate) fn assert_unsupported<M: prost::Name + Default, T>(
    base: &str,
    convert: impl Fn(M) -> Result<T>,
    lines: &[&str],
) {
    for line in lines {
        let (path, _) = line.split_once(':').expect("a line of YAML");
        assert_refused(base, &convert, &[(line, &format!("{path}: not supported"))]);
    }
}
