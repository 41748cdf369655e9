//! A daemon that is killed in the middle of everything, and the one that comes after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use xtask::lab::{Addresses, Lab, Namespace, Recipe};

use crate::support::books::{Auditor, PROMPT, await_levels};
use crate::support::daemon::Daemon;
use crate::support::lab;
use crate::support::turn::Turn;

/// Connections of one piece of a load.
const PIECE: u64 = 3000;

/// As many of them as the table has room for (`tcp_max_tw_buckets` is 131,072), and some to spare.
const PIECES: usize = 36;

/// Runs pieces of a load until told to stop.
fn churn_until(lab: &mut Lab, stop: &AtomicBool) {
    for _ in 0..PIECES {
        if stop.load(Ordering::Acquire) {
            return;
        }
        lab.perform(Recipe::TimeWait, Some(PIECE)).expect("a load");
    }
}

/// Ends the daemon and starts another while connections come and go.
fn killed_in_mid_churn(turn: &Turn, lab: &mut Lab, netns: &Namespace) -> Daemon {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let daemon = Daemon::start(turn, &PROMPT);
        let mut auditor = Auditor::new(&daemon);
        auditor.begin(netns);
        let load = scope.spawn(|| churn_until(lab, &stop));
        while auditor.added(netns).entered == 0 {
            auditor.check_in_passing(netns);
        }
        let ended = daemon.end(Signal::KILL);
        assert_eq!(ended.code, None, "{ended:?}");
        // It starts while the load runs, so it meets sockets of every age and state.
        let next = Daemon::start(turn, &PROMPT);
        let mut books = Auditor::new(&next);
        books.begin_in_passing(netns);
        for _ in 0..3 {
            books.check_in_passing(netns);
        }
        stop.store(true, Ordering::Release);
        load.join().expect("a load");
        next
    })
}

fn is_right_again(addresses: Addresses) {
    // The next daemon is to come at once, while the load runs.
    let turn = Turn::alone();
    let mut lab = lab::open(addresses);
    let netns = lab.namespaces()[0].clone();
    let daemon = killed_in_mid_churn(&turn, &mut lab, &netns);
    // What is older than the daemon is in the level.
    await_levels(&daemon, &netns);
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    // And what enters and leaves from now on is counted to the unit.
    for recipe in [Recipe::TimeWait, Recipe::ServerFirst, Recipe::DataAfterClose, Recipe::ReuseOn] {
        let connections = if recipe.is_load() { 500 } else { 4 };
        lab::perform(&mut lab, recipe, connections);
        auditor.check_now(&recipe.name(), std::slice::from_ref(&netns));
    }
}

#[test]
fn after_sigkill_in_mid_churn_the_ledger_is_right_again() {
    is_right_again(Addresses::Ipv4);
}

#[test]
fn after_sigkill_in_mid_churn_the_ledger_is_right_again_ipv6() {
    is_right_again(Addresses::Ipv6);
}

/// What ends is told apart also when it began before the daemon did.
#[test]
fn sockets_that_are_older_than_the_daemon_leave_for_their_own_reason() {
    let turn = Turn::shared();
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    // Their second is over when the daemon looks.
    let done = lab.perform(Recipe::TimeWait, Some(200)).expect("a load");
    assert_eq!(done.time_wait_entered, 200);
    let daemon = Daemon::start(&turn, &PROMPT);
    await_levels(&daemon, &netns);
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    let done = lab::perform(&mut lab, Recipe::ReuseOn, 2).expect("connections");
    auditor.check_now("after a reuse", std::slice::from_ref(&netns));
    let told = auditor.added(&netns);
    assert_eq!((told.exited("reused"), told.entered), (2, done.time_wait_entered), "{told:?}");
}
