//! What the tests share.

pub(crate) mod books;
pub(crate) mod daemon;
pub(crate) mod event;
pub(crate) mod expected;
pub(crate) mod exposition;
pub(crate) mod http;
pub(crate) mod lab;
pub(crate) mod measure;
pub(crate) mod program;
pub(crate) mod tail;
pub(crate) mod turn;

use std::thread;
use std::time::{Duration, Instant};

/// By then anything that a test waits for must have happened: far longer than it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until there is something to see. For what tells no event that could be waited for.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
