//! Access logs: lines are formatted on the worker when a request or connection has ended, gathered there, and written by
//! one thread for all. The data path never waits for it: when that thread can't keep up, lines are dropped and counted.

mod condition;
mod writer;

use std::{cell::RefCell, collections::HashMap, sync::Arc};

pub use condition::holds;
pub use writer::AccessLogFiles;

use crate::{
    config::access_log::{AccessLog, AccessLogSink},
    listener::connection::Downstream,
    substitution::{self, Clock, Context, Subject},
    tcp_proxy::TcpSession,
};

/// A worker's lines that are not with the writer yet.
pub struct AccessLogs {
    files: Arc<AccessLogFiles>,
    gathered: RefCell<HashMap<AccessLogSink, Vec<u8>>>,
    clock: RefCell<Clock>,
}

/// A worker hands its lines over when there are so many bytes, or by `flush`.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

impl AccessLogs {
    pub fn new(files: Arc<AccessLogFiles>) -> AccessLogs {
        AccessLogs { files, gathered: RefCell::default(), clock: RefCell::default() }
    }

    pub fn log_tcp(&self, logs: &[AccessLog], session: &TcpSession) {
        self.log(logs, &Context::of_connection(Subject::Tcp(session)));
    }

    /// A connection of which nothing more is known: one that no filter chain took, for instance.
    pub fn log_connection(&self, logs: &[AccessLog], downstream: &Downstream) {
        self.log(logs, &Context::of_connection(Subject::Connection(downstream)));
    }

    /// Writes a line into each whose condition holds.
    pub fn log(&self, logs: &[AccessLog], context: &Context<'_>) {
        for log in logs {
            if log.condition.as_ref().is_some_and(|condition| !holds(condition, context)) {
                continue;
            }
            let mut gathered = self.gathered.borrow_mut();
            if !gathered.contains_key(&log.sink) {
                gathered.insert(log.sink.clone(), Vec::new());
            }
            let Some(lines) = gathered.get_mut(&log.sink) else { continue };
            substitution::write(&log.format, context, &mut self.clock.borrow_mut(), lines);
            if lines.len() >= GATHERED_BYTES_MAX {
                self.files.write(&log.sink, std::mem::take(lines));
            }
        }
    }

    /// For texts that go into messages: the worker's clock, whose texts are shared with its log lines.
    pub fn with_clock<T>(&self, write: impl FnOnce(&mut Clock) -> T) -> T {
        write(&mut self.clock.borrow_mut())
    }

    /// Hands everything over.
    pub fn flush(&self) {
        for (sink, lines) in self.gathered.borrow_mut().iter_mut() {
            if !lines.is_empty() {
                self.files.write(sink, std::mem::take(lines));
            }
        }
    }
}

impl Drop for AccessLogs {
    fn drop(&mut self) {
        self.flush();
    }
}
