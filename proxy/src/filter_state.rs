//! What filters leave about a request for those behind them and for logs: named objects, which are text here. A name says once
//! whether it may be written again.

use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterState(BTreeMap<Arc<str>, FilterObject>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterObject {
    pub text: Arc<str>,
    pub is_read_only: bool,
}

/// The object that is there may not be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object is read-only")]
pub struct ReadOnly;

impl FilterState {
    pub fn set(&mut self, key: Arc<str>, object: FilterObject) -> Result<(), ReadOnly> {
        if self.0.get(&key).is_some_and(|known| known.is_read_only) {
            return Err(ReadOnly);
        }
        self.0.insert(key, object);
        Ok(())
    }

    pub fn text(&self, key: &str) -> Option<&Arc<str>> {
        self.0.get(key).map(|object| &object.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_only_stays() {
        let object = |text: &str, is_read_only| FilterObject { text: text.into(), is_read_only };
        let mut state = FilterState::default();
        assert_eq!(state.set("a".into(), object("1", false)), Ok(()));
        assert_eq!(state.set("a".into(), object("2", true)), Ok(()));
        assert_eq!(state.set("a".into(), object("3", false)), Err(ReadOnly));
        assert_eq!((state.text("a").map(|text| &**text), state.text("b")), (Some("2"), None));
    }
}
