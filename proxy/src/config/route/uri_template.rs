//! `envoy.extensions.path.{match,rewrite}.uri_template.v3`: paths as templates such as `/users/{id}/files/{path=**}`. Compiled to
//! an expression over the path without its query.

use std::collections::HashSet;

use weft_xds::FieldError;

use crate::config::field::Result;

#[derive(Clone, Debug)]
pub struct UriTemplate {
    pattern: regex::Regex,
    /// In the order of their groups.
    variables: Vec<String>,
}

/// What a path is made of that `UriTemplate` matched.
#[derive(Clone, Debug)]
pub struct UriTemplateRewrite(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Variable(String),
}

const VARIABLES_MAX: usize = 5;
const VARIABLE_BYTES_MAX: usize = 16;
/// One path segment, and any number of them.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@]+";
const TEXT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@/]*";

impl UriTemplate {
    pub(crate) fn parse(template: &str) -> Result<Self> {
        let refused = |reason: String| FieldError::new("path_template", format!("'{template}': {reason}"));
        if !template.starts_with('/') {
            return Err(refused("must begin with a slash".to_owned()));
        }
        let mut parser = Parser { expression: String::from("^"), variables: Vec::new(), ended: false };
        parser.pattern(template, true).map_err(refused)?;
        parser.expression.push('$');
        let distinct: HashSet<&String> = parser.variables.iter().collect();
        if distinct.len() < parser.variables.len() {
            return Err(refused("a variable stands twice".to_owned()));
        }
        if parser.variables.len() > VARIABLES_MAX {
            return Err(refused(format!("more than {VARIABLES_MAX} variables")));
        }
        let pattern = regex::Regex::new(&parser.expression).map_err(|_| refused("cannot be matched".to_owned()))?;
        Ok(Self { pattern, variables: parser.variables })
    }

    pub fn matches(&self, path: &str) -> bool {
        self.pattern.is_match(path)
    }
}

impl UriTemplateRewrite {
    /// `matched`: what the route's paths are matched by.
    pub(crate) fn parse(template: &str, matched: &UriTemplate) -> Result<Self> {
        let refused = |reason: &str| FieldError::new("path_template_rewrite", format!("'{template}': {reason}"));
        if !template.starts_with('/') {
            return Err(refused("must begin with a slash"));
        }
        let mut segments = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, variable) = rest.split_at(at);
            segments.push(Segment::Literal(literal.to_owned()));
            let variable = variable.strip_prefix('{').ok_or_else(|| refused("a brace that nothing opens"))?;
            let (name, behind) = variable.split_once('}').ok_or_else(|| refused("a brace that nothing closes"))?;
            if !matched.variables.iter().any(|known| known == name) {
                return Err(refused("a variable that the route's path does not have"));
            }
            segments.push(Segment::Variable(name.to_owned()));
            rest = behind;
        }
        if template.contains("//") || template.contains('*') {
            return Err(refused("not a path"));
        }
        segments.push(Segment::Literal(rest.to_owned()));
        segments.retain(|segment| *segment != Segment::Literal(String::new()));
        Ok(Self(segments))
    }

    /// None: the path does not match.
    pub fn apply(&self, matched: &UriTemplate, path: &str) -> Option<String> {
        let captures = matched.pattern.captures(path)?;
        let mut out = String::new();
        for segment in &self.0 {
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::Variable(name) => {
                    let group = matched.variables.iter().position(|known| known == name)? + 1;
                    out.push_str(captures.get(group).map_or("", |found| found.as_str()));
                }
            }
        }
        Some(out)
    }
}

struct Parser {
    expression: String,
    variables: Vec<String>,
    /// `**` was there: no further operator may be.
    ended: bool,
}

impl Parser {
    /// A path, or with `may_bind` false what a variable stands for.
    fn pattern(&mut self, mut rest: &str, may_bind: bool) -> Result<(), String> {
        while let Some(first) = rest.chars().next() {
            if let Some(behind) = rest.strip_prefix("**") {
                self.operator(TEXT, true)?;
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix('*') {
                self.operator(SEGMENT, false)?;
                rest = behind;
            } else if let Some(variable) = rest.strip_prefix('{') {
                if !may_bind {
                    return Err("a variable within a variable".to_owned());
                }
                let (variable, behind) = variable.split_once('}').ok_or("a brace that nothing closes")?;
                self.variable(variable)?;
                rest = behind;
            } else if is_literal(first) {
                self.expression.push_str(&regex::escape(first.encode_utf8(&mut [0; 4])));
                rest = &rest[first.len_utf8()..];
                if first == '/' && rest.starts_with('/') {
                    return Err("an empty segment".to_owned());
                }
            } else {
                return Err(format!("'{first}' may not stand in a path"));
            }
        }
        Ok(())
    }

    fn operator(&mut self, expression: &str, ends: bool) -> Result<(), String> {
        if self.ended {
            return Err("** must be the last operator".to_owned());
        }
        self.ended = ends;
        self.expression.push_str(expression);
        Ok(())
    }

    fn variable(&mut self, text: &str) -> Result<(), String> {
        let (name, pattern) = text.split_once('=').unwrap_or((text, "*"));
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name.len() > VARIABLE_BYTES_MAX {
            return Err(format!("'{name}' is not a variable's name"));
        }
        if pattern.is_empty() {
            return Err(format!("the variable '{name}' stands for nothing"));
        }
        if self.ended {
            return Err("** must be the last operator".to_owned());
        }
        self.variables.push(name.to_owned());
        self.expression.push('(');
        self.pattern(pattern, false)?;
        self.expression.push(')');
        Ok(())
    }
}

/// RFC 3986's path characters, and the slash.
fn is_literal(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@/".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::refusal;

    #[test]
    fn templates_match_segments_and_texts() {
        let matches = |template: &str, path: &str| UriTemplate::parse(template).unwrap().matches(path);
        assert!(matches("/videos/*/*.m4s", "/videos/1/2.m4s") && !matches("/videos/*/*.m4s", "/videos/1/2/3.m4s"));
        assert!(matches("/videos/{file}", "/videos/x") && !matches("/videos/{file}", "/videos/"));
        assert!(matches("/**.mpd", "/a/b/c.mpd") && matches("/a/**", "/a/") && !matches("/a/**", "/a"));
        assert!(matches("/v{version}/{id}.json", "/v2/4.json") && !matches("/v{version}/{id}.json", "/2/4.json"));
        assert!(matches("/{kind=videos/*}/x", "/videos/1/x") && !matches("/{kind=videos/*}/x", "/films/1/x"));
    }

    #[test]
    fn variables_are_put_where_the_rewrite_names_them() {
        let matched = UriTemplate::parse("/api/{kind}/{rest=**}").unwrap();
        let rewrite = UriTemplateRewrite::parse("/{rest}/of/{kind}", &matched).unwrap();
        assert_eq!(rewrite.apply(&matched, "/api/users/1/2").as_deref(), Some("/1/2/of/users"));
        assert_eq!(rewrite.apply(&matched, "/other"), None);
        assert!(refusal(UriTemplateRewrite::parse("/{none}", &matched)).contains("does not have"));
        assert!(refusal(UriTemplateRewrite::parse("{kind}", &matched)).contains("begin with a slash"));
    }

    #[test]
    fn broken_templates_are_refused() {
        for template in [
            "a",
            "/**/a/*",
            "/{a}/{a}",
            "/{a",
            "/a//b",
            "/{1a}",
            "/{a=}",
            "/{a=/{b}}",
            "/a?b",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
        ] {
            assert!(refusal(UriTemplate::parse(template)).starts_with("path_template: "), "{template}");
        }
    }
}
