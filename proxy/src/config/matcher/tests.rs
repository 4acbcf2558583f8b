use super::*;
use crate::config::testing::{message, refusal};

fn string(yaml: &str) -> StringMatcher {
    StringMatcher::from_proto(message(yaml)).unwrap()
}

#[test]
fn strings_match_by_their_pattern() {
    for (yaml, yes, no) in [
        ("exact: a", "a", "A"),
        ("{exact: Ab, ignore_case: true}", "aB", "abc"),
        ("prefix: a", "ab", "ba"),
        ("{prefix: A, ignore_case: true}", "ab", "ba"),
        ("suffix: b", "ab", "aB"),
        ("{suffix: b, ignore_case: true}", "aB", "ba"),
        ("contains: b", "abc", "aBc"),
        ("{contains: B, ignore_case: true}", "abc", "ac"),
        ("safe_regex: {regex: 'a+'}", "aaa", "baaa"),
        ("safe_regex: {regex: 'a|b'}", "b", "ab"),
        ("safe_regex: {regex: '(?i)a'}", "A", "b"),
    ] {
        let matcher = string(yaml);
        assert!(matcher.matches(yes), "{yaml} {yes}");
        assert!(!matcher.matches(no), "{yaml} {no}");
    }
}

#[test]
fn expressions_must_be_whole() {
    for (regex, reason) in [
        ("(", "regex: unclosed group"),
        ("a)(b", "regex: unopened group"),
        ("(?!a)", "regex: look-around, including look-ahead and look-behind, is not supported"),
    ] {
        let message = RegexMatcher { regex: regex.to_owned(), engine_type: None };
        assert_eq!(refusal(super::regex(message)), reason, "{regex}");
    }
}

#[test]
fn an_expression_that_grows_without_bound_is_refused() {
    let message = RegexMatcher { regex: "(?:[a-z]{1000}){1000}".to_owned(), engine_type: None };
    assert_eq!(refusal(regex(message)), "regex: the expression is too large");
}

#[test]
fn headers_and_pseudo_headers_have_names() {
    let name = |name: &str| HeaderMatcher::from_proto(message(&format!("{{name: '{name}', present_match: true}}")));
    assert!(matches!(name(":method").unwrap().name, HeaderMatcherName::Method));
    assert!(matches!(name(":Path").unwrap().name, HeaderMatcherName::Path));
    assert!(matches!(name(":scheme").unwrap().name, HeaderMatcherName::Scheme));
    assert!(matches!(name("Host").unwrap().name, HeaderMatcherName::Authority));
    assert!(matches!(name("X-Y").unwrap().name, HeaderMatcherName::Header(name) if name == "x-y"));
    assert_eq!(refusal(name(":foo")), "name: not a header name");
    assert_eq!(refusal(name("a b")), "name: not a header name");
}

#[test]
fn header_values_are_matched_by_the_newer_and_the_older_spellings() {
    let value = |specifier: &str| {
        HeaderMatcher::from_proto(message(&format!("{{name: a, invert_match: true, {specifier}}}"))).unwrap()
    };
    assert!(matches!(value("").value, HeaderMatch::Present(true)), "nothing said means present");
    assert!(value("").invert_match);
    assert!(matches!(value("present_match: false").value, HeaderMatch::Present(false)));
    assert!(matches!(value("range_match: {start: 1, end: 5}").value, HeaderMatch::Range { start: 1, end: 5 }));
    for (specifier, text) in [
        ("string_match: {exact: x}", "x"),
        ("exact_match: x", "x"),
        ("prefix_match: x", "xy"),
        ("suffix_match: x", "yx"),
        ("contains_match: x", "yxy"),
        ("safe_regex_match: {regex: x.}", "xy"),
    ] {
        let HeaderMatch::String(matcher) = value(specifier).value else { panic!("{specifier}") };
        assert!(matcher.matches(text) && !matcher.matches("z"), "{specifier}");
    }
}

#[test]
fn errors_name_the_expression() {
    let bad = |yaml: &str| refusal(HeaderMatcher::from_proto(message(&format!("{{name: a, {yaml}}}"))));
    assert_eq!(bad("string_match: {safe_regex: {regex: '('}}"), "string_match.safe_regex.regex: unclosed group");
    assert_eq!(bad("safe_regex_match: {regex: '('}"), "safe_regex_match.regex: unclosed group");
    assert_eq!(
        bad("string_match: {custom: {name: x, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty}}}"),
        "string_match.custom: not supported"
    );
}
