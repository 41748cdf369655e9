//! Why there are no rules for the web.

use std::{io, path::PathBuf};

/// Why a web configuration will not do. Each is one line, and never has a password's hash in it.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A file cannot be read.
    #[error("cannot read {}: {cause}; --web.config.file leads to it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The file says what will not do.
    #[error("{}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A certificate or key is of no use.
    #[error("{}: {message}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The file would let in whoever was kept out.
    #[error(
        "{} would switch TLS, client certificates or passwords off; restart tcpmon if that is meant",
        path.display()
    )]
    Opens {
        /// The file.
        path: PathBuf,
    },
}

impl WebError {
    /// Whether it is only that this user may not read a file: another may.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Read { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied)
    }
}
