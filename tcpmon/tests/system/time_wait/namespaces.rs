//! A namespace that ends takes its sockets along, and its series.

use xtask::lab::{Addresses, Checkpoint, Ledger, Namespace, Recipe};

use crate::support::books::{Auditor, PROMPT, Told};
use crate::support::daemon::Daemon;
use crate::support::event::Event;
use crate::support::exposition::Metrics;
use crate::support::tail::Tail;
use crate::support::turn::{SteadyProbes, Turn};
use crate::support::{eventually, lab};

const SOCKETS: u64 = 5;

/// Series that are labelled with the namespace, by name or by inode.
fn labelled(metrics: &Metrics, netns: &Namespace) -> Vec<String> {
    let labels = [netns.name.clone(), netns.inode.to_string()];
    let series = metrics.families.keys().flat_map(|name| {
        let own = metrics
            .series(name)
            .filter(|(own, _)| own.get("netns").is_some_and(|value| labels.contains(value)));
        own.map(move |(labels, value)| format!("{name} {labels:?} {value}"))
    });
    series.collect()
}

fn takes_its_series_along(addresses: Addresses) {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(addresses);
    let doomed = lab.prepare(Recipe::NamespaceRemoved).expect("a namespace").remove(0);
    let tail = Tail::start(&daemon, &["--netns", &doomed.inode.to_string()]);
    let mut auditor = Auditor::new(&daemon);
    let mut watch = |at: &Checkpoint| auditor.check(at);
    let steady = SteadyProbes::hold();
    let done = lab.perform_watched(Recipe::NamespaceRemoved, Some(SOCKETS), &mut watch);
    drop(steady);
    let done = lab::told(Recipe::NamespaceRemoved, done).expect("any kernel can");
    assert_eq!(done.netns, std::slice::from_ref(&doomed));
    let seen = tail.events(done.shown_transitions());
    let killed = seen.iter().filter(|event| event.reason.as_deref() == Some("killed"));
    assert_eq!(killed.map(Event::edge).collect::<Vec<_>>(), vec!["time_wait>close"; 5]);
    eventually("the series of the namespace to go", || {
        labelled(&daemon.metrics(), &doomed).is_empty().then_some(())
    });
}

#[test]
fn that_is_removed_takes_its_series_along() {
    takes_its_series_along(Addresses::Ipv4);
}

#[test]
fn that_is_removed_takes_its_series_along_ipv6() {
    takes_its_series_along(Addresses::Ipv6);
}

#[test]
fn that_ends_takes_its_failures_along() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(Addresses::Ipv4);
    let doomed = lab.namespaces()[0].clone();
    lab::perform(&mut lab, Recipe::Exhausted, 3).expect("failures");
    let is_failure = |line: &String| line.starts_with("tcpmon_connect_port_failures_total");
    eventually("the failures to be told", || {
        labelled(&daemon.metrics(), &doomed).iter().any(is_failure).then_some(())
    });
    drop(lab);
    eventually("the series of the namespace to go", || {
        let mut left = labelled(&daemon.metrics(), &doomed);
        // That an alert has ended is told for a while.
        left.retain(|line| !(line.starts_with("tcpmon_alert_firing") && line.ends_with(" 0")));
        left.is_empty().then_some(())
    });
}

/// The kernel gives the lowest free inode to the next namespace: whatever the daemon keeps under
/// that number is another's.
#[test]
fn that_gets_the_inode_of_one_that_has_gone_begins_anew() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut inodes = Vec::new();
    for connections in 1..=8 {
        let mut lab = lab::open(Addresses::Ipv4);
        let netns = lab.namespaces()[0].clone();
        let told = Told::of(&daemon.metrics(), &netns.name);
        assert_eq!((told.entered, told.left()), (0, 0), "of nothing done: {told:?}");
        lab::perform(&mut lab, Recipe::DataAfterClose, connections).expect("a recipe");
        let mut told = Told::default();
        eventually("the books of this namespace alone", || {
            told = Told::of(&daemon.metrics(), &netns.name);
            let entered = Ledger::of(&netns).expect("a ledger").entered();
            (told.entered == entered && told.exited("killed") == connections).then_some(())
        });
        inodes.push(netns.inode);
    }
    let again = (1..inodes.len()).filter(|at| inodes[..*at].contains(&inodes[*at])).count();
    eprintln!("{again} of {} namespaces had the inode of one before", inodes.len());
}

#[test]
fn that_is_made_later_has_books_of_its_own() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut labs = [lab::open(Addresses::Ipv4), lab::open(Addresses::Ipv4)];
    for (at, lab) in labs.iter_mut().enumerate() {
        let connections = 3 + at as u64;
        let mut auditor = Auditor::new(&daemon);
        let mut watch = |at: &Checkpoint| auditor.check(at);
        let _meanwhile = SteadyProbes::hold();
        lab.perform_watched(Recipe::ServerFirst, Some(connections), &mut watch).expect("a recipe");
    }
    let metrics = daemon.metrics();
    let figures = labs.each_ref().map(|lab| Told::of(&metrics, &lab.namespaces()[0].name).entered);
    assert_eq!(figures, [3, 4]);
}
