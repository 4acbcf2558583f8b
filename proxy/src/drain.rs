//! Telling connections to finish. A drain is a flag; the workers are woken when one may have been set, and wake the
//! connections that it concerns. So a connection's task reads a flag and nothing else.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Drain(AtomicBool);

impl Drain {
    pub fn start(&self) {
        self.0.store(true, Relaxed);
    }

    pub fn is_started(&self) -> bool {
        self.0.load(Relaxed)
    }
}
