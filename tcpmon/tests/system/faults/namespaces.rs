//! Network namespaces that vanish while they are being looked at.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::process::Signal;
use xtask::lab::{Addresses, Recipe};

use crate::support::books::{Auditor, PROMPT};
use crate::support::daemon::Daemon;
use crate::support::lab;
use crate::support::turn::Turn;

const ROUNDS: usize = 12;

#[test]
fn that_vanish_in_mid_snapshot_disturb_nobody_elses_figures() {
    let turn = Turn::shared();
    // Snapshots all the time: most removals fall into one.
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut steady = lab::open(Addresses::Ipv4);
    let netns = steady.namespaces()[0].clone();
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    let (is_over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let _metrics = daemon.metrics();
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..ROUNDS {
            let addresses = if round % 2 == 0 { Addresses::Ipv4 } else { Addresses::Ipv6 };
            let mut lab = lab::open(addresses);
            lab.perform(Recipe::TimeWait, Some(500)).expect("a load");
            // With its 500 sockets, while somebody looks.
            drop(lab);
        }
        lab::perform(&mut steady, Recipe::TimeWait, 300);
        is_over.store(true, Ordering::Release);
    });
    assert!(looks.load(Ordering::Relaxed) > 0, "nobody looked");
    auditor.check_now("after others have vanished", std::slice::from_ref(&netns));
    let ended = daemon.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let complaints: Vec<_> = ended.log.iter().filter(|line| line.contains("panicked")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}
