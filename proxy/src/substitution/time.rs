//! Points in time as text, in UTC.

use std::{io::Write, time::SystemTime};

/// The current second's text, written once.
#[derive(Default)]
pub struct Clock {
    second: u64,
    text: String,
}

/// Envoy's default is `2026-11-20T08:05:03.123Z`; other formats are strftime's.
pub(super) fn write(format: Option<&str>, at: SystemTime, clock: &mut Clock, out: &mut Vec<u8>) -> bool {
    let Ok(since_epoch) = at.duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let Ok(timestamp) = jiff::Timestamp::try_from(at) else { return false };
    if let Some(format) = format {
        // A directive that it does not know leaves no value rather than half of one.
        return jiff::fmt::strtime::format(format, timestamp)
            .is_ok_and(|formatted| out.write_all(formatted.as_bytes()).is_ok());
    }
    if clock.text.is_empty() || clock.second != since_epoch.as_secs() {
        clock.second = since_epoch.as_secs();
        clock.text = timestamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    }
    write!(out, "{}.{:03}Z", clock.text, since_epoch.subsec_millis()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_utc_with_milliseconds_or_as_asked() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_176_303_045);
        let mut clock = Clock::default();
        let mut out = Vec::new();
        assert!(write(None, at, &mut clock, &mut out));
        assert_eq!(String::from_utf8_lossy(&out), "2026-11-20T12:05:03.045Z");
        out.clear();
        assert!(write(Some("%Y/%m/%d %s.%3f"), at, &mut clock, &mut out));
        assert_eq!(String::from_utf8_lossy(&out), "2026/11/20 1795176303.045");
    }
}
