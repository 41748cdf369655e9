//! No thread to be had: the daemon says so and ends, whichever of its threads is one too many.

use super::bound::{Bound, refusal};
use crate::support::daemon::Daemon;
use crate::support::skipped;
use crate::support::turn::Turn;

/// More threads than the daemon needs to come up.
const ENOUGH: u64 = 40;

#[test]
fn with_too_few_tasks_it_says_so_ends_and_leaves_nothing() {
    let Some(bound) = Bound::new("pids") else {
        return skipped("too few tasks", "cgroup with a pids controller");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let started = |tasks| {
        bound.limit(tasks);
        refusal(&bound.joining(), &socket)
    };
    let refused: Vec<_> = (1..ENOUGH).map_while(started).collect();
    // At least two that serve, the reader, the hub, the survey.
    assert!((5..30).contains(&refused.len()), "{refused:#?}");
    for ended in refused {
        let told = ended.stderr.trim();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(told.contains("raise the limits of tasks, memory and open files"), "{told}");
        assert!(!told.contains("panicked"), "{told}");
        let cause = "Resource temporarily unavailable";
        assert_eq!(told.matches(cause).count(), 1, "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let turn = Turn::shared();
    let next = Daemon::start_at(&turn, folder.path(), &["--web.listen-address", "127.0.0.1:0"]);
    assert_eq!(next.get("/healthz").status, 200);
}
