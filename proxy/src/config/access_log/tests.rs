use super::*;
use crate::config::testing::{message, refusal};

const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT: &str = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const STDERR: &str = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog";

fn convert(type_url: &str, fields: &str) -> Result<AccessLog> {
    AccessLog::from_proto(message(&format!("{{name: n, typed_config: {{'@type': {type_url}, {fields}}}}}")))
}

#[test]
fn sinks_are_files_and_streams() {
    let file = convert(FILE, "path: /var/log/a.log").unwrap();
    assert_eq!(file.sink, AccessLogSink::File("/var/log/a.log".into()));
    assert_eq!(&file.format[..], &default_format()[..]);
    assert_eq!(convert(STDOUT, "").unwrap().sink, AccessLogSink::Stdout);
    let stderr = convert(STDERR, "log_format: {text_format_source: {inline_string: '%PROTOCOL%'}}").unwrap();
    assert_eq!(stderr.sink, AccessLogSink::Stderr);
    assert_eq!(stderr.format[0].command, Command::Protocol);
}

#[test]
fn older_spellings_of_a_format_mean_the_same() {
    for fields in ["format: '%PROTOCOL%'", "log_format: {text_format: '%PROTOCOL%'}"] {
        let log = convert(FILE, &format!("path: p, {fields}")).unwrap();
        assert_eq!(log.format.len(), 1, "{fields}");
    }
    assert_eq!(&convert(FILE, "path: p, format: ''").unwrap().format[..], &default_format()[..]);
}

#[test]
fn what_is_not_supported_is_refused() {
    for (fields, expected) in [
        ("json_format: {a: b}", "typed_config.json_format: not supported"),
        ("typed_json_format: {a: b}", "typed_config.typed_json_format: not supported"),
        ("log_format: {json_format: {a: b}}", "typed_config.log_format.json_format: not supported"),
        (
            "log_format: {text_format: a, omit_empty_values: true}",
            "typed_config.log_format.omit_empty_values: not supported",
        ),
        (
            "log_format: {text_format_source: {inline_string: '%FOO%'}}",
            "typed_config.log_format.text_format_source: '%FOO%' is not supported",
        ),
        ("format: '%'", "typed_config.format: no command begins at '%'"),
    ] {
        assert_eq!(refusal(convert(FILE, &format!("path: p, {fields}"))), expected);
    }
    assert_eq!(
        refusal(convert("type.googleapis.com/google.protobuf.Empty", "value: {}")),
        "typed_config: google.protobuf.Empty is not supported"
    );
    assert_eq!(refusal(AccessLog::from_proto(message("name: bare"))), "typed_config: value is required");
    let filtered =
        format!("{{name: n, filter: {{not_health_check_filter: {{}}}}, typed_config: {{'@type': {STDOUT}}}}}");
    assert_eq!(refusal(AccessLog::from_proto(message(&filtered))), "filter: not supported");
}
