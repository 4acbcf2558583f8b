use super::*;
use crate::config::testing::refusal;

fn commands(text: &str) -> Vec<Command> {
    parse(text).unwrap().into_iter().map(|operator| operator.command).collect()
}

fn request(name: &str) -> Command {
    Command::RequestHeader(name.to_owned(), None)
}

#[test]
fn text_and_commands_take_turns() {
    assert_eq!(
        commands("a %PROTOCOL%%% b"),
        [Command::Literal("a ".to_owned()), Command::Protocol, Command::Literal("% b".to_owned())]
    );
    assert_eq!(commands(""), []);
    assert_eq!(commands("100%%"), [Command::Literal("100%".to_owned())]);
}

#[test]
fn headers_have_an_alternative_and_a_length() {
    let operators = parse("%REQ(X-Envoy-Original-Path?:PATH):10%%RESP(A)%%TRAILER(B):0%").unwrap();
    let [request, response, trailer] = &operators[..] else { panic!("{operators:?}") };
    assert_eq!(request.command, Command::RequestHeader("x-envoy-original-path".to_owned(), Some(":path".to_owned())));
    assert_eq!(request.max_length, Some(10));
    assert_eq!((&response.command, response.max_length), (&Command::ResponseHeader("a".to_owned(), None), None));
    assert_eq!((&trailer.command, trailer.max_length), (&Command::ResponseTrailer("b".to_owned(), None), Some(0)));
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
    for name in
        ["RESPONSE_CODE_DETAILS", "UPSTREAM_CLUSTER", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "HOSTNAME"]
    {
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
