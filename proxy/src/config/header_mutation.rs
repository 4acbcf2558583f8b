//! Changes of headers: `HeaderValueOption` lists of routes, and `envoy.config.common.mutation_rules.v3.HeaderMutation`.

use http::{HeaderName, HeaderValue};
use weft_xds::{
    FieldError,
    pb::envoy::config::{
        common::mutation_rules::v3::{
            HeaderMutation as ProtoHeaderMutation,
            header_mutation::{Action, RemoveOnMatch},
        },
        core::v3::{HeaderValue as ProtoHeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
    },
};

use crate::config::{
    field::{self, Result, Within as _, required},
    matcher::StringMatcher,
    substitution::{self, Command, HeaderKey, Operator},
};

/// `..._headers_to_add` and `..._headers_to_remove` of one place: removals come first, and values see the headers as they
/// were before any addition.
#[derive(Debug, Default)]
pub struct HeaderRules {
    pub remove: Vec<HeaderName>,
    pub add: Vec<AppendHeader>,
}

/// One step of a header mutation; steps are taken in order.
#[derive(Debug)]
pub enum HeaderMutation {
    Append(AppendHeader),
    Remove(HeaderName),
    RemoveOnMatch(StringMatcher),
}

#[derive(Debug)]
pub struct AppendHeader {
    pub key: HeaderKey,
    pub value: HeaderFormat,
    pub action: AppendAction,
    pub keep_empty_value: bool,
}

#[derive(Debug, PartialEq)]
pub enum HeaderFormat {
    Literal(HeaderValue),
    Format(Vec<Operator>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

impl HeaderRules {
    /// `which`: `request` or `response`, the beginning of the fields' names.
    pub(crate) fn from_proto(add: Vec<HeaderValueOption>, remove: Vec<String>, which: &str) -> Result<Self> {
        Ok(Self {
            add: field::each(add, &format!("{which}_headers_to_add"), |message| {
                let append = AppendHeader::from_proto(message)?;
                match append.key {
                    HeaderKey::Field(_) => Ok(append),
                    _ => Err(FieldError::new("header.key", ":-prefixed or host headers may not be modified")),
                }
            })?,
            remove: field::each(remove, &format!("{which}_headers_to_remove"), |name| removable(&name))?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    pub fn reads_request(&self) -> bool {
        self.add.iter().any(AppendHeader::reads_request)
    }
}

impl HeaderMutation {
    pub(crate) fn from_proto(message: ProtoHeaderMutation) -> Result<Self> {
        let ProtoHeaderMutation { action } = message;
        Ok(match required(action, "action")? {
            Action::Append(message) => Self::Append(AppendHeader::from_proto(message).within("append")?),
            Action::Remove(name) => Self::Remove(removable(&name).within("remove")?),
            Action::RemoveOnMatch(RemoveOnMatch { key_matcher }) => {
                let key_matcher = required(key_matcher, "remove_on_match.key_matcher")?;
                Self::RemoveOnMatch(StringMatcher::from_proto(key_matcher).within("remove_on_match.key_matcher")?)
            }
        })
    }

    pub fn reads_request(&self) -> bool {
        match self {
            Self::Append(append) => append.reads_request(),
            Self::Remove(_) | Self::RemoveOnMatch(_) => false,
        }
    }
}

impl AppendHeader {
    pub(crate) fn from_proto(message: HeaderValueOption) -> Result<Self> {
        #[expect(deprecated, reason = "control planes still send the older spelling")]
        let HeaderValueOption { header, append, append_action, keep_empty_value } = message;
        let ProtoHeaderValue { key, value, raw_value } = required(header, "header")?;
        let name = HeaderKey::parse(&key).ok_or_else(|| FieldError::new("header.key", "not a header name"))?;
        let action = match field::enumeration(append_action, "append_action")? {
            HeaderAppendAction::AppendIfExistsOrAdd => match append {
                Some(wrapper) if !wrapper.value => AppendAction::OverwriteIfExistsOrAdd,
                _ => AppendAction::AppendIfExistsOrAdd,
            },
            _ if append.is_some() => {
                return Err(FieldError::new("append", "cannot be set together with append_action"));
            }
            HeaderAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
            HeaderAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
            HeaderAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
        };
        let text = match raw_value.is_empty() {
            true => value,
            false => String::from_utf8(raw_value)
                .map_err(|_| FieldError::new("header.raw_value", "only UTF-8 text is supported"))?,
        };
        let value = HeaderFormat::parse(&text).within("header.value")?;
        Ok(Self { key: name, value, action, keep_empty_value })
    }

    fn reads_request(&self) -> bool {
        match &self.value {
            HeaderFormat::Literal(_) => false,
            HeaderFormat::Format(operators) => operators.iter().any(|operator| operator.command.reads_request()),
        }
    }
}

impl HeaderFormat {
    fn parse(text: &str) -> Result<Self> {
        let operators = substitution::parse(text)?;
        match &operators[..] {
            [] => field::header_value("", "").map(Self::Literal),
            [Operator { command: Command::Literal(text), .. }] => field::header_value(text, "").map(Self::Literal),
            _ => Ok(Self::Format(operators)),
        }
    }
}

fn removable(name: &str) -> Result<HeaderName> {
    match HeaderKey::parse(name) {
        Some(HeaderKey::Field(name)) => Ok(name),
        Some(_) => Err(FieldError::new("", ":-prefixed or host headers may not be removed")),
        None => Err(FieldError::new("", "not a header name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    fn append(yaml: &str) -> Result<AppendHeader> {
        AppendHeader::from_proto(message(yaml))
    }

    #[test]
    fn both_spellings_of_the_action() {
        let action = |yaml: &str| append(&format!("header: {{key: a, value: b}}\n{yaml}")).unwrap().action;
        assert_eq!(action(""), AppendAction::AppendIfExistsOrAdd);
        assert_eq!(action("append: true"), AppendAction::AppendIfExistsOrAdd);
        assert_eq!(action("append: false"), AppendAction::OverwriteIfExistsOrAdd);
        assert_eq!(action("append_action: ADD_IF_ABSENT"), AppendAction::AddIfAbsent);
        assert_eq!(action("append_action: OVERWRITE_IF_EXISTS"), AppendAction::OverwriteIfExists);
        let both = append("{header: {key: a}, append: true, append_action: ADD_IF_ABSENT}");
        assert_eq!(refusal(both), "append: cannot be set together with append_action");
    }

    #[test]
    fn a_value_without_commands_is_ready_made() {
        assert_eq!(
            append("header: {key: a, value: '100%%'}").unwrap().value,
            HeaderFormat::Literal(HeaderValue::from_static("100%"))
        );
        let format = append("header: {key: a, value: 'x%REQ(b)%'}").unwrap();
        assert!(matches!(&format.value, HeaderFormat::Format(operators) if operators.len() == 2));
        assert!(format.reads_request());
        assert!(refusal(append("header: {key: a, value: '%'}")).starts_with("header.value: no command"));
    }

    #[test]
    fn routes_leave_the_target_alone() {
        let rules = |add: &str, remove: &str| {
            HeaderRules::from_proto(
                vec![message(&format!("header: {{key: '{add}', value: x}}"))],
                vec![remove.into()],
                "request",
            )
        };
        rules("x", "y").unwrap();
        assert_eq!(
            refusal(rules("host", "y")),
            "request_headers_to_add[0].header.key: :-prefixed or host headers may not be modified"
        );
        assert_eq!(
            refusal(rules("x", ":path")),
            "request_headers_to_remove[0]: :-prefixed or host headers may not be removed"
        );
    }
}
