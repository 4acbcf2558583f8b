//! A line's pattern in spdlog's syntax, read once. What is no flag stands for itself, as with spdlog. Pure.

use std::fmt::{self, Write};

use jiff::civil::DateTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A part of the time, by jiff's `strftime` directive.
    Time(&'static str),
    Milliseconds,
    Microseconds,
    Nanoseconds,
    UnixSeconds,
    Thread,
    Process,
    Level,
    ShortLevel,
    Component,
    Message,
    /// `%_`: line ends escaped.
    MessageOnOneLine,
    /// `%j`: as the inside of a JSON string.
    MessageJson,
    SourcePath,
    SourceName,
    SourceLine,
    SourcePlace,
    Function,
}

/// What a line is made from.
pub(super) struct Line<'a> {
    pub(super) time: DateTime,
    pub(super) unix_seconds: i64,
    pub(super) thread: u64,
    pub(super) process: u32,
    pub(super) level: &'a str,
    pub(super) component: &'a str,
    pub(super) message: &'a str,
    pub(super) file: &'a str,
    pub(super) line: u32,
    pub(super) module: &'a str,
}

impl Pattern {
    pub fn parse(text: &str) -> Pattern {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                plain.push(character);
                continue;
            }
            // Alignment (%8l, %-8l, %=8l) is read over: columns are for eyes.
            let mut flag = characters.next();
            while flag.is_some_and(|flag| {
                flag.is_ascii_digit() || matches!(flag, '-' | '=' | '!') && is_padding(flag, &characters)
            }) {
                flag = characters.next();
            }
            let Some(flag) = flag else { break };
            match piece(flag) {
                Some(flagged) => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.extend(flagged);
                }
                None if flag == '%' => plain.push('%'),
                None => plain.extend(['%', flag]),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Pattern(pieces)
    }

    pub(super) fn write(&self, line: &Line<'_>, out: &mut impl Write) -> fmt::Result {
        let nanoseconds = line.time.subsec_nanosecond();
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => out.write_str(text),
            Piece::Time(directive) => write!(out, "{}", line.time.strftime(directive)),
            Piece::Milliseconds => write!(out, "{:03}", nanoseconds / 1_000_000),
            Piece::Microseconds => write!(out, "{:06}", nanoseconds / 1_000),
            Piece::Nanoseconds => write!(out, "{nanoseconds:09}"),
            Piece::UnixSeconds => write!(out, "{}", line.unix_seconds),
            Piece::Thread => write!(out, "{}", line.thread),
            Piece::Process => write!(out, "{}", line.process),
            Piece::Level => out.write_str(line.level),
            Piece::ShortLevel => write!(out, "{}", line.level.chars().next().unwrap_or('?').to_ascii_uppercase()),
            Piece::Component => out.write_str(line.component),
            Piece::Message => out.write_str(line.message),
            Piece::MessageOnOneLine => write_escaped(line.message, out),
            Piece::MessageJson => {
                let quoted = serde_json::Value::from(line.message).to_string();
                out.write_str(quoted.trim_start_matches('"').strip_suffix('"').unwrap_or(&quoted))
            }
            Piece::SourcePath => out.write_str(line.file),
            Piece::SourceName => out.write_str(line.file.rsplit('/').next().unwrap_or(line.file)),
            Piece::SourceLine => write!(out, "{}", line.line),
            Piece::SourcePlace => write!(out, "{}:{}", line.file, line.line),
            Piece::Function => out.write_str(line.module),
        })
    }
}

/// `-`, `=` and `!` align only where a width follows; `%!` by itself is the function.
fn is_padding(flag: char, rest: &std::str::Chars<'_>) -> bool {
    flag != '!' && rest.clone().next().is_some_and(|next| next.is_ascii_digit())
}

/// None: no flag. Colours are none here, so their flags stand for nothing.
fn piece(flag: char) -> Option<Option<Piece>> {
    Some(Some(match flag {
        'v' => Piece::Message,
        '_' => Piece::MessageOnOneLine,
        'j' => Piece::MessageJson,
        't' => Piece::Thread,
        'P' => Piece::Process,
        'n' => Piece::Component,
        'l' => Piece::Level,
        'L' => Piece::ShortLevel,
        'a' => Piece::Time("%a"),
        'A' => Piece::Time("%A"),
        'b' | 'h' => Piece::Time("%b"),
        'B' => Piece::Time("%B"),
        'c' => Piece::Time("%a %b %e %H:%M:%S %Y"),
        'C' => Piece::Time("%y"),
        'Y' => Piece::Time("%Y"),
        'D' | 'x' => Piece::Time("%m/%d/%y"),
        'm' => Piece::Time("%m"),
        'd' => Piece::Time("%d"),
        'H' => Piece::Time("%H"),
        'I' => Piece::Time("%I"),
        'M' => Piece::Time("%M"),
        'S' => Piece::Time("%S"),
        'p' => Piece::Time("%p"),
        'r' => Piece::Time("%I:%M:%S %p"),
        'R' => Piece::Time("%H:%M"),
        'T' | 'X' => Piece::Time("%H:%M:%S"),
        'e' => Piece::Milliseconds,
        'f' => Piece::Microseconds,
        'F' => Piece::Nanoseconds,
        'E' => Piece::UnixSeconds,
        // The log's times are UTC.
        'z' => Piece::Text("+00:00".to_owned()),
        'g' => Piece::SourcePath,
        's' => Piece::SourceName,
        '#' => Piece::SourceLine,
        '@' => Piece::SourcePlace,
        '!' => Piece::Function,
        '^' | '$' => return Some(None),
        _ => return None,
    }))
}

/// Line ends, tabs, quotes, backslashes and control characters as C writes them.
pub(super) fn write_escaped(text: &str, out: &mut impl Write) -> fmt::Result {
    text.chars().try_for_each(|character| match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\\' => out.write_str("\\\\"),
        '"' => out.write_str("\\\""),
        '\'' => out.write_str("\\'"),
        control if control.is_control() => {
            let mut bytes = [0; 4];
            control.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(out, "\\{byte:03o}"))
        }
        other => out.write_char(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pattern: &str) -> String {
        let line = Line {
            time: jiff::civil::date(2026, 1, 2).at(3, 4, 5, 6_007_008),
            unix_seconds: 42,
            thread: 7,
            process: 8,
            level: "warning",
            component: "main",
            message: "it's\n\"so\"",
            file: "src/a/b.rs",
            line: 9,
            module: "weft_proxy::a",
        };
        let mut out = String::new();
        Pattern::parse(pattern).write(&line, &mut out).expect("a string takes all");
        out
    }

    #[test]
    fn lines_look_as_asked_for() {
        for (pattern, expected) in [
            (
                crate::logging::DEFAULT_PATTERN,
                "[2026-01-02 03:04:05.006][7][warning][main] [src/a/b.rs:9] it's\n\"so\"",
            ),
            ("%Y %q [%l] %", "2026 %q [warning] "),
            ("[%L][%^%n%$] %_", "[W][main] it\\'s\\n\\\"so\\\""),
            ("{\"m\": \"%j\"}", "{\"m\": \"it's\\n\\\"so\\\"\"}"),
            ("%f %F %E %P %s %@ %! 100%%", "006007 006007008 42 8 b.rs src/a/b.rs:9 weft_proxy::a 100%"),
            ("%8l|%-8l|%=8l|%a %d", "warning|warning|warning|Fri 02"),
        ] {
            assert_eq!(written(pattern), expected, "{pattern}");
        }
    }
}
