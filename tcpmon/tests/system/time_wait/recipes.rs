//! At every checkpoint of every recipe the daemon's ledger is the kernel's.

use std::collections::BTreeMap;

use xtask::lab::{Addresses, Checkpoint, Expectation, Lab, Recipe};

use crate::support::books::{Auditor, PROMPT};
use crate::support::daemon::Daemon;
use crate::support::expected::reason;
use crate::support::turn::{SteadyProbes, Turn};
use crate::support::{eventually, lab};

/// How often each recipe is carried out.
fn connections(recipe: Recipe) -> u64 {
    match recipe {
        Recipe::Churn | Recipe::TimeWait => 1500,
        Recipe::ThreeServices => 200,
        recipe => recipe.default_connections(),
    }
}

/// Carries out a recipe in a lab, and compares at each of its checkpoints.
fn audit(daemon: &Daemon, lab: &mut Lab, recipe: Recipe) -> Option<Expectation> {
    let mut auditor = Auditor::new(daemon);
    let mut checked = 0;
    let mut watch = |at: &Checkpoint| {
        eprintln!("{}: {}", recipe.name(), at.what);
        auditor.check(at);
        checked += 1;
    };
    let _meanwhile = SteadyProbes::hold();
    let done = lab.perform_watched(recipe, Some(connections(recipe)), &mut watch);
    let done = lab::told(recipe, done)?;
    assert!(checked >= 2, "{checked} checkpoints");
    if recipe != Recipe::NamespaceRemoved {
        compare_reasons(&auditor, &done);
    }
    Some(done)
}

/// The kernel does not count why sockets left; the recipe knows.
fn compare_reasons(auditor: &Auditor<'_>, done: &Expectation) {
    let mut exited: BTreeMap<String, u64> = BTreeMap::new();
    let mut overflowed = 0;
    for netns in &done.netns {
        let added = auditor.added(netns);
        overflowed += added.overflowed;
        for (reason, count) in added.exited {
            *exited.entry(reason).or_default() += count;
        }
    }
    exited.retain(|_, count| *count > 0);
    let wanted = done.time_wait_exited.iter();
    let wanted = wanted.map(|(ending, count)| (reason(*ending).to_owned(), *count)).collect();
    assert_eq!(exited, wanted, "{}", done.recipe.name());
    assert_eq!(overflowed, done.time_wait_overflowed, "{}", done.recipe.name());
}

fn audit_all(recipes: &[Recipe], addresses: Addresses) {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    audit_each(&daemon, recipes, addresses);
}

/// Each in a lab of its own, so that nothing of an earlier one expires meanwhile. All labs stay to
/// the end, so that no namespace gets the inode of one that has gone; that has a test of its own.
pub(super) fn audit_each(daemon: &Daemon, recipes: &[Recipe], addresses: Addresses) {
    let mut labs = Vec::new();
    for recipe in recipes {
        let mut lab = lab::open(addresses);
        audit(daemon, &mut lab, *recipe);
        labs.push(lab);
    }
}

/// All but those that have tests of their own below.
fn ordinary() -> Vec<Recipe> {
    let all = Recipe::all().iter().copied();
    all.filter(|recipe| !SPECIAL.contains(recipe) && !REUSE.contains(recipe)).collect()
}

pub(super) const SPECIAL: [Recipe; 7] = [
    Recipe::TableFull,
    Recipe::FinTimeoutShort,
    Recipe::FinTimeoutLong,
    Recipe::ResetInTimeWait,
    Recipe::Destroyed,
    Recipe::NewIncarnation,
    Recipe::SynAfterClose,
];

pub(super) const REUSE: [Recipe; 5] = [
    Recipe::ReuseOff,
    Recipe::ReuseOn,
    Recipe::ReuseOnWire,
    Recipe::ReuseLoopback,
    Recipe::ReuseLoopbackOnWire,
];

#[test]
fn the_ledger_is_the_kernels_ipv4() {
    audit_all(&ordinary(), Addresses::Ipv4);
}

#[test]
fn the_ledger_is_the_kernels_ipv6() {
    audit_all(&ordinary(), Addresses::Ipv6);
}

#[test]
fn reuse_is_told_apart_ipv6() {
    audit_all(&REUSE, Addresses::Ipv6);
}

#[test]
fn ways_out_are_told_apart_ipv6() {
    audit_all(&SPECIAL, Addresses::Ipv6);
}

/// One recipe with IPv4, and what must have come of it in figures.
fn one(recipe: Recipe, figures: impl Fn(&Expectation) -> [u64; 3], wanted: [u64; 3]) {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    if let Some(done) = audit(&daemon, &mut lab::open(Addresses::Ipv4), recipe) {
        assert_eq!(figures(&done), wanted);
    }
}

/// How many entered, left and found no room.
fn figures(done: &Expectation) -> [u64; 3] {
    [done.time_wait_entered, done.time_wait_exited.values().sum(), done.time_wait_overflowed]
}

#[test]
fn tcp_tw_reuse_0_reuses_nothing() {
    one(Recipe::ReuseOff, figures, [4, 0, 0]);
}

#[test]
fn tcp_tw_reuse_1_reuses_on_loopback() {
    one(Recipe::ReuseOn, figures, [8, 4, 0]);
}

#[test]
fn tcp_tw_reuse_1_reuses_over_a_wire() {
    one(Recipe::ReuseOnWire, figures, [8, 4, 0]);
}

#[test]
fn tcp_tw_reuse_2_reuses_on_loopback() {
    one(Recipe::ReuseLoopback, figures, [8, 4, 0]);
}

#[test]
fn tcp_tw_reuse_2_reuses_nothing_over_a_wire() {
    one(Recipe::ReuseLoopbackOnWire, figures, [4, 0, 0]);
}

#[test]
fn tcp_fin_timeout_1_expires_and_counts_as_entered() {
    one(Recipe::FinTimeoutShort, figures, [4, 4, 0]);
}

#[test]
fn tcp_fin_timeout_60_is_promoted_and_counts_once() {
    one(Recipe::FinTimeoutLong, figures, [4, 0, 0]);
}

#[test]
fn tcp_max_tw_buckets_100_lets_a_hundred_enter() {
    one(Recipe::TableFull, figures, [100, 0, 20]);
}

#[test]
fn a_reset_kills() {
    one(Recipe::ResetInTimeWait, figures, [1, 1, 0]);
}

#[test]
fn ss_k_kills() {
    one(Recipe::Destroyed, figures, [4, 4, 0]);
}

#[test]
fn a_new_incarnation_kills() {
    one(Recipe::NewIncarnation, figures, [2, 1, 0]);
}

#[test]
fn a_syn_that_fits_nothing_kills() {
    one(Recipe::SynAfterClose, figures, [1, 1, 0]);
}

/// One lab, again and again: the ledger goes on.
#[test]
fn recipes_add_up_in_one_namespace() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(Addresses::Ipv4);
    let mut auditor = Auditor::new(&daemon);
    let netns = lab.namespaces()[0].clone();
    auditor.begin(&netns);
    let mut perform = |lab: &mut Lab, recipe, connections| {
        lab::perform(lab, recipe, connections);
        auditor.check_now("recipes have been repeated", std::slice::from_ref(&netns));
    };
    for _ in 0..2 {
        perform(&mut lab, Recipe::ServerFirst, 5);
        perform(&mut lab, Recipe::ReuseOn, 2);
        perform(&mut lab, Recipe::Churn, 600);
        perform(&mut lab, Recipe::DataAfterClose, 5);
    }
    let told = auditor.added(&netns);
    assert!(told.exited("reused") == 4 && told.overflowed > 0, "{told:?}");
    eventually("no drift", || {
        let metrics = daemon.metrics();
        let mut drift = metrics.series("tcpmon_time_wait_drift");
        drift.all(|(_, value)| value == "0").then_some(())
    });
}
