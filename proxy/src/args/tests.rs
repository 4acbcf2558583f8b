use super::*;

fn parse(words: &[&str]) -> Result<Command, ArgsError> {
    Args::parse(std::iter::once("weft-proxy").chain(words.iter().copied()).map(OsString::from))
}

fn run(words: &[&str]) -> Args {
    match parse(words) {
        Ok(Command::Run(args)) => *args,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn defaults_are_envoys() {
    let args = run(&["-c", "x.yaml"]);
    assert_eq!(args.config_name(), "x.yaml");
    assert_eq!((args.mode, args.drain_strategy), (Mode::Serve, DrainStrategy::Gradual));
    assert_eq!((args.drain_time, args.parent_shutdown_time), (Duration::from_secs(600), Duration::from_secs(900)));
    assert_eq!(args.file_flush_interval, Duration::from_secs(10));
    assert_eq!((args.static_fields, args.dynamic_fields), (UnknownFields::Refused, UnknownFields::Ignored));
    assert!(args.ignored.is_empty() && args.stats_tags.is_empty());
}

#[test]
fn the_text_of_a_bootstrap_may_stand_alone() {
    let args = run(&["--config-yaml", "{node: {id: a}}", "--service-node", "n", "--service-zone", "z"]);
    assert_eq!((args.config_name().as_str(), args.config_yaml.as_str()), ("", "{node: {id: a}}"));
    assert_eq!(args.node, NodeOverrides { id: "n".into(), cluster: String::new(), zone: "z".into() });
}

#[test]
fn no_threads_are_one() {
    assert_eq!(run(&["--concurrency", "0"]).concurrency, 1);
    assert_eq!(run(&["--concurrency", "3"]).concurrency, 3);
}

#[test]
fn mistakes_are_told_as_envoy_tells_them() {
    for (words, expected) in [
        (&["--mode", "foo"][..], "error: unknown mode 'foo'"),
        (&["--mode", "Validate"], "error: unknown mode 'Validate'"),
        (&["-l", "foo"], "error: invalid log level specified 'foo'"),
        (&["--component-log-level", "foo"], "error: component log level not correctly specified 'foo'"),
        (&["--component-log-level", "upstream:debug,"], "error: component log level not correctly specified ''"),
        (&["--component-log-level", "upstream:bar"], "error: invalid log level specified 'bar'"),
        (&["--component-log-level", "foo:info"], "error: invalid component specified 'foo'"),
        (
            &["--component-log-level", "http:info", "--enable-fine-grain-logging"],
            "error: --component-log-level will not work with --enable-fine-grain-logging",
        ),
        (&["--local-address-ip-version", "v5"], "error: unknown IP address version 'v5'"),
        (&["--drain-strategy", "Immediate"], "error: unknown drain-strategy 'Immediate'"),
        (
            &["--use-dynamic-base-id", "--restart-epoch", "1"],
            "error: cannot use --restart-epoch=1 with --use-dynamic-base-id",
        ),
        (&["--stats-tag", "foo"], "error: misformatted stats-tag 'foo'"),
        (&["--stats-tag", "foo:b.ar"], "error: misformatted stats-tag 'foo:b.ar' contains invalid char in 'b.ar'"),
        (&["--stats-tag", "f.o:x"], "error: misformatted stats-tag 'f.o:x' contains invalid char in 'f.o'"),
    ] {
        assert_eq!(parse(words).expect_err("a mistake").to_string(), expected, "{words:?}");
    }
}

#[test]
fn what_cannot_be_read_names_its_argument() {
    for (words, argument, reason) in [
        (&["--bogus"][..], "--bogus", "Couldn't find match for argument"),
        (&["extra"], "extra", "Couldn't find match for argument"),
        (&["--concurrency", "x"], "(--concurrency)", "Couldn't read argument value from string 'x'"),
        (&["--base-id", "4294967296"], "(--base-id)", "Couldn't read argument value from string '4294967296'"),
        (&["--concurrency"], "(--concurrency)", "Missing a value for this argument!"),
        (&["-l", "info", "--log-level", "info"], "-l (--log-level)", "Argument already set!"),
        (&["-c", "a", "-c", "b"], "-c (--config-path)", "Argument already set!"),
    ] {
        let text = parse(words).expect_err("a mistake").to_string();
        let expected = format!("PARSE ERROR: Argument: {argument}\n             {reason}\n\nBrief USAGE: ");
        assert!(text.starts_with(&expected), "{words:?}: {text}");
    }
}

#[test]
fn what_has_no_meaning_is_taken_and_named() {
    let args = run(&["--base-id", "7", "--disable-hot-restart", "--socket-mode", "600", "--cpuset-threads"]);
    assert_eq!(args.ignored, ["--base-id", "--socket-mode", "--cpuset-threads"]);
    assert_eq!(args.base_id, 7);
}

#[test]
fn levels_and_tags_are_read() {
    let args =
        run(&["--component-log-level", "upstream:debug,config:trace", "--stats-tag", "a:b", "--stats-tag", "c:d"]);
    let components: Vec<_> =
        args.logging.components.iter().map(|(component, level)| (component.name(), level.name())).collect();
    assert_eq!(components, [("upstream", "debug"), ("config", "trace")]);
    assert_eq!(args.stats_tags, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]);
}

#[test]
fn versions_and_help_are_asked_for_alone() {
    assert!(
        matches!(parse(&["--version"]), Ok(Command::Version(version)) if version.contains("/RELEASE/") || version.contains("/DEBUG/"))
    );
    assert!(matches!(parse(&["--hot-restart-version"]), Ok(Command::HotRestartVersion)));
    assert!(matches!(parse(&["--help"]), Ok(Command::Help(help)) if help.contains("--component-log-level")));
}
