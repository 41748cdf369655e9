//! A log that cannot be written: a daemon whose standard error is full says nothing, and counts on.

use std::fs::File;
use std::process::Stdio;

use rustix::process::Signal;
use xtask::lab::{Addresses, Recipe};

use crate::support::books::{Auditor, PROMPT};
use crate::support::daemon::Daemon;
use crate::support::lab;
use crate::support::turn::Turn;

#[test]
fn with_a_full_log_it_counts_on_and_ends_well() {
    let turn = Turn::shared();
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let arguments = [&PROMPT[..], &["--log-level", "debug"]].concat();
    let daemon = Daemon::start_mute(&turn, Stdio::from(full), &arguments);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    lab::perform(&mut lab, Recipe::TimeWait, 300);
    auditor.check_now("with a full log", std::slice::from_ref(&netns));
    let ended = daemon.end(Signal::TERM);
    assert_eq!((ended.code, ended.left_socket), (Some(0), false), "{ended:?}");
}
