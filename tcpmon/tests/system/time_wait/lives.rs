//! A socket's whole life by its cookie, its time in the time-wait table and its end included.

use std::time::Duration;

use jiff::Timestamp;
use xtask::lab::{Addresses, Recipe};

use super::recipes::{REUSE, SPECIAL, audit_each};
use crate::support::books::{PROMPT, Told};
use crate::support::daemon::Daemon;
use crate::support::event::{self, Event};
use crate::support::measure::watch;
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{expected, lab};

/// The minute of TIME_WAIT (`TCP_TIMEWAIT_LEN`, include/net/tcp.h), and what a busy machine adds.
const MINUTE: std::ops::Range<f64> = 59.9..66.0;
/// The second of `tcp_fin_timeout` 1.
const SECOND: std::ops::Range<f64> = 0.95..4.0;

fn at(event: &Event) -> Timestamp {
    event.ts.parse().expect("RFC 3339")
}

/// The time that a life spent in the time-wait table must be as long as it says, and like this.
fn assert_waited(life: &[&Event], reason: &str, seconds: &std::ops::Range<f64>) {
    let [.., entered, left] = life else { panic!("{life:#?}") };
    assert_eq!((entered.new.as_str(), left.edge().as_str()), ("time_wait", "time_wait>close"));
    assert_eq!(left.reason.as_deref(), Some(reason), "{life:#?}");
    let told = left.duration_us.expect("a time");
    let between = at(left).duration_since(at(entered)).as_micros();
    // Both times are rounded down to whole microseconds; and the two events of the way in, the
    // timer's and the state's, come one after the other.
    assert!(between.abs_diff(told.into()) < 1000, "{told} us, but {between} between: {life:#?}");
    let told = Duration::from_micros(told).as_secs_f64();
    assert!(seconds.contains(&told), "{told} s: {life:#?}");
}

/// Lives of a recipe that ended in the time-wait table, compared and returned.
fn with_ends(recipe: Recipe, connections: u64, addresses: Addresses) -> Option<Vec<Vec<Event>>> {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(addresses);
    lab.prepare(recipe).expect("namespaces");
    let inodes: Vec<String> = lab.inodes().iter().map(ToString::to_string).collect();
    let tail = Tail::start(&daemon, &["--netns", &inodes.join(",")]);
    let (done, seen) = watch(&daemon, &tail, &mut lab, recipe, connections)?;
    expected::compare(&done, &seen);
    let lives = expected::lives(&seen).into_iter();
    let ended = lives.filter(|life| life.iter().any(|event| event.reason.is_some()));
    let ended: Vec<Vec<Event>> = ended.map(|life| life.into_iter().cloned().collect()).collect();
    assert!(!ended.is_empty());
    Some(ended)
}

fn all_waited(lives: Option<Vec<Vec<Event>>>, reason: &str, seconds: &std::ops::Range<f64>) {
    for life in lives.into_iter().flatten() {
        assert_waited(&life.iter().collect::<Vec<_>>(), reason, seconds);
    }
}

#[test]
fn that_ends_after_the_second_of_tcp_fin_timeout() {
    all_waited(with_ends(Recipe::FinTimeoutShort, 3, Addresses::Ipv4), "expired", &SECOND);
}

#[test]
fn that_ends_after_the_second_of_tcp_fin_timeout_ipv6() {
    all_waited(with_ends(Recipe::FinTimeoutShort, 3, Addresses::Ipv6), "expired", &SECOND);
}

#[test]
fn that_ends_by_reuse() {
    // They must be older than a second to be taken over.
    let seconds = 1.0..20.0;
    all_waited(with_ends(Recipe::ReuseOn, 4, Addresses::Ipv4), "reused", &seconds);
    all_waited(with_ends(Recipe::ReuseOn, 4, Addresses::Ipv6), "reused", &seconds);
}

#[test]
fn that_ends_by_a_reset() {
    let seconds = 0.0..20.0;
    for recipe in [Recipe::ResetInTimeWait, Recipe::DataAfterClose, Recipe::SynAfterClose] {
        all_waited(with_ends(recipe, 1, Addresses::Ipv4), "killed", &seconds);
    }
}

#[test]
fn that_ends_by_ss_k() {
    all_waited(with_ends(Recipe::Destroyed, 3, Addresses::Ipv4), "killed", &(0.0..20.0));
}

#[test]
fn that_ends_with_its_namespace() {
    all_waited(with_ends(Recipe::NamespaceRemoved, 3, Addresses::Ipv4), "killed", &(0.0..20.0));
}

/// The owner is long gone by then.
#[test]
fn of_a_whole_minute() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let tail = Tail::start(&daemon, &["--netns", &netns.inode.to_string()]);
    let filtered = Tail::start(
        &daemon,
        &["--netns", &netns.inode.to_string(), "--state", "time_wait", "--comm", "lab-client"],
    );
    let mut seen = Vec::new();
    let mut sockets = Vec::new();
    for recipe in [Recipe::ClientFirst, Recipe::HalfClose] {
        let (done, events) = watch(&daemon, &tail, &mut lab, recipe, 1).expect("a recipe");
        expected::compare(&done, &events);
        seen.extend(events);
        sockets.extend(done.sockets);
    }
    // A minute is long enough for something else.
    let meanwhile = [&REUSE[1..2], &SPECIAL[..4]].concat();
    audit_each(&daemon, &meanwhile, Addresses::Ipv4Mapped);
    // What follows disturbs nobody.
    drop(turn);
    let long = Duration::from_secs(80);
    for _ in 0..2 {
        seen.push(event::event(&tail.lines.next_within(long).expect("an end after a minute")));
    }
    let ended: Vec<Vec<&Event>> = expected::lives(&seen)
        .into_iter()
        .filter(|life| life.iter().any(|event| event.new == "time_wait"))
        .collect();
    assert_eq!(ended.len(), 2);
    for life in &ended {
        assert_waited(life, "expired", &MINUTE);
        let last = life[life.len() - 1];
        let socket = sockets.iter().find(|socket| socket.local.port() == last.sport);
        let owner = &socket.expect("a socket of the lab").owner;
        assert_eq!((last.pid, last.comm.as_ref()), (Some(owner.pid), Some(&owner.comm)));
        assert_eq!(last.service, life[0].service);
    }
    // The filter by state shows both ends of it, and nothing else.
    let mut edges: Vec<String> = filtered.events(4).iter().map(Event::edge).collect();
    edges.sort();
    let [out, into] = ["time_wait>close", "fin_wait2>time_wait"];
    assert_eq!(edges, [into, into, out, out]);
    let told = Told::of(&daemon.metrics(), &netns.name);
    assert_eq!((told.entered, told.exited("expired"), told.left()), (2, 2, 2), "{told:?}");
}
