use super::*;
use crate::config::testing::refusal;

fn commands(text: &str) -> Vec<Command> {
    parse(text).unwrap().into_iter().map(|operator| operator.command).collect()
}

fn request(name: &str) -> Command {
    Command::RequestHeader(HeaderKey::parse(name).unwrap(), None)
}

fn key(name: &str) -> HeaderKey {
    HeaderKey::parse(name).unwrap()
}

#[test]
fn text_and_commands_take_turns() {
    assert_eq!(
        commands("a %PROTOCOL%%% b"),
        [Command::Literal("a ".to_owned()), Command::Fact(Fact::Protocol), Command::Literal("% b".to_owned())]
    );
    assert_eq!(commands(""), []);
    assert_eq!(commands("100%%"), [Command::Literal("100%".to_owned())]);
}

#[test]
fn headers_have_an_alternative_and_a_length() {
    let operators = parse("%REQ(X-Envoy-Original-Path?:PATH):10%%RESP(A)%%TRAILER(B):0%").unwrap();
    let [request, response, trailer] = &operators[..] else { panic!("{operators:?}") };
    assert_eq!(request.command, Command::RequestHeader(key("x-envoy-original-path"), Some(HeaderKey::Path)));
    assert_eq!(request.max_length, Some(10));
    assert_eq!((&response.command, response.max_length), (&Command::ResponseHeader(key("a"), None), None));
    assert_eq!((&trailer.command, trailer.max_length), (&Command::ResponseTrailer(key("b"), None), Some(0)));
}

#[test]
fn a_start_time_may_have_a_format() {
    assert_eq!(commands("%START_TIME%"), [Command::StartTime(None)]);
    assert_eq!(commands("%START_TIME()%"), [Command::StartTime(None)]);
    assert_eq!(commands("%START_TIME(%Y/%m %s)%"), [Command::StartTime(Some("%Y/%m %s".to_owned()))]);
}

#[test]
fn a_format_of_time_that_could_not_be_written_is_refused() {
    let error = refusal(parse("%START_TIME(%E4S)%"));
    assert!(error.starts_with("'%START_TIME(%E4S)%': "), "{error}");
    parse("%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%").unwrap();
}

#[test]
fn commands_with_parameters() {
    let path = |with_query, source| [Command::Path { with_query, source }];
    assert_eq!(commands("%PATH%"), path(true, PathSource::OriginalOrCurrent));
    assert_eq!(commands("%PATH(NQ:ORIG)%"), path(false, PathSource::Original));
    assert_eq!(commands("%GRPC_STATUS%"), [Command::GrpcStatus(GrpcStatusForm::Camel)]);
    assert_eq!(commands("%QUERY_PARAM(a):5%"), [Command::QueryParameter("a".to_owned())]);
    assert_eq!(commands("%ENVIRONMENT(WEFT_NONE)%"), [Command::Environment("-".to_owned())]);
    assert_eq!(
        commands("%DYNAMIC_METADATA(a:b)%%FILTER_STATE(k:PLAIN)%%UPSTREAM_FILTER_STATE(k)%"),
        [
            Command::DynamicMetadata { namespace: "a".into(), path: vec!["b".into()] },
            Command::FilterState { key: "k".into(), is_plain: true },
            Command::NeverThere,
        ]
    );
    let format = Some("%Y".to_owned());
    let end = Command::PeerCertificateTime { is_end: true, format };
    assert_eq!(commands("%DOWNSTREAM_PEER_CERT_V_END(%Y)%"), [end]);
    let duration = Command::CommonDuration {
        from: TimePoint::DownstreamReceiveBegin,
        to: TimePoint::UpstreamReceiveBegin,
        precision: TimePrecision::Microseconds,
    };
    assert_eq!(commands("%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)%"), [duration]);
}

#[test]
fn json_keeps_its_shape_and_sorts_its_keys() {
    let message = crate::config::testing::message(
        "json_format: {b: '%DURATION%', a: [1, true, null, {c: 'x%PROTOCOL%'}]}\nomit_empty_values: true",
    );
    let format = SubstitutionFormat::from_proto(message).unwrap();
    assert!(format.omit_empty_values && format.any(|command| *command == Command::Fact(Fact::Protocol)));
    let Template::Json(template) = format.template else { panic!("no JSON") };
    let JsonTemplate::Object(fields) = &*template else { panic!("no object") };
    assert_eq!(fields.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let JsonTemplate::Array(items) = &fields[0].1 else { panic!("no array") };
    assert_eq!(items[..2], [JsonTemplate::Constant("1".into()), JsonTemplate::Constant("true".into())]);
}

#[test]
fn the_default_is_envoys() {
    let commands = commands(DEFAULT_FORMAT);
    assert_eq!(commands.first(), Some(&Command::Literal("[".to_owned())));
    assert_eq!(commands[1], Command::StartTime(None));
    assert_eq!(commands[3], request(":method"));
    assert_eq!(commands.last(), Some(&Command::Literal("\"\n".to_owned())));
    assert!(DEFAULT_FORMAT.ends_with("\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"));
    assert!(!DEFAULT_FORMAT.contains("  "), "joined without the indentation of its source");
}

#[test]
fn every_command_has_its_name() {
    for name in command::FACT_NAMES {
        assert_eq!(commands(&format!("%{name}%")).len(), 1, "{name}");
    }
}

#[test]
fn broken_formats_are_refused_with_their_text() {
    for (format, reason) in [
        ("50% done", "no command begins at '% done'"),
        ("%protocol%", "no command begins at '%protocol%'"),
        ("%", "no command begins at '%'"),
        ("%%%", "no command begins at '%'"),
        ("%REQ(A", "no command begins at '%REQ(A'"),
        ("%REQ(A):%", "no command begins at '%REQ(A):%'"),
        ("%REQ(A):99999999999999999999999%", "the length of '%REQ(A):99999999999999999999999%' is too large"),
        ("%PATH(XX)%", "'%PATH(XX)%': 'XX' is neither WQ nor NQ"),
        ("%PATH(WQ:X)%", "'%PATH(WQ:X)%': 'X' is none of ORIG, PATH and ORIG_OR_PATH"),
        ("%GRPC_STATUS(X)%", "'%GRPC_STATUS(X)%': 'X' is not a form of a gRPC status"),
        (
            "%COMMON_DURATION(DS_RX_BEG:DS_RX_END)%",
            "'%COMMON_DURATION(DS_RX_BEG:DS_RX_END)%': START:END:PRECISION is required",
        ),
        ("%COMMON_DURATION(A:DS_RX_END:ms)%", "'%COMMON_DURATION(A:DS_RX_END:ms)%': 'A' is no point in time"),
        ("%ENVIRONMENT%", "'%ENVIRONMENT%': ENVIRONMENT requires the variable's name"),
        ("%FOO%", "'%FOO%' is not supported"),
        ("%REQ%", "'%REQ%': REQ requires a header's name"),
        ("%REQ()%", "'%REQ()%': REQ requires a header's name"),
        ("%REQ(A?B?C)%", "'%REQ(A?B?C)%': more than one alternative header"),
        ("%REQ(A B)%", "'%REQ(A B)%': 'a b' is not a header's name"),
        ("%PROTOCOL(x)%", "'%PROTOCOL(x)%': PROTOCOL does not take any parameters or length"),
        ("%PROTOCOL:5%", "'%PROTOCOL:5%': PROTOCOL does not take any parameters or length"),
        ("%START_TIME:5%", "'%START_TIME:5%': START_TIME does not take a length"),
    ] {
        assert_eq!(refusal(parse(format)), reason, "{format}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,80}") {
        let _ = parse(&text);
    }

    /// What was parsed stands for all of the text: literals alone come back as they were.
    #[test]
    fn text_without_percent_signs_is_one_literal(text in "[^%]{1,40}") {
        proptest::prop_assert_eq!(commands(&text), [Command::Literal(text)]);
    }
}
