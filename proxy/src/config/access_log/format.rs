//! Envoy's format strings: literal text with commands such as `%REQ(:PATH)%`, parsed once into operators.
//!
//! `%%` is a percent sign; any other `%` begins a command `%NAME%`, `%NAME(parameters)%` or `%NAME(parameters):LENGTH%`.

use super::{Command, Operator};
use crate::config::field::Result;
use weft_xds::FieldError;

/// What Envoy writes where no format is given, for HTTP and TCP alike.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// The path of an error is empty: the caller knows the field.
pub(super) fn parse(text: &str) -> Result<Vec<Operator>> {
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
        let (name, mut rest) = body.split_at(name_length);
        let mut parameters = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (inside, after) = inner.split_once(')')?;
            parameters = Some(inside);
            rest = after;
        }
        let mut length = None;
        if let Some(digits) = rest.strip_prefix(':') {
            let (inside, after) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit())?);
            length = Some(inside);
            rest = after;
        }
        let rest = rest.strip_prefix('%')?;
        let is_complete = !name.is_empty() && length != Some("");
        is_complete.then(|| Self { text: &text[..text.len() - rest.len()], name, parameters, length })
    }

    fn operator(&self) -> Result<Operator> {
        let header: fn(String, Option<String>) -> Command = match self.name {
            "REQ" => Command::RequestHeader,
            "RESP" => Command::ResponseHeader,
            "TRAILER" => Command::ResponseTrailer,
            "START_TIME" => return self.start_time(),
            name => return self.plain(name),
        };
        let (first, alternative) = self.header_names()?;
        let max_length = match self.length {
            None => None,
            Some(digits) => {
                Some(digits.parse().map_err(|_| error(format!("the length of '{}' is too large", self.text)))?)
            }
        };
        Ok(Operator { command: header(first, alternative), max_length })
    }

    fn start_time(&self) -> Result<Operator> {
        if self.length.is_some() {
            return Err(error(format!("'{}': {} does not take a length", self.text, self.name)));
        }
        let format = self.parameters.filter(|format| !format.is_empty()).map(str::to_owned);
        if let Some(format) = &format
            && let Err(cause) = jiff::fmt::strtime::format(format, jiff::Timestamp::UNIX_EPOCH)
        {
            return Err(error(format!("'{}': {cause}", self.text)));
        }
        Ok(Operator { command: Command::StartTime(format), max_length: None })
    }

    fn plain(&self, name: &str) -> Result<Operator> {
        let command = plain_command(name).ok_or_else(|| error(format!("'{}' is not supported", self.text)))?;
        if self.parameters.is_some() || self.length.is_some() {
            return Err(error(format!("'{}': {name} does not take any parameters or length", self.text)));
        }
        Ok(Operator { command, max_length: None })
    }

    fn header_names(&self) -> Result<(String, Option<String>)> {
        let parameters = self.parameters.filter(|parameters| !parameters.is_empty());
        let parameters =
            parameters.ok_or_else(|| error(format!("'{}': {} requires a header's name", self.text, self.name)))?;
        let mut names = parameters.split('?').map(|name| self.header_name(name));
        let first = names.next().expect("a split has at least one part")?;
        let alternative = names.next().transpose()?;
        if names.next().is_some() {
            return Err(error(format!("'{}': more than one alternative header", self.text)));
        }
        Ok((first, alternative))
    }

    fn header_name(&self, name: &str) -> Result<String> {
        let name = name.to_ascii_lowercase();
        let token = name.strip_prefix(':').unwrap_or(&name);
        match http::HeaderName::from_bytes(token.as_bytes()) {
            Ok(_) => Ok(name),
            Err(_) => Err(error(format!("'{}': '{name}' is not a header's name", self.text))),
        }
    }
}

fn plain_command(name: &str) -> Option<Command> {
    Some(match name {
        "PROTOCOL" => Command::Protocol,
        "RESPONSE_CODE" => Command::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Command::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Command::ResponseFlags,
        "CONNECTION_TERMINATION_DETAILS" => Command::ConnectionTerminationDetails,
        "BYTES_RECEIVED" => Command::BytesReceived,
        "BYTES_SENT" => Command::BytesSent,
        "DURATION" => Command::Duration,
        "REQUEST_DURATION" => Command::RequestDuration,
        "RESPONSE_DURATION" => Command::ResponseDuration,
        "RESPONSE_TX_DURATION" => Command::ResponseTxDuration,
        "UPSTREAM_HOST" => Command::UpstreamHost,
        "UPSTREAM_CLUSTER" => Command::UpstreamCluster,
        "UPSTREAM_LOCAL_ADDRESS" => Command::UpstreamLocalAddress,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Command::UpstreamTransportFailureReason,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Command::UpstreamRequestAttemptCount,
        "ROUTE_NAME" => Command::RouteName,
        "VIRTUAL_CLUSTER_NAME" => Command::VirtualClusterName,
        "REQUESTED_SERVER_NAME" => Command::RequestedServerName,
        "DOWNSTREAM_LOCAL_ADDRESS" => Command::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Command::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => Command::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => Command::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Command::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_REMOTE_PORT" => Command::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Command::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Command::DownstreamDirectRemoteAddressWithoutPort,
        "CONNECTION_ID" => Command::ConnectionId,
        "HOSTNAME" => Command::Hostname,
        _ => return None,
    })
}

fn error(reason: String) -> FieldError {
    FieldError::new("", reason)
}

/// Enough of a broken format to find the place.
fn excerpt(text: &str) -> &str {
    const CHARACTERS_MAX: usize = 32;
    text.char_indices().nth(CHARACTERS_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests;
