use super::*;
use crate::config::{
    substitution::{Command, Fact, Template},
    testing::{message, refusal},
};

const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT: &str = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const STDERR: &str = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog";

fn convert(type_url: &str, fields: &str) -> Result<AccessLog> {
    AccessLog::from_proto(message(&format!("{{name: n, typed_config: {{'@type': {type_url}, {fields}}}}}")))
}

fn commands(log: &AccessLog) -> Vec<Command> {
    let Template::Text(operators) = &log.format.template else { panic!("JSON") };
    operators.iter().map(|operator| operator.command.clone()).collect()
}

#[test]
fn sinks_are_files_and_streams() {
    let file = convert(FILE, "path: /var/log/a.log").unwrap();
    assert_eq!(file.sink, AccessLogSink::File("/var/log/a.log".into()));
    assert_eq!(file.format, SubstitutionFormat::default_access_log());
    assert_eq!(convert(STDOUT, "").unwrap().sink, AccessLogSink::Stdout);
    let stderr = convert(STDERR, "log_format: {text_format_source: {inline_string: '%PROTOCOL%'}}").unwrap();
    assert_eq!(stderr.sink, AccessLogSink::Stderr);
    assert_eq!(commands(&stderr), [Command::Fact(Fact::Protocol)]);
}

#[test]
fn older_spellings_of_a_format_mean_the_same() {
    for fields in ["format: '%PROTOCOL%'", "log_format: {text_format: '%PROTOCOL%'}"] {
        assert_eq!(commands(&convert(FILE, &format!("path: p, {fields}")).unwrap()).len(), 1, "{fields}");
    }
    assert_eq!(convert(FILE, "path: p, format: ''").unwrap().format, SubstitutionFormat::default_access_log());
    let json = |fields: &str| convert(FILE, &format!("path: p, {fields}")).unwrap().format;
    assert_eq!(json("json_format: {a: b}"), json("log_format: {json_format: {a: b}}"));
    assert_eq!(json("typed_json_format: {a: b}"), json("json_format: {a: b}"));
}

#[test]
fn conditions_nest() {
    let condition = |yaml: &str| Condition::from_proto(message(yaml));
    let both = condition(
        "and_filter: {filters: [{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: k}}}},
          {or_filter: {filters: [{response_flag_filter: {flags: [UH, NR]}}, {header_filter: {header: {name: x}}}]}}]}",
    );
    let Condition::All(conditions) = both.unwrap() else { panic!("not all") };
    let [Condition::StatusCode(comparison), any @ Condition::Any(_)] = &conditions[..] else {
        panic!("{conditions:?}")
    };
    assert_eq!(*comparison, Comparison { operator: ComparisonOperator::AtLeast, value: 500 });
    assert!(comparison.holds(500) && !comparison.holds(499));
    assert!(any.reads_request() && !any.reads_response());
    assert!(condition("grpc_status_filter: {statuses: [OK]}").unwrap().reads_response());
    let types = condition("log_type_filter: {types: [DownstreamEnd], exclude: true}").unwrap();
    let Condition::LogType { types, exclude: true } = types else { panic!("{types:?}") };
    assert_eq!(types, [LogType::DownstreamEnd]);
}

#[test]
fn what_is_not_supported_is_refused() {
    for (fields, expected) in [
        (
            "log_format: {text_format_source: {inline_string: '%FOO%'}}",
            "typed_config.log_format.text_format_source: '%FOO%' is not supported",
        ),
        (
            "log_format: {json_format: {a: {b: ['%']}}}",
            "typed_config.log_format.json_format.a.b[0]: no command begins at '%'",
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
        format!("{{name: n, filter: {{extension_filter: {{name: x}}}}, typed_config: {{'@type': {STDOUT}}}}}");
    assert_eq!(refusal(AccessLog::from_proto(message(&filtered))), "filter.extension_filter: not supported");
}
