//! The `date` header's value, written once a second (RFC 9110 section 6.6.1).

use std::{
    cell::RefCell,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

#[derive(Default)]
pub struct DateCache(RefCell<Option<(Instant, HeaderValue)>>);

impl DateCache {
    pub fn value(&self, now: Instant) -> HeaderValue {
        let mut cached = self.0.borrow_mut();
        match &*cached {
            Some((good_until, value)) if now < *good_until => value.clone(),
            _ => {
                let clock = SystemTime::now();
                let value = HeaderValue::from_str(&httpdate::fmt_http_date(clock)).expect("a date is ASCII");
                let into_second = clock.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
                let good_until = now + Duration::from_secs(1) - Duration::from_nanos(into_second.into());
                *cached = Some((good_until, value.clone()));
                value
            }
        }
    }
}
