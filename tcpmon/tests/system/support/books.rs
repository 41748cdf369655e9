//! The daemon's books on TIME_WAIT, held against the kernel's.
//!
//! Counters must be right at once when nothing happens; levels come from snapshots, which the
//! daemon takes as its bound on CPU time allows, so they are asked for until they are right.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use xtask::lab::{Checkpoint, Ledger, Listing, Namespace};

use super::daemon::Daemon;
use super::eventually;
use super::exposition::Metrics;

/// Arguments of a daemon whose levels are asked for often: its snapshots may take all the time they
/// want. Else a busy machine with many namespaces would keep the tests waiting.
pub(crate) const PROMPT: [&str; 2] = ["--snapshot-cpu-share", "1"];

/// What the daemon tells of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) entered: u64,
    /// By reason.
    pub(crate) exited: BTreeMap<String, u64>,
    pub(crate) overflowed: u64,
}

impl Told {
    pub(crate) fn of(metrics: &Metrics, netns: &str) -> Self {
        let mut exited = BTreeMap::new();
        for (labels, value) in metrics.series("tcpmon_time_wait_exited_total") {
            if labels["netns"] == netns {
                exited.insert(labels["reason"].clone(), value.parse().expect("a count"));
            }
        }
        Self {
            entered: sum(metrics, "tcpmon_time_wait_entered_total", netns, &[]),
            exited,
            overflowed: sum(metrics, "tcpmon_time_wait_overflow_total", netns, &[]),
        }
    }

    pub(crate) fn exited(&self, reason: &str) -> u64 {
        self.exited.get(reason).copied().unwrap_or(0)
    }

    /// All that left, whyever.
    pub(crate) fn left(&self) -> u64 {
        self.exited.values().sum()
    }
}

/// The sum of the series of a name that belong to a namespace and have these labels too.
pub(crate) fn sum(metrics: &Metrics, name: &str, netns: &str, labels: &[(&str, &str)]) -> u64 {
    let has = |own: &BTreeMap<String, String>, (name, value): (&str, &str)| {
        own.get(name).is_some_and(|own| own == value)
    };
    let series = metrics.series(name).filter(|(own, _)| {
        has(own, ("netns", netns)) && labels.iter().all(|label| has(own, *label))
    });
    series.map(|(_, value)| value.parse::<u64>().expect("a count")).sum()
}

/// Levels that take longer than this are worth a line.
const SLOW: Duration = Duration::from_secs(5);
/// How many of the differences on the way there are told.
const DIFFERENCES: usize = 8;

/// Levels of a namespace: all in the time-wait table, true `TIME_WAIT`, `FIN_WAIT2`, and the drift.
type Levels = (u64, u64, u64, Option<String>);

fn levels_told(metrics: &Metrics, netns: &str) -> Levels {
    let state = |state| sum(metrics, "tcpmon_sockets", netns, &[("state", state)]);
    let drift = metrics
        .series("tcpmon_time_wait_drift")
        .find(|(labels, _)| labels["netns"] == netns)
        .map(|(_, value)| value.to_owned());
    let all = sum(metrics, "tcpmon_time_wait_sockets", netns, &[]);
    (all, state("time_wait"), state("fin_wait2"), drift)
}

/// Waits until the daemon's levels are the kernel's, and its ledger has no drift, if it keeps one.
pub(crate) fn await_levels(daemon: &Daemon, netns: &Namespace) {
    let look = || {
        let metrics = daemon.metrics();
        let exact = metrics.count("tcpmon_time_wait_mode", &[("mode", "exact")]) == 1;
        let told = levels_told(&metrics, &netns.name);
        let (ledger, listing) = kernel(netns);
        let drift = exact.then(|| "0".to_owned());
        let wanted = (ledger.level, listing.time_wait, listing.fin_wait2, drift);
        (told, wanted)
    };
    let begun = Instant::now();
    // Each pair that differed from the one before, with when it was first seen.
    let mut seen: Vec<(Duration, _)> = Vec::new();
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the kernel's levels", || {
            let (told, wanted) = look();
            let right = told == wanted;
            if seen.last().is_none_or(|(_, last)| *last != (told.clone(), wanted.clone())) {
                seen.push((begun.elapsed(), (told, wanted)));
            }
            right.then_some(())
        });
    }));
    let first = seen.len().saturating_sub(DIFFERENCES);
    let differences = || {
        format!(
            "{}: table, TIME_WAIT, FIN_WAIT2, drift, told and wanted: {:?}",
            netns.name,
            &seen[first..]
        )
    };
    assert!(reached.is_ok(), "{}", differences());
    // A socket stays in TIME_WAIT for a minute: what a test has put there may have left meanwhile.
    if begun.elapsed() > SLOW {
        eprintln!("levels were right only after {:?}: {}", begun.elapsed(), differences());
    }
}

fn kernel(netns: &Namespace) -> (Ledger, Listing) {
    (Ledger::of(netns).expect("a ledger"), Listing::of(netns).expect("a listing"))
}

/// What both books count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    entered: u64,
    reused: u64,
    overflowed: u64,
}

impl Counters {
    pub(crate) fn told(added: &Told) -> Self {
        let reused = added.exited("reused");
        Self { entered: added.entered, reused, overflowed: added.overflowed }
    }

    pub(crate) fn between(before: &Ledger, after: &Ledger) -> Self {
        Self {
            entered: after.entered() - before.entered(),
            reused: after.recycled - before.recycled,
            overflowed: after.overflowed - before.overflowed,
        }
    }
}

/// Both books of every namespace at the first look at it; each later look compares what has been
/// added since.
pub(crate) struct Auditor<'a> {
    daemon: &'a Daemon,
    first: BTreeMap<String, First>,
}

/// Both books when they were opened: the daemon's when the kernel's was between these two.
struct First {
    low: Ledger,
    high: Ledger,
    told: Told,
}

impl<'a> Auditor<'a> {
    pub(crate) fn new(daemon: &'a Daemon) -> Self {
        Self { daemon, first: BTreeMap::new() }
    }

    /// Both books of a namespace, which must be at rest, begin here: when the daemon has been
    /// there, and knows that it is no other that had its inode before.
    pub(crate) fn begin(&mut self, netns: &Namespace) {
        await_levels(self.daemon, netns);
        self.begin_in_passing(netns);
        let First { low, high, .. } = &self.first[&netns.name];
        assert_eq!(low, high, "{} is not at rest", netns.name);
    }

    /// Both books of a namespace in which sockets come and go begin here.
    pub(crate) fn begin_in_passing(&mut self, netns: &Namespace) {
        // On a busy machine the survey may answer late; until it has looked, a namespace that has
        // the number of one that has gone has the counts of that one too.
        let (low, told, high) = eventually("the namespace to be known for a new one", || {
            let low = Ledger::of(netns).expect("a ledger");
            let told = Told::of(&self.daemon.metrics(), &netns.name);
            let high = Ledger::of(netns).expect("a ledger");
            let most = high.entered();
            (told.entered.max(told.left()) <= most).then_some((low, told, high))
        });
        self.first.insert(netns.name.clone(), First { low, high, told });
    }

    /// Compares the books of all namespaces of a checkpoint: counters at once, then levels.
    pub(crate) fn check(&mut self, at: &Checkpoint) {
        for (netns, ledger) in &at.ledgers {
            if self.first.contains_key(&netns.name) {
                self.compare(netns, ledger, &at.what);
            } else {
                self.begin(netns);
            }
            await_levels(self.daemon, netns);
        }
    }

    /// What has been added to the daemon's counters, when the kernel's are as in `ledger`.
    fn compare(&self, netns: &Namespace, ledger: &Ledger, what: &str) {
        let added = self.added(netns);
        let kernel = &self.first[&netns.name].low;
        let what = format!("{what}, in {}: {added:?}, {kernel:?} to {ledger:?}", netns.name);
        assert_eq!(Counters::told(&added), Counters::between(kernel, ledger), "{what}");
        // The kernel counts only what enters; what has left is the rest. Sockets whose time is over
        // may leave between one look and the next.
        let later = Ledger::of(netns).expect("a ledger");
        let there = (kernel.level + added.entered).checked_sub(added.left());
        let there = there.unwrap_or_else(|| panic!("more left than came: {what}"));
        let between = later.level..=ledger.level;
        assert!(between.contains(&there), "{there} of {between:?} are left: {what}");
    }

    /// What has been added to the daemon's counters.
    pub(crate) fn added(&self, netns: &Namespace) -> Told {
        let now = Told::of(&self.daemon.metrics(), &netns.name);
        let first = &self.first[&netns.name].told;
        let grown = |what: &str, now: u64, first: u64| {
            let grown = now.checked_sub(first);
            grown.unwrap_or_else(|| panic!("{what} in {} fell from {first} to {now}", netns.name))
        };
        let exited = now
            .exited
            .iter()
            .map(|(reason, count)| (reason.clone(), grown(reason, *count, first.exited(reason))));
        Told {
            entered: grown("entered", now.entered, first.entered),
            exited: exited.collect(),
            overflowed: grown("overflowed", now.overflowed, first.overflowed),
        }
    }

    /// Compares at a moment of the caller's choice, when all is at rest.
    pub(crate) fn check_now(&mut self, what: &str, namespaces: &[Namespace]) {
        let ledger = |netns: &Namespace| (netns.clone(), Ledger::of(netns).expect("a ledger"));
        let ledgers = namespaces.iter().map(ledger).collect();
        self.check(&Checkpoint { what: what.to_owned(), ledgers });
    }

    /// Compares while sockets come and go: each counter must be between what the kernel's was
    /// before and after. What overflowed the daemon takes from the kernel, at its last look.
    pub(crate) fn check_in_passing(&self, netns: &Namespace) {
        let First { low, high, .. } = &self.first[&netns.name];
        let before = Ledger::of(netns).expect("a ledger");
        let added = self.added(netns);
        let after = Ledger::of(netns).expect("a ledger");
        let between = |count: u64, of: fn(&Ledger) -> u64, what: &str| {
            let range = of(&before).saturating_sub(of(high))..=of(&after) - of(low);
            assert!(range.contains(&count), "{what}: {count} is not in {range:?}");
        };
        between(added.entered, Ledger::entered, "entered");
        between(added.exited("reused"), |ledger| ledger.recycled, "reused");
        assert!(added.overflowed <= after.overflowed - low.overflowed, "{added:?}, {after:?}");
    }
}
