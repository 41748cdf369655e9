//! The ledger of a namespace's time-wait table: how many sockets are in it by the probes' counts,
//! held against the kernel's own number.
//!
//! The probes count from their start on, so what they know is how the table has changed; how many
//! sockets were in it before is learnt from the kernel. Counts and number cannot be read at the
//! same moment. So the counts are read before and after the number, which leaves it within bounds;
//! each reading narrows them, and one during which nothing happened makes them one value.

use tcpmon_common::TimeWaits;

/// The kernel's number, and the probes' counts read before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The counts before.
    pub before: TimeWaits,
    /// The kernel's number: `tw` in /proc/net/sockstat.
    pub kernel: u64,
    /// The counts after.
    pub after: TimeWaits,
}

impl Reading {
    /// Whether nothing happened while it was taken.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.before == self.after
    }

    /// By how much the table had grown since the counting began when the kernel's number was read:
    /// the least and the most.
    fn growth(&self) -> (i64, i64) {
        let between = |started: u64, cancelled: u64| started.wrapping_sub(cancelled).cast_signed();
        (
            between(self.before.started, self.after.cancelled),
            between(self.after.started, self.before.cancelled),
        )
    }
}

/// The ledger of one network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Sockets that were in the table when the counting began, the least and the most; `None`
    /// before the first reading.
    older: Option<(i64, i64)>,
}

impl Ledger {
    /// Holds the ledger against the kernel, and corrects it where they differ. Returns the drift:
    /// what the ledger said less what the kernel says, 0 while they can be the same.
    pub fn reconcile(&mut self, reading: &Reading) -> i64 {
        let kernel = i64::try_from(reading.kernel).unwrap_or(i64::MAX);
        let (least_grown, most_grown) = reading.growth();
        let (least, most) = (kernel - most_grown, kernel - least_grown);
        let Some((known_least, known_most)) = self.older else {
            self.older = Some((least, most));
            return 0;
        };
        let both = (known_least.max(least), known_most.min(most));
        if both.0 <= both.1 {
            self.older = Some(both);
            return 0;
        }
        self.older = Some((least, most));
        if known_least > most { known_least - most } else { known_most - least }
    }

    /// Sockets in the table by the counts `now`; `None` before the first reading. Never below 0,
    /// and the most there can be while that is not certain.
    #[must_use]
    pub fn level(&self, now: &TimeWaits) -> Option<u64> {
        let (_, most) = self.older?;
        Some(u64::try_from(most.saturating_add(now.balance())).unwrap_or(0))
    }

    /// Whether the level is certain.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.older.is_some_and(|(least, most)| least == most)
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
        Reading { before: counts(before.0, before.1), kernel, after: counts(after.0, after.1) }
    }

    #[test]
    fn a_quiet_reading_makes_the_level_certain() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.level(&counts(3, 0)), None);
        let quiet = reading((3, 5), 10, (3, 5));
        assert!(quiet.is_quiet());
        assert_eq!(ledger.reconcile(&quiet), 0);
        assert!(ledger.is_certain());
        assert_eq!(ledger.level(&counts(3, 5)), Some(10));
        assert_eq!(ledger.level(&counts(7, 6)), Some(13));
        assert_eq!(ledger.level(&counts(3, 99)), Some(0));
    }

    #[test]
    fn readings_under_churn_narrow_the_bounds_and_are_no_drift() {
        let mut ledger = Ledger::default();
        // 100 older sockets; meanwhile 4 come and 3 go.
        assert_eq!(ledger.reconcile(&reading((10, 0), 112, (14, 3))), 0);
        assert!(!ledger.is_certain());
        assert_eq!(ledger.reconcile(&reading((20, 10), 110, (21, 10))), 0);
        assert_eq!(ledger.reconcile(&reading((30, 30), 100, (30, 30))), 0);
        assert!(ledger.is_certain());
        assert_eq!(ledger.level(&counts(30, 31)), Some(99));
    }

    #[test]
    fn drift_is_told_with_its_sign_and_corrected() {
        for (kernel, drift) in [(8, 2), (13, -3), (10, 0)] {
            let mut ledger = Ledger::default();
            ledger.reconcile(&reading((0, 0), 10, (0, 0)));
            let next = reading((5, 5), kernel, (5, 5));
            assert_eq!(ledger.reconcile(&next), drift, "{kernel}");
            assert_eq!(ledger.level(&counts(5, 5)), Some(kernel));
            assert_eq!(ledger.reconcile(&next), 0);
        }
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
                prop_assert_eq!(ledger.reconcile(&Reading { before, kernel, after }), 0);
                let there = older + started - cancelled;
                prop_assert!(ledger.level(&after).is_some_and(|level| level >= there));
            }
            let now = counts(started, cancelled);
            let kernel = older + started - cancelled;
            ledger.reconcile(&Reading { before: now, kernel, after: now });
            prop_assert!(ledger.is_certain());
            prop_assert_eq!(ledger.level(&now), Some(kernel));
        }
    }
}
