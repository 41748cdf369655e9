//! Holding the ledger of a namespace against the kernel's own numbers.
//!
//! The kernel and the probes do not count at the same instant: between the two a CPU may be held
//! up, in a virtual machine for milliseconds, when the host runs something else. What is half-way
//! then looks like drift for as long. So what would change the ledger has to be read again after a
//! pause, and what contradicts it again in the next round, before it is believed.

use super::{findings::Found, round::lock};
use crate::{
    kernel::{
        counters::CounterMaps,
        net_counters::{CountersError, NetCounters},
    },
    model::ledger::{Drift, KernelBooks, Ledger, Reading},
};
use aya::maps::MapError;
use std::{sync::Mutex, thread, time::Duration};

/// How long to wait before each further reading, in milliseconds. The first two are for what
/// narrows the ledger's bounds, all of them for what contradicts it.
const PAUSES_MS: [u64; 7] = [0, 1, 2, 4, 8, 16, 32];
const NARROWING: usize = 3;

/// How long a round may pause in all namespaces together: whoever asks waits for it.
#[derive(Debug)]
pub(super) struct Pauses {
    left: Duration,
}

impl Pauses {
    /// As long as one contradiction takes to be believed.
    pub(super) const fn of_a_round() -> Self {
        Self { left: Duration::from_millis(64) }
    }

    /// Whether there was time for it.
    fn take(&mut self, pause: Duration) -> bool {
        let left = self.left.checked_sub(pause);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// What came of holding a ledger against the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// They can be the same; the ledger as it is known better now.
    Agreed(Ledger),
    /// They cannot, however often it was read: the ledger as the kernel has it, and what the old one
    /// was off by.
    Contradicted(Ledger, Drift),
}

/// Reads until it is clear whether the ledger and the kernel agree; `None` from `read` ends it.
/// `pause` says whether there was time for it: what is read again at once confirms nothing.
fn settle(
    ledger: Ledger,
    mut read: impl FnMut() -> Result<Option<Reading>, MapError>,
    mut pause: impl FnMut(Duration) -> bool,
) -> Result<Option<Outcome>, MapError> {
    let mut previous = None;
    let mut outcome = None;
    for (attempt, pause_ms) in PAUSES_MS.into_iter().enumerate() {
        let paused = pause(Duration::from_millis(pause_ms));
        let Some(reading) = read()? else { return Ok(None) };
        let mut taken = ledger;
        let drift = taken.reconcile(&reading);
        if drift == Drift::default() {
            let is_sure = taken == ledger
                || !reading.is_quiet()
                || reading.is_untouched()
                || paused && previous == Some(reading);
            if is_sure {
                return Ok(Some(Outcome::Agreed(taken)));
            }
            if attempt + 1 >= NARROWING {
                let mut taken = ledger;
                if taken.reconcile_loosely(&reading) == Drift::default() {
                    return Ok(Some(Outcome::Agreed(taken)));
                }
            }
        }
        outcome = Some(Outcome::Contradicted(taken, drift));
        previous = Some(reading);
    }
    Ok(outcome)
}

/// Reads the kernel's counters of this thread's namespace and holds the ledger against them.
/// Whether the two contradict each other for the first time: then nothing has been changed, and
/// they have to be looked at again soon; so do counters that cannot be read. `doubted`: they did the
/// last time.
pub(super) fn reconcile(
    found: &mut Found,
    inode: u32,
    counters: &Mutex<CounterMaps>,
    exact: bool,
    doubted: bool,
    pauses: &mut Pauses,
) -> Result<Result<bool, CountersError>, MapError> {
    let half_way = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let is_first = found.counters == NetCounters::default();
    let ledger = found.ledger;
    let net_cookie = found.net_cookie;
    let mut read_counters = None;
    let mut unread = None;
    let read = || {
        let before = lock(counters).time_waits_of(inode, net_cookie)?;
        match NetCounters::of_this_thread() {
            Ok(read) => read_counters = Some(read),
            Err(error) => {
                unread = Some(error);
                return Ok(None);
            }
        }
        let after = lock(counters).time_waits_of(inode, net_cookie)?;
        let numbers = read_counters.as_ref().filter(|_| exact);
        Ok(numbers.and_then(|numbers| {
            let (entered, reused) = (numbers.entered(), numbers.recycled);
            let kernel = KernelBooks { level: numbers.time_wait?, entered, reused };
            Some(Reading { before, kernel, after, half_way })
        }))
    };
    let pause = |pause| {
        let has_time = pauses.take(pause);
        if has_time {
            thread::sleep(pause);
        }
        has_time
    };
    let outcome = settle(ledger, read, pause)?;
    if let Some(read) = read_counters {
        found.counters = read;
    }
    let mut is_doubtful = false;
    match outcome {
        None => found.drift = None,
        Some(Outcome::Agreed(ledger)) => {
            found.ledger = ledger;
            found.drift = Some(Drift::default());
        }
        Some(Outcome::Contradicted(_, drift)) if !doubted => {
            log::debug!("the ledger of the network namespace {inode} may be off by {drift:?}");
            is_doubtful = true;
        }
        Some(Outcome::Contradicted(ledger, drift)) => {
            found.ledger = ledger;
            found.drift = Some(drift);
            let missed = |drift: i64| u64::try_from(-drift).unwrap_or(0);
            found.missed_entered += missed(drift.entered);
            found.missed_reused += missed(drift.reused);
            let Drift { level, entered, reused } = drift;
            log::warn!(
                "the ledger of TIME_WAIT in the network namespace {inode} was off by {level} \
                 sockets, {entered} entries and {reused} reused; it has been corrected to the \
                 kernel's numbers"
            );
        }
    }
    if is_first && found.first == NetCounters::default() {
        found.first = found.counters;
    }
    Ok(unread.map_or(Ok(is_doubtful), Err))
}

#[cfg(test)]
mod tests {
    use tcpmon_common::TimeWaits;

    use super::*;

    fn counts(started: u64) -> TimeWaits {
        TimeWaits { started, ..TimeWaits::default() }
    }

    /// The probes' counts before and after, and the kernel's level between.
    fn reading((before, level, after): (u64, u64, u64)) -> Reading {
        let kernel = KernelBooks { level, ..KernelBooks::default() };
        Reading { before: counts(before), kernel, after: counts(after), half_way: 2 }
    }

    /// Settles `ledger` by these readings, the last of which is read ever again; with how many it
    /// took, and how long it paused.
    fn settled(ledger: Ledger, readings: &[(u64, u64, u64)]) -> (Outcome, usize, u128) {
        let mut taken = 0;
        let mut paused = Duration::ZERO;
        let read = || {
            taken += 1;
            Ok(readings.get(taken - 1).or(readings.last()).copied().map(reading))
        };
        let pause = |pause| {
            paused += pause;
            true
        };
        let outcome = settle(ledger, read, pause);
        (outcome.expect("no map is read").expect("a reading"), taken, paused.as_millis())
    }

    /// A ledger that knows that `older` sockets were there before the probes.
    fn of(older: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.reconcile(&reading((0, older, 0)));
        ledger
    }

    #[test]
    fn a_round_pauses_no_longer_than_one_contradiction_takes() {
        let mut pauses = Pauses::of_a_round();
        assert!(PAUSES_MS.iter().all(|pause| pauses.take(Duration::from_millis(*pause))));
        assert!(pauses.take(Duration::from_millis(1)));
        assert!(!pauses.take(Duration::from_millis(1)));
    }

    #[test]
    fn what_agrees_is_read_once() {
        assert_eq!(settled(of(10), &[(3, 13, 3)]), (Outcome::Agreed(of(10)), 1, 0));
        // Nothing was ever counted there: nothing can be half-way.
        assert_eq!(settled(Ledger::default(), &[(0, 10, 0)]), (Outcome::Agreed(of(10)), 1, 0));
    }

    #[test]
    fn what_narrows_the_bounds_is_read_again() {
        // The second socket is counted by the probes, and not yet by the kernel.
        let readings = [(2, 11, 2), (2, 12, 2), (2, 12, 2)];
        let (outcome, taken, _) = settled(Ledger::default(), &readings);
        assert_eq!((outcome, taken), (Outcome::Agreed(of(10)), 3));
        // One that lasts is found later, since a look under load leaves the bounds wide.
        let readings = [(2, 11, 2), (3, 12, 3), (4, 13, 4)];
        let (outcome, taken, _) = settled(Ledger::default(), &readings);
        let Outcome::Agreed(wide) = outcome else { panic!("{outcome:?}") };
        assert_eq!((taken, wide.is_certain()), (3, false));
        assert_eq!(settled(wide, &[(4, 14, 4)]).0, Outcome::Agreed(of(10)));
    }

    #[test]
    fn what_is_read_again_at_once_confirms_nothing() {
        let read = || Ok(Some(reading((2, 11, 2))));
        let outcome = settle(Ledger::default(), read, |_| false).expect("no map is read");
        let Some(Outcome::Agreed(wide)) = outcome else { panic!("{outcome:?}") };
        assert!(!wide.is_certain());
    }

    #[test]
    fn what_is_half_way_for_a_while_is_no_contradiction() {
        for held_up in 1..PAUSES_MS.len() {
            let mut readings = vec![(5, 14, 5); held_up];
            readings.push((5, 15, 5));
            let (outcome, taken, _) = settled(of(10), &readings);
            assert_eq!((outcome, taken), (Outcome::Agreed(of(10)), held_up + 1));
        }
    }

    #[test]
    fn what_stays_different_is_told_as_the_kernel_has_it() {
        let (outcome, taken, paused) = settled(of(10), &[(5, 14, 5)]);
        let drift = Drift { level: 1, ..Drift::default() };
        assert_eq!(outcome, Outcome::Contradicted(of(9), drift));
        assert_eq!((taken, paused), (PAUSES_MS.len(), 63));
        let (outcome, ..) = settled(of(10), &[(5, 17, 5)]);
        let drift = Drift { level: -2, ..Drift::default() };
        assert_eq!(outcome, Outcome::Contradicted(of(12), drift));
    }
}
