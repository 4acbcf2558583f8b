//! `envoy.type.matcher.v3.StringMatcher` and `envoy.config.route.v3.HeaderMatcher`: predicates over text, pure.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::route::v3::{HeaderMatcher as ProtoHeaderMatcher, header_matcher::HeaderMatchSpecifier},
        r#type::{
            matcher::v3::{
                RegexMatchAndSubstitute, RegexMatcher, StringMatcher as ProtoStringMatcher, regex_matcher::EngineType,
                string_matcher::MatchPattern,
            },
            v3::Int64Range,
        },
    },
};

use crate::config::field::{Result, Within as _, required, unset, unsupported};

/// How large one compiled expression may grow, in bytes. RE2's own bound is 8 MiB.
const REGEX_SIZE_BYTES_MAX: usize = 8 << 20;

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
    /// Of a response.
    Status,
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

impl StringMatcher {
    pub fn from_proto(message: ProtoStringMatcher) -> Result<Self> {
        let ProtoStringMatcher { ignore_case, match_pattern } = message;
        let literal = |text: String| if ignore_case { text.to_ascii_lowercase() } else { text };
        let pattern = match required(match_pattern, "match_pattern")? {
            MatchPattern::Exact(text) => StringPattern::Exact(literal(text)),
            MatchPattern::Prefix(text) => StringPattern::Prefix(literal(text)),
            MatchPattern::Suffix(text) => StringPattern::Suffix(literal(text)),
            MatchPattern::Contains(text) => StringPattern::Contains(literal(text)),
            // As Envoy documents it, `ignore_case` has no effect on an expression.
            MatchPattern::SafeRegex(matcher) => StringPattern::SafeRegex(regex(matcher).within("safe_regex")?),
            MatchPattern::Custom(_) => return Err(unsupported("custom")),
        };
        Ok(Self { pattern, ignore_case })
    }

    pub fn matches(&self, text: &str) -> bool {
        // Copied only where case is ignored; expressions look at the text as it is.
        let lower = || text.to_ascii_lowercase();
        match (&self.pattern, self.ignore_case) {
            (StringPattern::SafeRegex(regex), _) => regex.is_match(text),
            (StringPattern::Exact(pattern), false) => text == pattern,
            (StringPattern::Exact(pattern), true) => text.eq_ignore_ascii_case(pattern),
            (StringPattern::Prefix(pattern), false) => text.starts_with(pattern),
            (StringPattern::Prefix(pattern), true) => lower().starts_with(pattern),
            (StringPattern::Suffix(pattern), false) => text.ends_with(pattern),
            (StringPattern::Suffix(pattern), true) => lower().ends_with(pattern),
            (StringPattern::Contains(pattern), false) => text.contains(pattern),
            (StringPattern::Contains(pattern), true) => lower().contains(pattern),
        }
    }

    fn exactly(pattern: StringPattern) -> Self {
        Self { pattern, ignore_case: false }
    }
}

impl HeaderMatcher {
    pub fn from_proto(message: ProtoHeaderMatcher) -> Result<Self> {
        let ProtoHeaderMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } = message;
        let name = HeaderMatcherName::parse(&name).ok_or_else(|| FieldError::new("name", "not a header name"))?;
        let value = match header_match_specifier {
            // Nothing said means that the header must be there.
            None => HeaderMatch::Present(true),
            Some(specifier) => header_match(specifier)?,
        };
        Ok(Self { name, value, invert_match, treat_missing_header_as_empty })
    }
}

#[expect(deprecated, reason = "the older spellings mean the same, and control planes still send them")]
fn header_match(specifier: HeaderMatchSpecifier) -> Result<HeaderMatch> {
    let pattern = match specifier {
        HeaderMatchSpecifier::PresentMatch(present) => return Ok(HeaderMatch::Present(present)),
        HeaderMatchSpecifier::RangeMatch(Int64Range { start, end }) => return Ok(HeaderMatch::Range { start, end }),
        HeaderMatchSpecifier::StringMatch(matcher) => {
            return Ok(HeaderMatch::String(StringMatcher::from_proto(matcher).within("string_match")?));
        }
        HeaderMatchSpecifier::ExactMatch(text) => StringPattern::Exact(text),
        HeaderMatchSpecifier::PrefixMatch(text) => StringPattern::Prefix(text),
        HeaderMatchSpecifier::SuffixMatch(text) => StringPattern::Suffix(text),
        HeaderMatchSpecifier::ContainsMatch(text) => StringPattern::Contains(text),
        HeaderMatchSpecifier::SafeRegexMatch(matcher) => {
            StringPattern::SafeRegex(regex(matcher).within("safe_regex_match")?)
        }
    };
    Ok(HeaderMatch::String(StringMatcher::exactly(pattern)))
}

impl HeaderMatcherName {
    /// None: neither a header's name nor a pseudo-header that a request has. `host` is `:authority`, as in HTTP/2.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            name => Self::Header(http::HeaderName::from_bytes(name.as_bytes()).ok()?),
        })
    }
}

/// An expression in RE2's syntax, anchored at both ends: it matches the whole text or not at all.
pub fn regex(message: RegexMatcher) -> Result<regex::Regex> {
    let RegexMatcher { regex, engine_type } = message;
    check_engine(engine_type)?;
    // Compiled alone first, so that an unbalanced parenthesis cannot pair with those added.
    regex::Regex::new(&regex).map_err(|error| invalid_regex(&error))?;
    regex::RegexBuilder::new(&format!("^(?:{regex})$"))
        .size_limit(REGEX_SIZE_BYTES_MAX)
        .build()
        .map_err(|error| invalid_regex(&error))
}

/// `envoy.type.matcher.v3.RegexMatchAndSubstitute`: each match in a text, replaced.
#[derive(Debug)]
pub struct RegexRewrite {
    pattern: regex::Regex,
    /// What it is replaced with: text and the groups of the match by turns.
    replacement: Vec<Replacement>,
}

#[derive(Debug, PartialEq, Eq)]
enum Replacement {
    Text(String),
    Group(usize),
}

impl RegexRewrite {
    pub fn from_proto(message: RegexMatchAndSubstitute) -> Result<Self> {
        let RegexMatchAndSubstitute { pattern, substitution } = message;
        let pattern = searching_regex(required(pattern, "pattern")?).within("pattern")?;
        let replacement = replacement(&substitution)?;
        let group_max = replacement.iter().map(|part| match part {
            Replacement::Group(group) => *group,
            Replacement::Text(_) => 0,
        });
        if group_max.max().unwrap_or_default() >= pattern.captures_len() {
            return Err(FieldError::new("substitution", "names a group that the pattern does not have"));
        }
        Ok(Self { pattern, replacement })
    }

    pub fn apply(&self, text: &str) -> String {
        let replaced = self.pattern.replace_all(text, |captures: &regex::Captures<'_>| {
            let mut out = String::new();
            for part in &self.replacement {
                match part {
                    Replacement::Text(text) => out.push_str(text),
                    Replacement::Group(group) => out.push_str(captures.get(*group).map_or("", |found| found.as_str())),
                }
            }
            out
        });
        replaced.into_owned()
    }
}

/// RE2's syntax: `\\0` to `\\9` are groups, `\\\\` is a backslash.
fn replacement(text: &str) -> Result<Vec<Replacement>> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            literal.push(character);
            continue;
        }
        match characters.next() {
            Some('\\') => literal.push('\\'),
            Some(digit) if digit.is_ascii_digit() => {
                if !literal.is_empty() {
                    parts.push(Replacement::Text(std::mem::take(&mut literal)));
                }
                parts.push(Replacement::Group(digit as usize - '0' as usize));
            }
            _ => return Err(FieldError::new("substitution", "a backslash is followed by a digit or a backslash")),
        }
    }
    if !literal.is_empty() {
        parts.push(Replacement::Text(literal));
    }
    Ok(parts)
}

/// An expression that is looked for within a text.
fn searching_regex(message: RegexMatcher) -> Result<regex::Regex> {
    let RegexMatcher { regex, engine_type } = message;
    check_engine(engine_type)?;
    let built = regex::RegexBuilder::new(&regex).size_limit(REGEX_SIZE_BYTES_MAX).build();
    built.map_err(|error| invalid_regex(&error))
}

/// RE2 is what both spellings stand for; a bound on its program size is not known here.
fn check_engine(engine_type: Option<EngineType>) -> Result<()> {
    #[expect(deprecated, reason = "control planes still send the engine that is the only one")]
    if let Some(EngineType::GoogleRe2(engine)) = engine_type {
        unset(&engine.max_program_size, "google_re2.max_program_size")?;
    }
    Ok(())
}

fn invalid_regex(error: &regex::Error) -> FieldError {
    match error {
        regex::Error::CompiledTooBig(_) => FieldError::new("regex", "the expression is too large"),
        // The last line of the parser's drawing is its reason.
        error => FieldError::new(
            "regex",
            error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests;
