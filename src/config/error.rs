//! What is wrong with a configuration, and where: the file, the line, the key.
//!
//! A value is never shown: it may be a secret, and whoever reads the error can look at the line.

use std::fmt;
use std::path::PathBuf;

/// A setting that cannot be used, before it is known where it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) key: String,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Why there is no usable configuration. Programs exit 2 on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file; `None` where none was named and there is no `tollgate.toml`.
    pub file: Option<PathBuf>,
    /// The line, counted from one.
    pub line: Option<usize>,
    /// The environment variable that set the value in place of the file.
    pub variable: Option<String>,
    /// The key, as in `route[0].upstream`.
    pub key: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.variable, &self.file) {
            (Some(variable), _) => write!(f, "{variable}: ")?,
            (None, Some(file)) => {
                write!(f, "{}:", file.display())?;
                if let Some(line) = self.line {
                    write!(f, "{line}:")?;
                }
                f.write_str(" ")?;
            }
            (None, None) => {}
        }
        if let Some(key) = &self.key {
            write!(f, "`{key}`: ")?;
        }
        f.write_str(&self.message)
    }
}
