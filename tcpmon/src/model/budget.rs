//! How much of a CPU something may take that could be done all the time: a bucket of CPU time that
//! fills at the share allowed, and may be overdrawn by one piece of work.

use std::time::{Duration, Instant};

/// CPU time that may be saved up, at most: what a few looks at a small host take, so that a burst
/// of scrapes is answered with fresh figures.
const SAVED: Duration = Duration::from_millis(200);

/// CPU time for one kind of work. The present time is passed in.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Part of one CPU, 0 to 1.
    share: f64,
    /// Seconds of CPU time; below 0 where the last work took more than there was.
    credit: f64,
    counted: Instant,
}

impl Budget {
    /// A full bucket, for `share` of one CPU; 0 allows nothing.
    #[must_use]
    pub fn new(share: f64, now: Instant) -> Self {
        Self { share, credit: SAVED.as_secs_f64(), counted: now }
    }

    /// Whether work may begin: what the work before took has been made up for.
    #[must_use]
    pub fn allows(&self, now: Instant) -> bool {
        // Less than a nanosecond is a matter of rounding.
        self.share > 0.0 && self.credit_at(now) > -1e-9
    }

    /// How long until [`Self::allows`]; zero where it does.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let missing = (-self.credit_at(now)).max(0.0);
        Duration::try_from_secs_f64(missing / self.share).unwrap_or(Duration::MAX)
    }

    /// Takes CPU time that was used.
    pub fn spend(&mut self, used: Duration, now: Instant) {
        self.credit = self.credit_at(now) - used.as_secs_f64();
        self.counted = now;
    }

    fn credit_at(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        (self.credit + passed * self.share).min(SAVED.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_is_saved_up_for_and_then_the_share_holds() {
        let mut now = Instant::now();
        let mut budget = Budget::new(0.01, now);
        let mut done = 0;
        while budget.allows(now) {
            budget.spend(5 * MS, now);
            done += 1;
        }
        assert_eq!(done, 41);
        // From now on one look of 5 ms in 500 ms.
        let begun = now;
        for _ in 0..20 {
            now += budget.wait(now) + MS;
            assert!(budget.allows(now));
            budget.spend(5 * MS, now);
        }
        let took = now - begun;
        assert!((9_900..10_300).contains(&took.as_millis()), "{took:?}");
    }

    #[test]
    fn dear_work_is_done_once_and_waited_for() {
        let now = Instant::now();
        let mut budget = Budget::new(0.01, now);
        budget.spend(Duration::from_secs(1), now);
        assert!(!budget.allows(now));
        let wait = budget.wait(now);
        assert!((79..=81).contains(&wait.as_secs()), "{wait:?}");
        assert!(budget.allows(now + wait + MS));
    }

    #[test]
    fn nothing_is_nothing() {
        let now = Instant::now();
        assert!(!Budget::new(0.0, now).allows(now + Duration::from_hours(1)));
    }

    #[test]
    fn idleness_saves_no_more_than_a_burst() {
        let now = Instant::now();
        let mut budget = Budget::new(1.0, now);
        let later = now + Duration::from_hours(1);
        budget.spend(SAVED + MS, later);
        assert!(!budget.allows(later));
        assert_eq!(Budget::new(0.5, now).wait(now), Duration::ZERO);
    }
}
