//! The thread that writes access logs. Files are opened at their first line, in append mode, and again when asked to
//! (after a rotation).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use crate::config::access_log::AccessLogSink;

/// Hands lines to the writer's thread.
pub struct AccessLogFiles {
    queue: SyncSender<Job>,
    /// Handed over in vain.
    dropped: AtomicU64,
}

enum Job {
    Lines(AccessLogSink, Vec<u8>),
    Reopen,
    End,
}

/// Chunks of lines (of 16 KiB or what 250 ms gathered) that may wait.
const QUEUE_CHUNKS_MAX: usize = 256;

impl AccessLogFiles {
    pub fn start() -> io::Result<(AccessLogFiles, JoinHandle<()>)> {
        let (queue, jobs) = sync_channel(QUEUE_CHUNKS_MAX);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || run(&jobs))?;
        Ok((AccessLogFiles { queue, dropped: AtomicU64::new(0) }, thread))
    }

    pub fn write(&self, sink: &AccessLogSink, lines: Vec<u8>) {
        if self.queue.try_send(Job::Lines(sink.clone(), lines)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    pub fn reopen(&self) {
        let _ = self.queue.try_send(Job::Reopen); // Err: what is queued fills the disk's time; the next ask works
    }

    /// Chunks of lines that were dropped because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Everything handed over before is written; the thread ends.
    pub fn end(&self) {
        let _ = self.queue.send(Job::End); // Err: it has ended already
    }
}

fn run(jobs: &Receiver<Job>) {
    let mut files: HashMap<AccessLogSink, Option<File>> = HashMap::new();
    let reported = AtomicBool::new(false);
    while let Ok(job) = jobs.recv() {
        match job {
            Job::End => return,
            Job::Reopen => files.clear(),
            Job::Lines(sink, lines) => {
                if let Err(error) = write(&mut files, &sink, &lines)
                    && !reported.swap(true, Relaxed)
                {
                    tracing::error!(?sink, %error, "cannot write the access log; said once");
                }
            }
        }
    }
}

fn write(files: &mut HashMap<AccessLogSink, Option<File>>, sink: &AccessLogSink, lines: &[u8]) -> io::Result<()> {
    match sink {
        AccessLogSink::Stdout => io::stdout().write_all(lines).and_then(|()| io::stdout().flush()),
        AccessLogSink::Stderr => io::stderr().write_all(lines),
        AccessLogSink::File(path) => {
            let file = files.entry(sink.clone()).or_default();
            if file.is_none() {
                *file = Some(File::options().append(true).create(true).open(path)?);
            }
            match file {
                Some(file) => file.write_all(lines),
                None => Ok(()),
            }
        }
    }
}
