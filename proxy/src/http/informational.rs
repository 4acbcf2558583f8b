//! Interim (1xx) responses on their way from an upstream's codec to the downstream's, ahead of the final one (RFC 9110
//! section 15.2).
//!
//! The upstream codec pushes what it received. It runs within the future that the downstream codec polls for the final
//! response, so that one looks here after every poll and needs no waker. Nothing is allocated as long as no interim
//! response comes. 101 is none of these: it is a final response whose body is the raw bytes of the connection.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use http::{HeaderMap, StatusCode};

#[derive(Default)]
pub struct Informational {
    queue: RefCell<VecDeque<Interim>>,
    pushed: Cell<u32>,
    /// Nobody wants them: they are dropped.
    is_ignored: bool,
}

pub type Interim = (StatusCode, HeaderMap);

/// More interim responses to one request than this are a flood.
pub const INTERIM_RESPONSES_MAX: u32 = 64;

/// The upstream has sent more interim responses than anybody has use for.
#[derive(Debug, thiserror::Error)]
#[error("too many interim responses")]
pub struct Flood;

impl Informational {
    /// `proxy_100_continue` says whether they pass: as in Envoy, it is all of them or none.
    pub fn new(proxy_100_continue: bool) -> Informational {
        Informational { is_ignored: !proxy_100_continue, ..Informational::default() }
    }

    pub fn push(&self, interim: Interim) -> Result<(), Flood> {
        if self.is_ignored {
            return Ok(());
        }
        if self.pushed.get() == INTERIM_RESPONSES_MAX {
            return Err(Flood);
        }
        self.pushed.set(self.pushed.get() + 1);
        self.queue.borrow_mut().push_back(interim);
        Ok(())
    }

    pub fn pop(&self) -> Option<Interim> {
        if !self.has_begun() {
            return None;
        }
        self.queue.borrow_mut().pop_front()
    }

    /// One was passed on, so the caller must not see the start of another try.
    pub fn has_begun(&self) -> bool {
        self.pushed.get() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_order() {
        let informational = Informational::default();
        assert!(informational.pop().is_none() && !informational.has_begun());
        for status in [StatusCode::EARLY_HINTS, StatusCode::PROCESSING] {
            informational.push((status, HeaderMap::new())).expect("few");
        }
        assert!(informational.has_begun());
        assert!(matches!(informational.pop(), Some((StatusCode::EARLY_HINTS, headers)) if headers.is_empty()));
        assert!(matches!(informational.pop(), Some((StatusCode::PROCESSING, _))));
        assert!(informational.pop().is_none() && informational.has_begun());
    }

    #[test]
    fn unwanted_ones_are_dropped() {
        let informational = Informational::new(false);
        informational.push((StatusCode::EARLY_HINTS, HeaderMap::new())).expect("dropped");
        assert!(informational.pop().is_none() && !informational.has_begun());
    }

    #[test]
    fn a_flood_ends() {
        let informational = Informational::default();
        for _ in 0..INTERIM_RESPONSES_MAX {
            informational.push((StatusCode::PROCESSING, HeaderMap::new())).expect("not too many yet");
        }
        assert!(informational.push((StatusCode::PROCESSING, HeaderMap::new())).is_err());
    }
}
