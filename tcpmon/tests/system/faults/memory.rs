//! No memory left: the kernel ends the daemon, and the next one is right.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use xtask::lab::{Addresses, Recipe};

use super::bound::{Bound, refusal};
use super::{await_the_end_of, the_next_one_is_right};
use crate::ending::program_ids;
use crate::support::daemon::Daemon;
use crate::support::program::Finished;
use crate::support::turn::Turn;
use crate::support::{eventually, lab, skipped};

/// Too little for what the subscribers that do not read make it keep.
const ROOM: u64 = 1 << 20;
const SLEEPERS: usize = 60;
const PIECE: u64 = 1_000;

#[test]
fn out_of_memory_it_is_ended_leaves_no_probe_and_the_next_one_is_right() {
    let Some(bound) = Bound::new("memory") else {
        return skipped("out of memory", "cgroup with a memory controller");
    };
    let turn = Turn::shared();
    let mut lab = lab::open(Addresses::Ipv4);
    let queue = ["--subscriber-queue-bytes", "67108864"];
    let daemon = Daemon::start_behind(&turn, &bound.joining(), &queue);
    let programs = program_ids(daemon.pid());
    let sleepers: Vec<_> = (0..SLEEPERS).map(|_| daemon.stream("")).collect();
    bound.limit(bound.usage() + ROOM);
    let process = PathBuf::from(format!("/proc/{}/fd", daemon.pid()));
    // A process that was killed has no descriptors, waited for or not.
    let is_gone = || fs::read_dir(&process).map_or(true, |mut all| all.next().is_none());
    eventually("the kernel to end it", || {
        // Each connection succeeds, whatever becomes of the daemon.
        lab.perform(Recipe::TimeWait, Some(PIECE)).expect("a load");
        is_gone().then_some(())
    });
    let ended = daemon.end(Signal::TERM);
    assert_eq!(ended.code, None, "ended by a signal: {ended:?}");
    await_the_end_of(&programs);
    drop(sleepers);
    the_next_one_is_right(&turn, &mut lab, 300);
}

/// MiB of address space, from what may be enough for the kernel's type information to what is not
/// enough for the program's own pages: how much that is depends on how it was linked.
const SPACES: [u64; 5] = [48, 40, 32, 24, 16];

#[test]
fn with_too_little_memory_to_start_it_says_so_or_is_ended_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let started = |space: u64| refusal(&["prlimit", &format!("--as={}", space << 20)], &socket);
    let refused: Vec<Finished> = SPACES.into_iter().filter_map(started).collect();
    assert!(!refused.is_empty(), "it starts in {SPACES:?} MiB");
    for ended in refused {
        let told = &ended.stderr;
        match ended.code {
            // It is killed, or the linker at run time cannot begin it: these are not its words.
            None | Some(127) => {}
            code => assert!(code == Some(1) && told.contains("memory"), "{ended:?}"),
        }
        assert!(!told.contains("panicked"), "{told}");
    }
    // The next one has no need of anybody's help.
    let turn = Turn::shared();
    let next = Daemon::start_at(&turn, folder.path(), &["--web.listen-address", "127.0.0.1:0"]);
    assert_eq!(next.get("/healthz").status, 200);
}
