//! [`FieldError`]: what is wrong with a configuration, and where.

use std::fmt;

/// A refusal that names the field: `static_resources.listeners[0].name: value length must be at least 1 characters`.
///
/// The path is written with proto field names and list indices, and map keys in `["..."]`; inside an Any it goes on with the
/// fields of the message that the Any holds. It is empty if the message as a whole is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    path: String,
    reason: String,
}

impl FieldError {
    /// An error at `path`, which may be empty.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> FieldError {
        FieldError { path: path.into(), reason: reason.into() }
    }

    /// Where it is, relative to the message at hand.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong, without the path.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The same error seen from a message that holds this one at `prefix`, such as `a.b` or `a[3]`.
    #[must_use]
    pub fn within(self, prefix: &str) -> FieldError {
        let mut path = prefix.to_owned();
        let needs_dot = !path.is_empty() && !self.path.is_empty() && !self.path.starts_with('[');
        if needs_dot {
            path.push('.');
        }
        path.push_str(&self.path);
        FieldError { path, reason: self.reason }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for FieldError {}

/// One step of a path, added while an error travels up: only a failure pays for its path.
pub(crate) trait At<T> {
    /// The error came from the field `name`.
    fn at(self, name: &str) -> Result<T, FieldError>;
    /// The error came from item `index` of the list `name`.
    fn at_index(self, name: &str, index: usize) -> Result<T, FieldError>;
    /// The error came from the entry `key` of the map `name`.
    fn at_key(self, name: &str, key: &str) -> Result<T, FieldError>;
}

impl<T> At<T> for Result<T, FieldError> {
    fn at(self, name: &str) -> Result<T, FieldError> {
        self.map_err(|error| error.within(name))
    }

    fn at_index(self, name: &str, index: usize) -> Result<T, FieldError> {
        self.map_err(|error| error.within(&format!("{name}[{index}]")))
    }

    fn at_key(self, name: &str, key: &str) -> Result<T, FieldError> {
        self.map_err(|error| error.within(&format!("{name}[{key:?}]")))
    }
}

/// An error of the value at hand, for its callers to place.
pub(crate) fn wrong<T>(reason: impl Into<String>) -> Result<T, FieldError> {
    Err(FieldError::new("", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_the_path_and_the_reason() {
        assert_eq!(FieldError::new("a.b", "no").to_string(), "a.b: no");
        assert_eq!(FieldError::new("", "no").to_string(), "no");
    }

    #[test]
    fn within_joins_fields_with_dots_and_indices_without() {
        let error = FieldError::new("name", "no").within("b[2]").within("a");
        assert_eq!(error.path(), "a.b[2].name");
        assert_eq!(FieldError::new("[1]", "no").within("a").path(), "a[1]");
        assert_eq!(FieldError::new("", "no").within("a").path(), "a");
        assert_eq!(FieldError::new("a", "no").within("").path(), "a");
    }

    #[test]
    fn a_map_key_is_quoted() {
        let error = wrong::<()>("no").at_key("labels", "a\"b").unwrap_err();
        assert_eq!(error.to_string(), "labels[\"a\\\"b\"]: no");
    }
}
