//! What can go wrong in the lab, each in one line that says what to do.

use std::io;
use std::time::Duration;

/// Why a recipe could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// Making a network namespace needs `CAP_SYS_ADMIN`.
    #[error("the lab makes network namespaces, which needs root: run it again with sudo")]
    NotRoot,
    /// The program that plays the lab's processes was not found.
    #[error(
        "cannot find the xtask program that plays the lab's processes ({looked}): build it with `cargo build -p xtask`, or name it in TCPMON_LAB"
    )]
    NoProgram {
        /// Where it was looked for.
        looked: String,
    },
    /// A system call or a file of the lab's own failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// One of the lab's processes could not do its part.
    #[error("{who} cannot {what}: {why}")]
    Step {
        /// The process, by name and pid.
        who: String,
        /// What it was told to do.
        what: String,
        /// Its answer.
        why: String,
    },
    /// Something that must happen did not, within its time.
    #[error("waited {waited:?} in vain for {what}; {seen}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was there instead.
        seen: String,
    },
    /// The kernel's tracepoint shows something else than the recipe foretold.
    #[error("the kernel's tracepoint disagrees with the recipe: {0}")]
    Disagrees(String),
    /// This kernel, or its configuration, cannot do what the recipe is about.
    #[error("{0}")]
    Unsupported(String),
    /// A recipe and an option that do not go together.
    #[error("{0}")]
    Unsuitable(String),
}

impl LabError {
    /// For `map_err`: wraps what the operating system said about doing `what`.
    pub(super) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }
}

/// What the lab's functions return.
pub type Result<T, E = LabError> = std::result::Result<T, E>;
