//! Maps that are far too small: names and times may be missing then, and are counted as missing,
//! but no total is ever wrong.

use std::collections::BTreeSet;

use xtask::lab::{Addresses, Expectation, Recipe};

use crate::support::daemon::Daemon;
use crate::support::exposition::Metrics;
use crate::support::measure::{Measured, Witness};
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

const LOAD: u64 = 400;
const FAILURES: u64 = 50;
const TINY: [&str; 8] = [
    "--max-sockets=4",
    "--max-listeners=1",
    "--max-services=1",
    "--max-failures=1",
    "--max-embryos=1",
    "--ring-bytes=4096",
    "--subscriber-queue-bytes=4096",
    "--top=1",
];

fn grown(before: &Metrics, after: &Metrics, name: &str) -> u64 {
    after.growth(before, name).values().sum()
}

#[test]
fn totals_are_right_when_every_map_is_full() {
    let turn = Turn::alone();
    let daemon = Daemon::start(&turn, &TINY);
    let witness = Witness::start(&turn);
    let mut lab = lab::open(Addresses::Ipv4);
    let measured = witness.measure(&daemon, &mut lab, |lab| {
        let load = lab.perform(Recipe::Churn, Some(LOAD)).expect("load");
        // As many listeners and owners at a time as there are workers.
        let shared = lab.perform(Recipe::Reuseport, Some(30)).expect("listeners");
        let failed = lab.perform(Recipe::Exhausted, Some(FAILURES)).expect("failures");
        [load, shared, failed]
    });
    let Measured { done, before, after, endings, witnessed } = measured;
    let transitions: u64 = done.iter().map(Expectation::shown_transitions).sum();
    let seen = grown(&before, &after, "tcpmon_transitions_total");
    // The ends of time-wait sockets that entered before may come in between.
    assert!((transitions..=transitions + endings).contains(&seen), "{seen}, not {transitions}");
    let established: u64 = done
        .iter()
        .flat_map(|done| &done.totals)
        .filter(|(edge, _)| edge.ends_with(",established"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(grown(&before, &after, "tcpmon_connections_total"), established);
    let entered = after.growth(&before, "tcpmon_time_wait_entered_total");
    let seen = witnessed.iter().filter(|event| event.new == "time_wait").count() as u64;
    assert!(seen > LOAD && entered.values().sum::<u64>() == seen, "{entered:?}, not {seen}");
    let others: u64 =
        entered.iter().filter(|(key, _)| key["service"] == "other").map(|(_, it)| it).sum();
    assert!(others > 0, "no owner was too many: {entered:?}");
    assert_eq!(grown(&before, &after, "tcpmon_connect_port_failures_total"), FAILURES);
    for flag in ["max-listeners", "max-services", "max-sockets"] {
        let lost = after.count("tcpmon_map_insert_failures_total", &[("flag", flag)]);
        assert!(lost > 0, "nothing was too much for --{flag}");
    }
}

#[test]
fn more_namespaces_than_are_watched_cost_levels_and_no_transition() {
    let turn = Turn::alone();
    let daemon = Daemon::start(&turn, &["--max-namespaces=1"]);
    let witness = Witness::start(&turn);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].name.clone();
    let Measured { done, before, after, endings, .. } = witness
        .measure(&daemon, &mut lab, |lab| lab.perform(Recipe::Churn, Some(LOAD)).expect("load"));
    let seen = grown(&before, &after, "tcpmon_transitions_total");
    let transitions = done.shown_transitions();
    assert!((transitions..=transitions + endings).contains(&seen), "{seen}, not {transitions}");
    eventually("those that are too many to be told", || {
        let metrics = daemon.metrics();
        (metrics.count("tcpmon_namespaces_unwatched", &[]) > 0).then_some(())
    });
    let metrics = daemon.metrics();
    let watched: BTreeSet<&str> =
        metrics.series("tcpmon_sockets").map(|(labels, _)| &*labels["netns"]).collect();
    assert_eq!(watched, ["host"].into(), "{netns} is one too many");
}
