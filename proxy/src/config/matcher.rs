//! `envoy.type.matcher.v3.StringMatcher` and `envoy.config.route.v3.HeaderMatcher`: predicates over text, pure.

#[derive(Debug)]
pub struct StringMatcher {
    pub pattern: StringPattern,
    /// ASCII only. Patterns are kept in lower case when true.
    pub ignore_case: bool,
}

#[derive(Debug)]
pub enum StringPattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Matches the whole text.
    SafeRegex(regex::Regex),
}

#[derive(Debug)]
pub struct HeaderMatcher {
    /// A header's name in lower case, or `:method`, `:authority`, `:path`, `:scheme`.
    pub name: HeaderMatcherName,
    pub value: HeaderMatch,
    pub invert_match: bool,
    pub treat_missing_header_as_empty: bool,
}

#[derive(Debug)]
pub enum HeaderMatcherName {
    Header(http::HeaderName),
    Method,
    Authority,
    Path,
    Scheme,
}

#[derive(Debug)]
pub enum HeaderMatch {
    Present(bool),
    String(StringMatcher),
    /// Half-open, over a decimal integer.
    Range {
        start: i64,
        end: i64,
    },
}
