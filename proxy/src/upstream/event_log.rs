//! A log of what happens to hosts (outlier detection, active health checks): a JSON object a line, written by the access
//! logs' thread.

use std::{path::Path, sync::Arc, time::SystemTime};

use serde_json::Value;

use crate::{access_log::AccessLogFiles, config::access_log::AccessLogSink};

#[derive(Clone)]
pub struct EventLog {
    files: Arc<AccessLogFiles>,
    sink: AccessLogSink,
}

impl EventLog {
    pub fn new(files: Arc<AccessLogFiles>, path: &Path) -> EventLog {
        EventLog { files, sink: AccessLogSink::File(path.into()) }
    }

    pub fn write(&self, line: &Value) {
        self.files.write(&self.sink, format!("{line}\n").into_bytes());
    }
}

/// Of all clusters.
pub struct EventLogs {
    pub files: Arc<AccessLogFiles>,
    /// `cluster_manager.outlier_detection`.
    pub outliers: Option<EventLog>,
}

/// RFC 3339 with milliseconds, as the JSON of protobuf has it: no fraction where there is none.
pub fn timestamp(at: SystemTime) -> String {
    let ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let format = if ms.is_multiple_of(1000) { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.3fZ" };
    jiff::Timestamp::from_millisecond(ms as i64).unwrap_or_default().strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_have_three_digits_or_none() {
        let at = |ms| timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(1_000), "1970-01-01T00:00:01Z");
        assert_eq!(at(1_050), "1970-01-01T00:00:01.050Z");
    }
}
