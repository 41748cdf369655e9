//! The counters equal what happened, to the unit: with a stream and without, and after the ring
//! overflowed. The kernel's own counters say so too, where it has them.

use std::collections::BTreeMap;

use tcpmon_common::TcpState;
use xtask::lab::{Addresses, Expectation, Lab, Recipe, Role};

use crate::support::daemon::Daemon;
use crate::support::event::Line;
use crate::support::exposition::Metrics;
use crate::support::measure::{Measured, Witness, kernel_counter};
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{expected, lab};

/// Connections of the loads.
const LOAD: u64 = 400;

/// Every recipe that may be repeated in one lab, and is over when it returns; those that wait for
/// seconds only if `patient`.
fn repeatable(patient: bool) -> impl Iterator<Item = Recipe> {
    let all = Recipe::all().iter().copied();
    all.filter(|recipe| !recipe.is_once_only() && *recipe != Recipe::NamespaceRemoved)
        .filter(move |recipe| patient || !SLOW.contains(recipe))
}

/// They wait until sockets are old enough, or are many.
const SLOW: [Recipe; 7] = [
    Recipe::ReuseOff,
    Recipe::ReuseOn,
    Recipe::ReuseOnWire,
    Recipe::ReuseLoopback,
    Recipe::ReuseLoopbackOnWire,
    Recipe::FinTimeoutShort,
    Recipe::TableFull,
];

fn perform(lab: &mut Lab, recipe: Recipe) -> Vec<Expectation> {
    let connections = match recipe {
        Recipe::Churn | Recipe::TimeWait => LOAD,
        Recipe::ThreeServices => LOAD / 6,
        // The hundred that find room, and some.
        Recipe::TableFull => 105,
        _ => recipe.default_connections(),
    };
    lab::perform(lab, recipe, connections).into_iter().collect()
}

/// How often each of `family,old,new` happened.
fn totals(done: &[Expectation]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (edge, count) in done.iter().flat_map(Expectation::shown_totals) {
        *sum.entry(edge).or_default() += count;
    }
    sum
}

pub(crate) fn compare(measured: &Measured<Vec<Expectation>>) {
    let Measured { done, before, after, endings, witnessed: _ } = measured;
    let wanted = totals(done);
    let seen = transitions(before, after);
    assert_eq!(lasting(&seen), lasting(&wanted), "{}", diagnosis(measured));
    let ended = |totals: &BTreeMap<String, u64>| {
        totals.iter().filter(|(edge, _)| edge.ends_with(ENDING)).map(|(_, count)| count).sum()
    };
    let (least, most): (u64, u64) = (ended(&wanted), *endings);
    assert!((least..=most.max(least)).contains(&ended(&seen)), "{seen:?}: {least} to {most}");
    let all = after.count("tcpmon_events_total", &[]) - before.count("tcpmon_events_total", &[]);
    assert_eq!(all, seen.values().sum::<u64>());
    assert_eq!(connections(before, after), expected_connections(done));
    let mut durations: BTreeMap<String, u64> = after
        .growth(before, "tcpmon_state_duration_seconds_count")
        .into_iter()
        .map(|(labels, count)| (labels["state"].clone(), count))
        .collect();
    let mut wanted = expected_durations(&seen);
    // How long a time-wait socket was there that is older than the daemon nobody knows.
    let [observed, ended] = [&mut durations, &mut wanted].map(|it| it.remove("time_wait"));
    assert!(observed <= ended, "{observed:?} of {ended:?}");
    assert_eq!(durations, wanted);
}

/// What helps to find out why the counters are not what they should be.
fn diagnosis(measured: &Measured<Vec<Expectation>>) -> String {
    let growth = |name| measured.after.growth(&measured.before, name);
    format!(
        "runs of probes that the kernel skipped: {:?}\nruns: {:?}\nthe witness: {:?}\nwhat it did \
         not see end: {:#?}",
        growth("tcpmon_probe_recursion_misses_total"),
        growth("tcpmon_probe_runs_total"),
        measured.witnessed_totals(),
        measured.unfinished(),
    )
}

/// Whether two sets of probes agree that something else happened than the recipe prescribes: then
/// there is nothing to hold the counters against.
fn went_otherwise(measured: &Measured<Vec<Expectation>>) -> bool {
    let wanted = totals(&measured.done);
    let seen = transitions(&measured.before, &measured.after);
    let witnessed = measured.witnessed_totals();
    lasting(&seen) != lasting(&wanted) && lasting(&seen) == lasting(&witnessed)
}

/// The edge of a time-wait socket's end: it comes when it must, a minute after what is measured,
/// and so may that of others.
const ENDING: &str = ",time_wait,close";

/// All but those.
fn lasting(totals: &BTreeMap<String, u64>) -> BTreeMap<&str, u64> {
    let lasting = totals.iter().filter(|(edge, _)| !edge.ends_with(ENDING));
    lasting.map(|(edge, count)| (edge.as_str(), *count)).collect()
}

fn transitions(before: &Metrics, after: &Metrics) -> BTreeMap<String, u64> {
    let growth = after.growth(before, "tcpmon_transitions_total");
    let key = |labels: &BTreeMap<String, String>| {
        format!("{},{},{}", labels["family"], labels["old"], labels["new"])
    };
    growth.into_iter().map(|(labels, count)| (key(&labels), count)).collect()
}

/// Connections by role.
fn connections(before: &Metrics, after: &Metrics) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (labels, count) in after.growth(before, "tcpmon_connections_total") {
        *sum.entry(labels["role"].clone()).or_default() += count;
    }
    sum
}

fn expected_connections(done: &[Expectation]) -> BTreeMap<String, u64> {
    let mut sum: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |role: &str, count| *sum.entry(role.to_owned()).or_default() += count;
    for done in done {
        if done.recipe.is_load() {
            // Each has an end in the time-wait table, or found it full.
            let connections = done.time_wait_entered + done.time_wait_overflowed;
            add("active", connections);
            add("passive", connections);
        }
        for socket in &done.sockets {
            let role = if socket.role == Role::Active { "active" } else { "passive" };
            if socket.transitions.iter().any(|edge| edge.new == TcpState::Established) {
                add(role, 1);
            }
        }
    }
    sum
}

/// A duration is observed as a state is left; when CLOSE began nobody saw, nor when the child of
/// a listener was in LISTEN.
fn expected_durations(totals: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (edge, count) in totals {
        let [_, old, new] = edge.split(',').collect::<Vec<_>>()[..] else { panic!("{edge}") };
        if old != "close" && (old, new) != ("listen", "syn_recv") {
            *sum.entry(old.to_owned()).or_default() += count;
        }
    }
    sum
}

#[test]
fn counters_equal_what_happened_without_and_with_a_stream() {
    let turn = Turn::alone();
    let witness = Witness::start(&turn);
    let daemon = Daemon::start(&turn, &[]);
    for addresses in [Addresses::Ipv4, Addresses::Ipv6] {
        let mut lab = lab::open(addresses);
        for watched in [false, true] {
            let tail = watched.then(|| Tail::start(&daemon, &["--state", "closing"]));
            for recipe in repeatable(watched == (addresses == Addresses::Ipv6)) {
                assert_eq!(daemon.streams(), u64::from(watched));
                let mut measure = || witness.measure(&daemon, &mut lab, |lab| perform(lab, recipe));
                let mut measured = measure();
                if went_otherwise(&measured) {
                    eprintln!("{} once more: {}", recipe.name(), diagnosis(&measured));
                    measured = measure();
                }
                compare(&measured);
            }
            drop(tail);
            daemon.await_streams(0);
        }
    }
}

#[test]
fn counters_equal_the_kernels_own() {
    let turn = Turn::alone();
    let witness = Witness::start(&turn);
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].name.clone();
    let kernel = |name: &str| kernel_counter(&netns, name);
    let counters = ["ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets"];
    let measured = witness.measure(&daemon, &mut lab, |lab| {
        let before = counters.map(kernel);
        let some = [Recipe::Refused, Recipe::ResetByServer, Recipe::Exhausted, Recipe::Churn];
        let done: Vec<_> = some.iter().flat_map(|recipe| perform(lab, *recipe)).collect();
        let after = counters.map(kernel);
        (done, [0, 1, 2, 3].map(|at| after[at] - before[at]))
    });
    let (done, [active, passive, failed, reset]) = measured.done;
    let seen = transitions(&measured.before, &measured.after);
    let seen = |edge: &str| seen.get(&format!("ipv4,{edge}")).copied().unwrap_or(0);
    // The kernel counts a connect() that finds no port nowhere: no SYN was sent.
    let no_port: usize = done.iter().map(Expectation::port_failures).sum();
    let no_port = u64::try_from(no_port).expect("a count");
    assert!(no_port > 0 && active > 0 && passive > 0 && failed > 0 && reset > 0);
    assert_eq!(seen("close,syn_sent"), active + no_port);
    assert_eq!(seen("listen,syn_recv"), passive);
    assert_eq!(seen("syn_sent,close") + seen("syn_recv,close"), failed + no_port);
    assert_eq!(seen("established,close") + seen("close_wait,close"), reset);
}

#[test]
fn a_full_ring_costs_detail_and_no_total() {
    let turn = Turn::alone();
    let witness = Witness::start(&turn);
    let daemon = Daemon::start(&turn, &["--ring-bytes", "4096"]);
    let mut lab = lab::open(Addresses::Ipv4);
    let measured = witness.measure(&daemon, &mut lab, |lab| {
        // The ends of others' time-wait sockets are not to be counted.
        let tail = Tail::start(&daemon, &["--netns", &lab.inodes()[0].to_string()]);
        let done = lab.perform(Recipe::Churn, Some(3000)).expect("a load");
        let (mut shown, mut lost) = (0, 0);
        while shown + lost < done.shown_transitions() {
            match tail.next() {
                Line::Event(_) => shown += 1,
                Line::Gap { lost: more, place } => {
                    assert_eq!(place, "ring");
                    lost += more;
                }
            }
        }
        // Nothing more: the next lines are the next connection's.
        let next = lab.perform(Recipe::Refused, Some(1)).expect("a mark");
        expected::compare(&next, &tail.events(next.shown_transitions()));
        (vec![done, next], shown, lost)
    });
    let (done, shown, lost) = measured.done;
    let Measured { before, after, endings, witnessed, .. } = measured;
    assert!(lost > 0 && shown > 0, "{shown} shown, {lost} lost");
    let place = [("where", "ring")];
    let metric = |metrics: &Metrics| metrics.count("tcpmon_events_lost_total", &place);
    // Sockets of others, from before, may leave the time-wait table meanwhile.
    let counted = metric(&after) - metric(&before);
    assert!((lost..=lost + endings).contains(&counted), "{counted}: {lost}, and {endings} endings");
    assert_eq!(shown + lost, done[0].shown_transitions());
    compare(&Measured { done, before, after, endings, witnessed });
}
