//! What is wrong with a manifest and where, for people to find and mend.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Relative to the folder.
    pub file: PathBuf,
    pub severity: Severity,
    /// Counted from 1, with the line that it begins on; unset where the file as a whole is meant.
    pub document: Option<(usize, usize)>,
    /// The field, `spec.ports[0].port`; empty where no single one is to blame.
    pub path: String,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file keeps its last good state.
    Refused,
    /// The rest of the file counts.
    Ignored,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((number, line)) = self.document {
            write!(f, ": document {number} (line {line})")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.reason)
    }
}
