//! Access logs: lines are formatted on the worker when a request or connection has ended, gathered there, and written by
//! one thread for all. The data path never waits for it: when that thread can't keep up, lines are dropped and counted.

mod captured;
mod format;
mod writer;

use std::{cell::RefCell, collections::HashMap, sync::Arc};

pub use captured::CapturedHeaders;
pub use writer::AccessLogFiles;

use crate::{
    access_log::format::{ClockCache, Entry},
    config::access_log::{AccessLog, AccessLogSink},
    http::exchange::Exchange,
    listener::connection::Downstream,
    tcp_proxy::TcpSession,
};

/// A worker's lines that are not with the writer yet.
pub struct AccessLogs {
    files: Arc<AccessLogFiles>,
    gathered: RefCell<HashMap<AccessLogSink, Vec<u8>>>,
    clock: RefCell<ClockCache>,
}

/// A worker hands its lines over when there are so many bytes, or by `flush`.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

impl AccessLogs {
    pub fn new(files: Arc<AccessLogFiles>) -> AccessLogs {
        AccessLogs { files, gathered: RefCell::default(), clock: RefCell::default() }
    }

    pub fn log_http(&self, logs: &[AccessLog], exchange: &Exchange) {
        self.log(logs, &Entry::Http(exchange));
    }

    pub fn log_tcp(&self, logs: &[AccessLog], session: &TcpSession) {
        self.log(logs, &Entry::Tcp(session));
    }

    /// A connection of which nothing more is known: one that no filter chain took, for instance.
    pub fn log_connection(&self, logs: &[AccessLog], downstream: &Downstream) {
        self.log(logs, &Entry::Connection(downstream));
    }

    /// Hands everything over.
    pub fn flush(&self) {
        for (sink, lines) in self.gathered.borrow_mut().iter_mut() {
            if !lines.is_empty() {
                self.files.write(sink, std::mem::take(lines));
            }
        }
    }

    fn log(&self, logs: &[AccessLog], entry: &Entry<'_>) {
        let mut headers = entry.captured_headers();
        for log in logs {
            let mut gathered = self.gathered.borrow_mut();
            if !gathered.contains_key(&log.sink) {
                gathered.insert(log.sink.clone(), Vec::new());
            }
            let Some(lines) = gathered.get_mut(&log.sink) else { continue };
            format::write_line(&log.format, entry, &mut headers, &mut self.clock.borrow_mut(), lines);
            if lines.len() >= GATHERED_BYTES_MAX {
                self.files.write(&log.sink, std::mem::take(lines));
            }
        }
    }
}

impl Drop for AccessLogs {
    fn drop(&mut self) {
        self.flush();
    }
}
