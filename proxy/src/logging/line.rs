//! From an event to a line of the log.

use std::fmt::{self, Write as _};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
};

use super::{
    component::Component,
    pattern::{Line, Pattern, write_escaped},
};

pub(super) struct Format {
    pub(super) pattern: Pattern,
    pub(super) escaped: bool,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let mut text = message.text;
        text.push_str(&message.fields);
        if self.escaped {
            let mut escaped = String::with_capacity(text.len());
            write_escaped(&text, &mut escaped)?;
            text = escaped;
        }
        let now = jiff::Timestamp::now();
        let metadata = event.metadata();
        let line = Line {
            time: now.to_zoned(jiff::tz::TimeZone::UTC).datetime(),
            unix_seconds: now.as_second(),
            thread: u64::from(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()),
            process: std::process::id(),
            level: level_name(*metadata.level()),
            component: Component::of_target(metadata.target()).name(),
            message: &text,
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            module: metadata.target(),
        };
        self.pattern.write(&line, &mut writer)?;
        writer.write_char('\n')
    }
}

fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::TRACE => "trace",
        tracing::Level::DEBUG => "debug",
        tracing::Level::INFO => "info",
        tracing::Level::WARN => "warning",
        tracing::Level::ERROR => "error",
    }
}

/// The message, and its fields as ` name=value` behind it.
#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes all.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let _ = write!(self.fields, " {}={error}", field.name());
        let mut source = error.source();
        while let Some(error) = source {
            let _ = write!(self.fields, ": {error}");
            source = error.source();
        }
    }
}
