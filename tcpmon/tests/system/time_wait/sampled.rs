//! `--time-wait sampled`: no probe on timers, edges as the kernel's tracepoint has them, levels
//! from snapshots.

use std::collections::BTreeMap;

use xtask::lab::{Addresses, Ledger, Recipe};

use crate::support::books::{Auditor, Counters, PROMPT, Told, await_levels, sum};
use crate::support::daemon::Daemon;
use crate::support::exposition::Metrics;
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

const SAMPLED: [&str; 4] = ["--time-wait", "sampled", PROMPT[0], PROMPT[1]];

fn probes(metrics: &Metrics) -> Vec<String> {
    let attached = metrics.series("tcpmon_probe_attached").filter(|(_, value)| *value == "1");
    attached.map(|(labels, _)| labels["probe"].clone()).collect()
}

fn on_timers(metrics: &Metrics) -> usize {
    probes(metrics).iter().filter(|probe| probe.contains("timer")).count()
}

fn mode(metrics: &Metrics, mode: &str) -> u64 {
    metrics.count("tcpmon_time_wait_mode", &[("mode", mode)])
}

#[test]
fn each_mode_says_so_and_has_its_probes() {
    let turn = Turn::shared();
    for (argument, timers) in [("exact", 3), ("sampled", 0)] {
        let daemon = Daemon::start(&turn, &["--time-wait", argument]);
        let metrics = daemon.metrics();
        assert_eq!(on_timers(&metrics), timers, "{argument}: {:?}", probes(&metrics));
        assert!(!probes(&metrics).is_empty(), "no probe at all");
        assert_eq!(mode(&metrics, argument), 1);
        let others = ["exact", "sampled"].into_iter().filter(|other| *other != argument);
        assert!(others.into_iter().all(|other| mode(&metrics, other) == 0));
        let report = daemon.get("/api/v1/report").text();
        assert_eq!(report.contains("TIME_WAIT is sampled"), timers == 0, "{argument}: {report}");
    }
    let usual = Daemon::start(&turn, &[]);
    assert_eq!(mode(&usual.metrics(), "exact"), 1);
}

#[test]
fn edges_are_the_tracepoints_and_levels_the_kernels() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &SAMPLED);
    for addresses in [Addresses::Ipv4, Addresses::Ipv6] {
        let mut lab = lab::open(addresses);
        let netns = lab.namespaces()[0].clone();
        let tail = Tail::start(&daemon, &["--netns", &netns.inode.to_string()]);
        let recipes = [Recipe::ServerFirst, Recipe::TimeWait, Recipe::DataAfterClose];
        for (recipe, connections) in recipes.into_iter().zip([3, 500, 2]) {
            let done = lab::perform(&mut lab, recipe, connections).expect("any kernel can");
            let mut totals: BTreeMap<String, u64> = BTreeMap::new();
            for event in tail.events(done.transitions()) {
                assert_eq!((&event.substate, &event.reason), (&None, &None), "{event:?}");
                let key = format!("{},{},{}", event.family, event.old, event.new);
                *totals.entry(key).or_default() += 1;
            }
            assert_eq!(totals, done.totals, "{}", recipe.name());
            await_levels(&daemon, &netns);
        }
    }
}

/// What the kernel counts itself is told all the same, by whom it cannot say.
#[test]
fn counters_are_the_kernels() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &SAMPLED);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    await_levels(&daemon, &netns);
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    let before = Ledger::of(&netns).expect("a ledger");
    for (recipe, connections) in [(Recipe::ReuseOn, 2), (Recipe::TableFull, 105)] {
        lab::perform(&mut lab, recipe, connections).expect("any kernel can");
        let wanted = Counters::between(&before, &Ledger::of(&netns).expect("a ledger"));
        eventually("the kernel's counters", || {
            (Counters::told(&auditor.added(&netns)) == wanted).then_some(())
        });
    }
    let unknown = [("service", "unknown")];
    let entered = Told::of(&daemon.metrics(), &netns.name).entered;
    let metrics = daemon.metrics();
    let name = "tcpmon_time_wait_entered_total";
    assert_eq!(sum(&metrics, name, &netns.name, &unknown), entered);
}
