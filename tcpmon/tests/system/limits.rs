//! Maps that are far too small: names and times may be missing then, and are counted as missing,
//! but no total is ever wrong.

use xtask::lab::{Addresses, Expectation, Recipe};

use crate::support::daemon::Daemon;
use crate::support::exposition::Metrics;
use crate::support::lab;
use crate::support::measure::{Measured, Witness};
use crate::support::turn::Turn;

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
    let Measured { done, before, after, endings, .. } = witness.measure(&daemon, &mut lab, |lab| {
        let load = lab.perform(Recipe::Churn, Some(LOAD)).expect("load");
        // As many listeners and owners at a time as there are workers.
        let shared = lab.perform(Recipe::Reuseport, Some(30)).expect("listeners");
        let failed = lab.perform(Recipe::Exhausted, Some(FAILURES)).expect("failures");
        [load, shared, failed]
    });
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
    assert_eq!(grown(&before, &after, "tcpmon_connect_port_failures_total"), FAILURES);
    for flag in ["max-listeners", "max-services", "max-sockets"] {
        let lost = after.count("tcpmon_map_insert_failures_total", &[("flag", flag)]);
        assert!(lost > 0, "nothing was too much for --{flag}");
    }
}
