//! The ledger of a namespace's time-wait table: how many sockets are in it by the probes' counts,
//! held against the kernel's own number.
//!
//! The probes count from their start on, so what they know is how the table has changed; how many
//! sockets were in it before is learnt from the kernel. Counts and number cannot be read at the
//! same moment. So the counts are read before and after the number, which leaves it within bounds;
//! each reading narrows them, and one during which nothing happened makes them one value.

use tcpmon_common::TimeWaits;

/// What the kernel itself says of a time-wait table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelBooks {
    /// Sockets in it (`tw` in /proc/net/sockstat).
    pub level: u64,
    /// Sockets that ever entered it (`TW` and `TWKilled` in /proc/net/netstat); `None` where it
    /// does not tell.
    pub entered: Option<u64>,
    /// Sockets that a connect() ever took over (`TWRecycled`); `None` where it does not tell.
    pub reused: Option<u64>,
}

/// The kernel's numbers, and the probes' counts read before and after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The counts before.
    pub before: TimeWaits,
    /// The kernel's numbers.
    pub kernel: KernelBooks,
    /// The counts after.
    pub after: TimeWaits,
    /// Sockets that may be half-way: counted by one side and not yet by the other. One a CPU, at
    /// most, while something happens.
    pub half_way: u64,
}

impl Reading {
    /// Whether nothing happened while it was taken.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.before == self.after
    }

    /// Whether no socket has been in the table since the counting began.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.is_quiet()
            && TimeWaits { net_cookie: self.before.net_cookie, ..TimeWaits::default() }
                == self.before
    }
}

/// What the ledger said less what the kernel says; 0 while the two can be the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Sockets in the table.
    pub level: i64,
    /// Sockets that entered it.
    pub entered: i64,
    /// Sockets that a connect() took over.
    pub reused: i64,
}

/// What to add to a number of the probes' to get the kernel's: the least and the most; `None`
/// before the first reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offset(Option<(i64, i64)>);

impl Offset {
    /// Takes note that `kernel` was read while the probes' number was between these two. Returns
    /// the drift, and begins anew from this reading if there is any.
    fn narrow(&mut self, kernel: u64, least: i64, most: i64) -> i64 {
        let kernel = i64::try_from(kernel).unwrap_or(i64::MAX);
        let (least, most) = (kernel - most, kernel - least);
        let Some((known_least, known_most)) = self.0 else {
            self.0 = Some((least, most));
            return 0;
        };
        let both = (known_least.max(least), known_most.min(most));
        if both.0 <= both.1 {
            self.0 = Some(both);
            return 0;
        }
        self.0 = Some((least, most));
        if known_least > most { known_least - most } else { known_most - least }
    }
}

/// The ledger of one network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Sockets that were in the table when the counting began.
    older: Offset,
    /// Sockets that had entered it by then.
    entered: Offset,
    /// Sockets that had been taken over by then.
    reused: Offset,
}

impl Ledger {
    /// Holds the ledger against the kernel, and corrects it where they differ.
    pub fn reconcile(&mut self, reading: &Reading) -> Drift {
        self.narrow(reading, if reading.is_quiet() { 0 } else { reading.half_way })
    }

    /// As [`Self::reconcile`], where sockets may be half-way although nothing has happened while
    /// it was read.
    pub fn reconcile_loosely(&mut self, reading: &Reading) -> Drift {
        self.narrow(reading, reading.half_way)
    }

    fn narrow(&mut self, reading: &Reading, half_way: u64) -> Drift {
        let Reading { before, kernel, after, .. } = reading;
        let half_way = half_way.cast_signed();
        let number = u64::cast_signed;
        let grown = |started: u64, cancelled: u64| number(started.wrapping_sub(cancelled));
        let counter = |offset: &mut Offset, kernel: Option<u64>, of: fn(&TimeWaits) -> u64| {
            kernel.map_or(0, |kernel| {
                offset.narrow(kernel, number(of(before)) - half_way, number(of(after)) + half_way)
            })
        };
        Drift {
            entered: counter(&mut self.entered, kernel.entered, TimeWaits::entered),
            reused: counter(&mut self.reused, kernel.reused, |counts| counts.reused),
            level: self.older.narrow(
                kernel.level,
                grown(before.started, after.cancelled) - half_way,
                grown(after.started, before.cancelled) + half_way,
            ),
        }
    }

    /// Sockets in the table by the counts `now`; `None` before the first reading. Never below 0,
    /// and the most there can be while that is not certain.
    #[must_use]
    pub fn level(&self, now: &TimeWaits) -> Option<u64> {
        let (_, most) = self.older.0?;
        Some(u64::try_from(most.saturating_add(now.balance())).unwrap_or(0))
    }

    /// Whether the level is certain.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.older.0.is_some_and(|(least, most)| least == most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(started: u64, cancelled: u64) -> TimeWaits {
        TimeWaits { started, cancelled, ..TimeWaits::default() }
    }

    fn reading(before: (u64, u64), kernel: u64, after: (u64, u64)) -> Reading {
        Reading {
            before: counts(before.0, before.1),
            kernel: KernelBooks { level: kernel, ..KernelBooks::default() },
            after: counts(after.0, after.1),
            half_way: 0,
        }
    }

    #[test]
    fn a_quiet_reading_makes_the_level_certain() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.level(&counts(3, 0)), None);
        let quiet = reading((3, 5), 10, (3, 5));
        assert!(quiet.is_quiet());
        assert_eq!(ledger.reconcile(&quiet), Drift::default());
        assert!(ledger.is_certain());
        assert_eq!(ledger.level(&counts(3, 5)), Some(10));
        assert_eq!(ledger.level(&counts(7, 6)), Some(13));
        assert_eq!(ledger.level(&counts(3, 99)), Some(0));
    }

    #[test]
    fn readings_under_churn_narrow_the_bounds_and_are_no_drift() {
        let mut ledger = Ledger::default();
        // 100 older sockets; meanwhile 4 come and 3 go.
        assert_eq!(ledger.reconcile(&reading((10, 0), 112, (14, 3))), Drift::default());
        assert!(!ledger.is_certain());
        assert_eq!(ledger.reconcile(&reading((20, 10), 110, (21, 10))), Drift::default());
        assert_eq!(ledger.reconcile(&reading((30, 30), 100, (30, 30))), Drift::default());
        assert!(ledger.is_certain());
        assert_eq!(ledger.level(&counts(30, 31)), Some(99));
    }

    #[test]
    fn drift_is_told_with_its_sign_and_corrected() {
        for (kernel, drift) in [(8, 2), (13, -3), (10, 0)] {
            let mut ledger = Ledger::default();
            ledger.reconcile(&reading((0, 0), 10, (0, 0)));
            let next = reading((5, 5), kernel, (5, 5));
            assert_eq!(ledger.reconcile(&next).level, drift, "{kernel}");
            assert_eq!(ledger.level(&counts(5, 5)), Some(kernel));
            assert_eq!(ledger.reconcile(&next), Drift::default());
        }
    }

    #[test]
    fn what_is_half_way_is_no_drift_while_something_happens() {
        let mut ledger = Ledger::default();
        ledger.reconcile(&reading((0, 0), 10, (0, 0)));
        // Four have started by the kernel's number, three by the probes'.
        let busy = reading((3, 0), 14, (3, 1));
        let mut patient = ledger;
        assert_eq!(ledger.reconcile(&busy).level, -1);
        assert_eq!(patient.reconcile(&Reading { half_way: 2, ..busy }).level, 0);
        let quiet = Reading { half_way: 2, ..reading((3, 1), 14, (3, 1)) };
        assert_eq!(patient.reconcile(&quiet).level, -2);
    }

    #[test]
    fn entries_and_reuse_are_held_against_the_kernel_too() {
        let with = |entered, reused, own: TimeWaits| Reading {
            before: own,
            kernel: KernelBooks { level: 0, entered: Some(entered), reused: Some(reused) },
            after: own,
            half_way: 1,
        };
        let own = TimeWaits { started: 5, cancelled: 5, reused: 2, ..TimeWaits::default() };
        let mut ledger = Ledger::default();
        // The kernel has counted since long before.
        assert_eq!(ledger.reconcile(&with(1_000, 100, own)), Drift::default());
        let more = TimeWaits { started: 8, cancelled: 8, rearmed: 1, reused: 3, ..own };
        let mut other = ledger;
        assert_eq!(ledger.reconcile(&with(1_002, 101, more)), Drift::default());
        let drift = other.reconcile(&with(1_004, 101, more));
        assert_eq!(drift, Drift { level: 0, entered: -2, reused: 0 });
        assert_eq!(other.reconcile(&with(1_004, 101, more)), Drift::default(), "corrected");
    }

    proptest! {
        /// Whatever happens between the three looks of a reading, the ledger never says that it
        /// has drifted, and the true number of older sockets stays within its bounds.
        #[test]
        fn churn_is_never_drift(
            older in 0_u64..50,
            steps in prop::collection::vec((0_u64..5, 0_u64..5, 0_u64..5, 0_u64..5), 1..20),
        ) {
            let mut ledger = Ledger::default();
            let (mut started, mut cancelled) = (0, 0);
            for (come, go, come_after, go_after) in steps {
                let before = counts(started, cancelled);
                started += come;
                let there = older + started - cancelled;
                cancelled += go.min(there);
                let kernel = older + started - cancelled;
                started += come_after;
                cancelled += go_after.min(older + started - cancelled);
                let after = counts(started, cancelled);
                let kernel = KernelBooks { level: kernel, ..KernelBooks::default() };
                let reading = Reading { before, kernel, after, half_way: 0 };
                prop_assert_eq!(ledger.reconcile(&reading), Drift::default());
                let there = older + started - cancelled;
                prop_assert!(ledger.level(&after).is_some_and(|level| level >= there));
            }
            let now = counts(started, cancelled);
            let level = older + started - cancelled;
            let kernel = KernelBooks { level, ..KernelBooks::default() };
            ledger.reconcile(&Reading { before: now, kernel, after: now, half_way: 0 });
            prop_assert!(ledger.is_certain());
            prop_assert_eq!(ledger.level(&now), Some(level));
        }
    }
}
