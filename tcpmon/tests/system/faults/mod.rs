//! What goes wrong around the daemon. Each test brings one fault about, on the real program, and
//! holds the figures against the kernel's afterwards, or says by how much they are off. Which there
//! are: docs/faults.md.

mod bound;
mod clock;
mod flood;
mod kernel;
mod memory;
mod namespaces;
mod output;
mod peers;
mod proc;
mod tasks;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use xtask::lab::{Addresses, Lab, Recipe};

use crate::ending::{is_loaded, program_ids};
use crate::support::books::{Auditor, PROMPT, await_levels};
use crate::support::daemon::Daemon;
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

/// How often the daemon is killed, unless `TCPMON_KILL_ROUNDS` says so.
const ROUNDS: u32 = 12;
/// It is killed within so many milliseconds after it has begun to observe.
const SPREAD: u32 = 400;
const PIECE: u64 = 1_000;

fn rounds() -> u32 {
    let rounds = std::env::var("TCPMON_KILL_ROUNDS").ok();
    rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("TCPMON_KILL_ROUNDS is a number"))
}

/// Waits until the kernel has dropped these programs of a daemon that was killed.
fn await_the_end_of(programs: &[u32]) {
    eventually("the kernel to have dropped its probes", || {
        programs.iter().all(|id| !is_loaded(*id)).then_some(())
    });
}

/// Another daemon has the levels of what its predecessor left, and counts to the unit.
fn the_next_one_is_right(turn: &Turn, lab: &mut Lab, connections: u64) {
    let netns = lab.namespaces()[0].clone();
    let next = Daemon::start(turn, &PROMPT);
    await_levels(&next, &netns);
    let mut auditor = Auditor::new(&next);
    auditor.begin(&netns);
    lab::perform(lab, Recipe::TimeWait, connections);
    auditor.check_now("of the next daemon", std::slice::from_ref(&netns));
}

#[test]
fn killed_again_and_again_under_load_it_leaves_nothing_and_the_next_one_is_right() {
    let turn = Turn::shared();
    let mut lab = lab::open(Addresses::Ipv4);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                // Each connection succeeds, whatever becomes of the daemon.
                lab.perform(Recipe::TimeWait, Some(PIECE)).expect("a load");
            }
        });
        for round in 0..rounds() {
            let daemon = Daemon::start(&turn, &PROMPT);
            let programs = program_ids(daemon.pid());
            // Any moment will do, as long as it is another each time: this is the fault, not a
            // wait for something.
            let moment = round.wrapping_mul(2_654_435_761) % SPREAD;
            thread::sleep(Duration::from_millis(moment.into()));
            let ended = daemon.end(Signal::KILL);
            assert_eq!(ended.code, None, "{ended:?}");
            await_the_end_of(&programs);
        }
        stop.store(true, Ordering::Release);
        load.join().expect("a load");
    });
    the_next_one_is_right(&turn, &mut lab, 500);
}

#[test]
fn without_descriptors_it_counts_on_and_answers_again_when_there_are_some() {
    const ROOM: u64 = 6;
    let turn = Turn::shared();
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("procfs").count();
    let few = open as u64 + ROOM;
    let usual = getrlimit(Resource::Nofile);
    let bound = |current| {
        // Not the hard limit: not even root may raise that again everywhere.
        let limit = Rlimit { current, maximum: usual.maximum };
        prlimit(pid, Resource::Nofile, limit).expect("a limit");
    };
    bound(Some(few));
    let greedy: Vec<TcpStream> = (0..3 * ROOM)
        .map(|_| TcpStream::connect(daemon.address()).expect("the kernel's queue has room"))
        .collect();
    eventually("no descriptor to be left", || {
        let used = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("procfs").count();
        (used as u64 >= few - 1).then_some(())
    });
    lab::perform(&mut lab, Recipe::TimeWait, 300);
    drop(greedy);
    // It is asked as soon as it answers again, and has missed nothing.
    bound(usual.current);
    await_levels(&daemon, &netns);
    auditor.check_now("after the lack of descriptors", std::slice::from_ref(&netns));
}
