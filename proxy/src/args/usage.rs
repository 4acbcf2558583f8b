//! Mistakes on the command line, told as Envoy tells them: which argument, what is wrong with it, how it should be.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::ArgsError;

const USAGE: &str = "Brief USAGE: \n   weft-proxy [-c <path>] [--config-yaml <yaml>] [--mode serve|validate|init_only] \
                     [OPTIONS]\n\nFor complete USAGE and HELP type: \n   weft-proxy --help\n";

pub(super) fn parse_error(error: &clap::Error) -> ArgsError {
    let argument = text(error, ContextKind::InvalidArg);
    // clap names a flag together with its value's name.
    let flag = argument.split([' ', '=']).next().unwrap_or_default().to_owned();
    let value = text(error, ContextKind::InvalidValue);
    let (argument, reason) = match error.kind() {
        ErrorKind::UnknownArgument => (argument, "Couldn't find match for argument".to_owned()),
        ErrorKind::ArgumentConflict => (named(&flag), "Argument already set!".to_owned()),
        ErrorKind::InvalidValue if value.is_empty() => (named(&flag), MISSING.to_owned()),
        ErrorKind::NoEquals | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            (named(&flag), MISSING.to_owned())
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            (named(&flag), format!("Couldn't read argument value from string '{value}'"))
        }
        _ => (named(&flag), error.kind().to_string()),
    };
    ArgsError(format!("PARSE ERROR: Argument: {argument}\n             {reason}\n\n{USAGE}"))
}

const MISSING: &str = "Missing a value for this argument!";

/// The short form first where there is one.
fn named(flag: &str) -> String {
    match flag {
        "--config-path" => "-c (--config-path)".to_owned(),
        "--log-level" => "-l (--log-level)".to_owned(),
        other => format!("({other})"),
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    }
}
