use std::collections::HashSet;

use super::*;

fn parse(command_line: &[&str], environment: &[(&str, &str)]) -> Args {
    let lookup =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
    Args::parse(["weft-init"].iter().chain(command_line).map(OsString::from), lookup).unwrap()
}

#[test]
fn names_are_unique_and_variables_follow_from_flags() {
    let (mut names, mut variables) = (HashSet::new(), HashSet::new());
    for argument in ARGUMENTS {
        assert!(names.insert(argument.long.to_owned()));
        assert!(argument.short.is_none_or(|short| names.insert(short.to_string())));
        for variable in argument.variables {
            assert!(variables.insert(*variable), "{variable}");
        }
        // Istio derives the variable from the flag, and some have another beside it.
        let derived = argument.long.to_uppercase().replace('-', "_");
        let is_ours = ["backend", "cleanup", "verify", "log_output_level", "log_as_json"].contains(&argument.long);
        assert!(is_ours || argument.variables.contains(&derived.as_str()), "{}", argument.long);
    }
    command().debug_assert();
}

#[test]
fn all_forms_of_an_argument_mean_the_same() {
    for command_line in
        [&["-p", "9"][..], &["-p9"], &["-p=9"], &["--envoy-port", "9"], &["--envoy-port=9"], &["-p", "8", "-p", "9"]]
    {
        assert_eq!(parse(command_line, &[]).text_or(&PROXY_PORT, ""), "9", "{command_line:?}");
    }
    for command_line in [&["-n"][..], &["--dry-run"], &["--dry-run=true"], &["-n=true"], &["--dry-run=false", "-n"]] {
        assert_eq!(parse(command_line, &[]).text_or(&DRY_RUN, ""), "true", "{command_line:?}");
    }
    assert_eq!(parse(&["-x", "-b"], &[]).text_or(&OUTBOUND_RANGES_EXCLUDE, ""), "-b", "a value may start with a dash");
    assert_eq!(parse(&["-i", ""], &[]).text_or(&OUTBOUND_RANGES, "*"), "", "empty is not the same as not given");
}

#[test]
fn a_flag_beats_a_variable_and_the_first_variable_the_second() {
    let environment = [
        ("ISTIO_INBOUND_PORTS", "1"),
        ("REDIRECT_DNS", "false"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("PROXY_UID", "5"),
    ];
    let args = parse(&["-b", "2"], &environment);
    assert_eq!(args.text_or(&INBOUND_PORTS, ""), "2");
    assert_eq!(args.text_or(&REDIRECT_DNS, ""), "true");
    assert_eq!(args.given(&PROXY_UID), Some(&Given { text: "5".to_owned(), variable: Some("PROXY_UID") }));
}

#[test]
fn an_empty_variable_counts_only_for_lists() {
    let args = parse(&[], &[("ISTIO_INBOUND_PORTS", ""), ("DRY_RUN", ""), ("INBOUND_CAPTURE_PORT", "")]);
    assert_eq!(args.text_or(&INBOUND_PORTS, "*"), "");
    assert_eq!(args.given(&DRY_RUN), None);
    assert_eq!(args.given(&INBOUND_PORT), None);
}

#[test]
fn the_error_names_the_place_and_quotes_the_text() {
    let long = "x".repeat(1000);
    let args = parse(&["-c", "eth0\n\u{1b}[31m", "-k", &long], &[("PROBE_TIMEOUT", "soon")]);
    let message = |argument| args.read::<()>(argument, |_| Err(ValueError::Interface)).unwrap_err().to_string();
    assert!(message(&EXCLUDE_INTERFACES).starts_with("-c, --istio-exclude-interfaces: \"eth0\\n\\u{1b}[31m\": "));
    assert!(message(&PROBE_TIMEOUT).starts_with("environment variable PROBE_TIMEOUT: \"soon\": "));
    assert!(message(&VIRTUAL_INTERFACES).len() < 400, "a long text is cut");
}
