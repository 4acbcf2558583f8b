//! A format string into operators. Errors have an empty path: the caller knows the field.

use weft_xds::FieldError;

use super::{Command, Fact, GrpcStatusForm, HeaderKey, Operator, PathSource, TimePoint, TimePrecision};
use crate::config::field::Result;

pub(crate) fn parse(text: &str) -> Result<Vec<Operator>> {
    let mut operators = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        literal.push_str(&rest[..percent]);
        rest = &rest[percent..];
        if let Some(after) = rest.strip_prefix("%%") {
            literal.push('%');
            rest = after;
            continue;
        }
        let token = Token::parse(rest).ok_or_else(|| error(format!("no command begins at '{}'", excerpt(rest))))?;
        push_literal(&mut operators, &mut literal);
        rest = &rest[token.text.len()..];
        operators.push(token.operator()?);
    }
    literal.push_str(rest);
    push_literal(&mut operators, &mut literal);
    Ok(operators)
}

fn push_literal(operators: &mut Vec<Operator>, literal: &mut String) {
    if !literal.is_empty() {
        operators.push(Operator { command: Command::Literal(std::mem::take(literal)), max_length: None });
    }
}

/// A command as it is written.
struct Token<'a> {
    text: &'a str,
    name: &'a str,
    parameters: Option<&'a str>,
    length: Option<&'a str>,
}

impl<'a> Token<'a> {
    /// `text` begins with the percent sign.
    fn parse(text: &'a str) -> Option<Self> {
        let body = text.strip_prefix('%')?;
        let name_length = body.find(|c: char| !matches!(c, 'A'..='Z' | '0'..='9' | '_'))?;
        let (name, rest) = body.split_at(name_length);
        if name.is_empty() {
            return None;
        }
        let (parameters, length, rest) = match rest.strip_prefix('(') {
            None => end_of_command(rest).map(|(length, rest)| (None, length, rest))?,
            // Parameters may have parentheses in them: the first one that a command can end at ends them.
            Some(inner) => inner.match_indices(')').find_map(|(at, _)| {
                end_of_command(&inner[at + 1..]).map(|(length, rest)| (Some(&inner[..at]), length, rest))
            })?,
        };
        Some(Self { text: &text[..text.len() - rest.len()], name, parameters, length })
    }

    fn operator(&self) -> Result<Operator> {
        let (command, takes_length) = match self.name {
            "START_TIME" => (Command::StartTime(self.time_format()?), false),
            "EMIT_TIME" => (Command::EmitTime(self.time_format()?), false),
            "REQ" => (self.header(Command::RequestHeader)?, true),
            "RESP" => (self.header(Command::ResponseHeader)?, true),
            "TRAILER" => (self.header(Command::ResponseTrailer)?, true),
            "PATH" => (self.path()?, true),
            "QUERY_PARAM" => (Command::QueryParameter(self.parameter("the parameter's name")?.to_owned()), true),
            "GRPC_STATUS" => (self.grpc_status()?, false),
            "ENVIRONMENT" => (self.environment()?, true),
            "DYNAMIC_METADATA" => {
                let mut parts = self.parameter("a namespace")?.split(':').map(str::to_owned);
                let namespace = parts.next().unwrap_or_default();
                (Command::DynamicMetadata { namespace, path: parts.collect() }, true)
            }
            "FILTER_STATE" => {
                let (key, form) =
                    self.parameter("a key")?.split_once(':').unwrap_or((self.parameter("a key")?, "TYPED"));
                let is_plain = match form {
                    "PLAIN" => true,
                    "TYPED" => false,
                    _ => return Err(self.error(format_args!("'{form}' is neither PLAIN nor TYPED"))),
                };
                (Command::FilterState { key: key.to_owned(), is_plain }, true)
            }
            "UPSTREAM_FILTER_STATE" => {
                self.parameter("a name")?;
                (Command::NeverThere, true)
            }
            "DOWNSTREAM_PEER_CERT_V_START" => (self.certificate_time(false)?, false),
            "DOWNSTREAM_PEER_CERT_V_END" => (self.certificate_time(true)?, false),
            "COMMON_DURATION" => (self.common_duration()?, false),
            name => (self.fact(name)?, false),
        };
        if !takes_length && self.length.is_some() {
            return Err(self.error(format_args!("{} does not take a length", self.name)));
        }
        let max_length = match self.length {
            None => None,
            Some(digits) => {
                Some(digits.parse().map_err(|_| error(format!("the length of '{}' is too large", self.text)))?)
            }
        };
        Ok(Operator { command, max_length })
    }

    fn error(&self, reason: impl std::fmt::Display) -> FieldError {
        error(format!("'{}': {reason}", self.text))
    }

    fn parameter(&self, what: &str) -> Result<&'a str> {
        let parameters = self.parameters.filter(|parameters| !parameters.is_empty());
        parameters.ok_or_else(|| self.error(format_args!("{} requires {what}", self.name)))
    }

    /// `%f` alone is nine digits of the second, as Envoy has it.
    fn time_format(&self) -> Result<Option<String>> {
        let Some(format) = self.parameters.filter(|format| !format.is_empty()) else { return Ok(None) };
        let format = format.replace("%f", "%9f");
        jiff::fmt::strtime::format(&format, jiff::Timestamp::UNIX_EPOCH).map_err(|cause| self.error(cause))?;
        Ok(Some(format))
    }

    fn certificate_time(&self, is_end: bool) -> Result<Command> {
        Ok(Command::PeerCertificateTime { is_end, format: self.time_format()? })
    }

    fn header(&self, command: fn(HeaderKey, Option<HeaderKey>) -> Command) -> Result<Command> {
        let mut names = self.parameter("a header's name")?.split('?').map(|name| self.header_name(name));
        let first = names.next().expect("a split has at least one part")?;
        let alternative = names.next().transpose()?;
        if names.next().is_some() {
            return Err(self.error("more than one alternative header"));
        }
        Ok(command(first, alternative))
    }

    fn header_name(&self, name: &str) -> Result<HeaderKey> {
        HeaderKey::parse(name)
            .ok_or_else(|| self.error(format_args!("'{}' is not a header's name", name.to_ascii_lowercase())))
    }

    /// `%PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)%`, both with defaults.
    fn path(&self) -> Result<Command> {
        let (query, source) =
            self.parameters.unwrap_or_default().split_once(':').unwrap_or((self.parameters.unwrap_or_default(), ""));
        let with_query = match query {
            "" | "WQ" => true,
            "NQ" => false,
            other => return Err(self.error(format_args!("'{other}' is neither WQ nor NQ"))),
        };
        let source = match source {
            "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
            "ORIG" => PathSource::Original,
            "PATH" => PathSource::Current,
            other => return Err(self.error(format_args!("'{other}' is none of ORIG, PATH and ORIG_OR_PATH"))),
        };
        Ok(Command::Path { with_query, source })
    }

    /// What is not set is a dash wherever it is written.
    fn environment(&self) -> Result<Command> {
        let value = std::env::var(self.parameter("the variable's name")?);
        Ok(Command::Environment(value.unwrap_or_else(|_| "-".to_owned())))
    }

    fn grpc_status(&self) -> Result<Command> {
        Ok(Command::GrpcStatus(match self.parameters.unwrap_or_default() {
            "" | "CAMEL_STRING" => GrpcStatusForm::Camel,
            "SNAKE_STRING" => GrpcStatusForm::Snake,
            "NUMBER" => GrpcStatusForm::Number,
            other => return Err(self.error(format_args!("'{other}' is not a form of a gRPC status"))),
        }))
    }

    fn common_duration(&self) -> Result<Command> {
        let parts: Vec<&str> = self.parameter("START:END:PRECISION")?.split(':').collect();
        let [from, to, precision] = parts[..] else { return Err(self.error("START:END:PRECISION is required")) };
        let point =
            |name: &str| TimePoint::parse(name).ok_or_else(|| self.error(format_args!("'{name}' is no point in time")));
        let precision = TimePrecision::parse(precision)
            .ok_or_else(|| self.error(format_args!("'{precision}' is none of ms, us and ns")))?;
        Ok(Command::CommonDuration { from: point(from)?, to: point(to)?, precision })
    }

    fn fact(&self, name: &str) -> Result<Command> {
        let fact = Fact::parse(name).ok_or_else(|| error(format!("'{}' is not supported", self.text)))?;
        if self.parameters.is_some() || self.length.is_some() {
            return Err(self.error(format_args!("{name} does not take any parameters or length")));
        }
        Ok(Command::Fact(fact))
    }
}

/// What stands between the parameters and the closing percent sign: nothing or a length.
fn end_of_command(text: &str) -> Option<(Option<&str>, &str)> {
    let Some(digits) = text.strip_prefix(':') else { return text.strip_prefix('%').map(|rest| (None, rest)) };
    let (length, rest) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit())?);
    let rest = rest.strip_prefix('%')?;
    (!length.is_empty()).then_some((Some(length), rest))
}

fn error(reason: String) -> FieldError {
    FieldError::new("", reason)
}

/// Enough of a broken format to find the place.
fn excerpt(text: &str) -> &str {
    const CHARACTERS_MAX: usize = 32;
    text.char_indices().nth(CHARACTERS_MAX).map_or(text, |(end, _)| &text[..end])
}
