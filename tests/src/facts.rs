//! What was observed of one case, as named strings that can be compared, with what differs from run to run masked.
//!
//! A comparison names every fact that differs; differences that are wanted say so with their reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::http1::{Failure, Response};
use serde_json::Value;

/// Where ours differs on purpose.
#[derive(Debug)]
pub struct Difference {
    pub cases: &'static [&'static str],
    pub extent: Extent,
    /// What ours says of the facts that differ.
    pub ours: &'static [(&'static str, &'static str)],
    pub reason: &'static str,
}

/// How much of a case is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The named facts; all others are the same.
    Facts,
    /// The answer as a whole: facts that are not named are not compared.
    Answer,
}

/// Facts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, String>);

impl Facts {
    pub fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.0.insert(name.into(), value.to_string());
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Those whose names are wanted.
    #[must_use]
    pub fn only(mut self, is_wanted: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|name, _| is_wanted(name));
        self
    }

    /// The same facts, named as those `of` something.
    #[must_use]
    pub fn within(self, of: &str) -> Self {
        Self(self.0.into_iter().map(|(name, value)| (format!("{of}: {name}"), value)).collect())
    }

    /// An HTTP/1 answer, or the way in which there was none.
    pub fn add_outcome(&mut self, outcome: &Result<Response, Failure>) {
        match outcome {
            Ok(response) => self.add_response(response),
            Err(Failure::ClosedBeforeResponse) => self.add("outcome", "closed without an answer"),
            Err(Failure::ClosedMidResponse(_)) => self.add("outcome", "closed in the middle of the answer"),
            Err(failure) => self.add("outcome", failure),
        }
    }

    fn add_response(&mut self, response: &Response) {
        self.add("status", response.status);
        self.add("reason", &response.reason);
        self.add("minor version", response.minor_version);
        self.add("framing", format!("{:?}", response.framing));
        self.add("interim", format!("{:?}", response.interim));
        self.add_headers("header", response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.add_headers("trailer", response.trailers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.add_body(&response.body);
    }

    /// `kind NAME` for each; several values of one name in their order.
    pub fn add_headers<'a>(&mut self, kind: &str, headers: impl Iterator<Item = (&'a str, &'a str)>) {
        for (name, value) in headers {
            let value = mask(&name.to_ascii_lowercase(), value);
            let all = self.0.entry(format!("{kind} {name}")).or_default();
            if !all.is_empty() {
                all.push_str(" | ");
            }
            all.push_str(&value);
        }
    }

    /// The body; where it is the application's account of the request, what that says.
    pub fn add_body(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(account)) if account.contains_key("headers") => self.add_account(&account),
            _ if body.len() > BODY_SHOWN_MAX => self.add("body", format!("{} bytes", body.len())),
            _ => self.add("body", text),
        }
    }

    fn add_account(&mut self, account: &serde_json::Map<String, Value>) {
        for (name, value) in account {
            match name.as_str() {
                "headers" | "trailers" => {
                    let pairs = value.as_array().into_iter().flatten();
                    let pairs =
                        pairs.map(|pair| (pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default()));
                    self.add_headers(&format!("application saw {name}"), pairs);
                }
                _ => self.add(format!("application saw {name}"), value),
            }
        }
    }

    /// What `ours` says differently, except as `wanted`. To say what the other says is never wrong.
    pub fn differences(&self, ours: &Self, wanted: &[&Difference]) -> Vec<String> {
        let mut wanted_facts: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for difference in wanted {
            wanted_facts.extend(difference.ours.iter().map(|(name, ours)| (*name, (*ours, difference.reason))));
        }
        let whole = wanted.iter().any(|difference| difference.extent == Extent::Answer);
        let names: BTreeSet<&str> =
            self.0.keys().chain(ours.0.keys()).map(String::as_str).chain(wanted_facts.keys().copied()).collect();
        let mut differences = Vec::new();
        for name in names {
            let [theirs, ours] = [self, ours].map(|facts| facts.0.get(name).map_or(ABSENT, String::as_str));
            match wanted_facts.get(name) {
                _ if theirs == ours => {}
                None if whole => {}
                None => differences.push(format!("{name}: Envoy {theirs:?}, ours {ours:?}")),
                Some((expected, reason)) if ours != *expected => {
                    differences.push(format!("{name}: ours {ours:?}, wanted {expected:?} because {reason}"));
                }
                Some(_) => {}
            }
        }
        differences
    }

    /// Drops facts that only follow from others.
    pub fn drop_derived(&mut self) {
        // How long the account of a request is depends on what it says.
        if self.0.contains_key("application saw method") {
            for name in ["header content-length", "log bytes sent"] {
                self.0.remove(name);
            }
        }
    }
}

/// Values that are never the same twice keep only their shape.
fn mask(name: &str, value: &str) -> String {
    match name {
        "date" if value.ends_with(" GMT") && value.len() == 29 => "a date".to_owned(),
        "x-request-id" if is_uuid(value) => "a UUID".to_owned(),
        "x-envoy-upstream-service-time" if value.bytes().all(|byte| byte.is_ascii_digit()) => "milliseconds".to_owned(),
        "x-test-id" | "x-test-key" => "the case".to_owned(),
        _ => value.to_owned(),
    }
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

pub const ABSENT: &str = "absent";
const BODY_SHOWN_MAX: usize = 500;
