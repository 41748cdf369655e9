//! What the tests share.

pub(crate) mod books;
pub(crate) mod daemon;
pub(crate) mod event;
pub(crate) mod expected;
pub(crate) mod exposition;
pub(crate) mod http;
pub(crate) mod lab;
pub(crate) mod load;
pub(crate) mod measure;
pub(crate) mod program;
pub(crate) mod tail;
pub(crate) mod terminal;
pub(crate) mod turn;

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

/// By then anything that a test waits for must have happened: far longer than it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// `bound`, or as many times that as `TCPMON_TEST_SLOWNESS` says: an emulated machine
/// (`cargo xtask vm`) is some ten times slower than any that a bound was chosen for.
pub(crate) fn as_quick_as(bound: Duration) -> Duration {
    bound * slowness()
}

/// How many times slower this machine is than any that a bound was chosen for.
pub(crate) fn slowness() -> u32 {
    let slowness = std::env::var("TCPMON_TEST_SLOWNESS").unwrap_or_else(|_| "1".to_owned());
    slowness.parse().expect("TCPMON_TEST_SLOWNESS is a whole number")
}

/// Says that a test cannot be made here, and what it would need. Not by `eprintln!`, which the test
/// harness shows of tests that fail only: nothing is left out in silence.
pub(crate) fn skipped(test: &str, lacking: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: there is no {lacking} here").expect("stderr");
}

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
