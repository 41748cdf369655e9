//! How fast counters grow: over the last seconds, from what they were then.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

/// Readings lie so far apart at least: those between are passed over.
const APART: Duration = Duration::from_secs(1);

/// A rate is one over so long a time, as soon as there are readings of it.
const WINDOW: Duration = Duration::from_secs(10);

/// Counters by key, as they were at the last moments. Time is passed in.
#[derive(Debug)]
pub struct Rates<K> {
    /// The earliest first.
    readings: VecDeque<(Duration, HashMap<K, u64>)>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self { readings: VecDeque::new() }
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// Takes note of what the counters are `at` that time.
    pub fn note(&mut self, at: Duration, totals: HashMap<K, u64>) {
        if self.readings.back().is_some_and(|(last, _)| at.saturating_sub(*last) < APART) {
            return;
        }
        self.readings.push_back((at, totals));
        // One that is as old as the window is kept, the rate's beginning.
        while self.readings.get(1).is_some_and(|(next, _)| at.saturating_sub(*next) >= WINDOW) {
            self.readings.pop_front();
        }
    }

    /// How much the counter has grown a second, now that it is `total` `at` that time; 0 before
    /// there are readings. One that was not there before began at 0, and one that has fallen began
    /// anew.
    #[must_use]
    pub fn per_second(&self, at: Duration, key: &K, total: u64) -> f64 {
        let Some((then, totals)) = self.readings.front() else { return 0.0 };
        let passed = at.saturating_sub(*then);
        if passed.is_zero() {
            return 0.0;
        }
        let before = totals.get(key).copied().unwrap_or(0);
        let grown = total.checked_sub(before).unwrap_or(total);
        #[expect(clippy::cast_precision_loss, reason = "a rate is no exact number")]
        let grown = grown as f64;
        grown / passed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn a_rate_is_over_the_window() {
        let mut rates = Rates::default();
        assert!(close(rates.per_second(s(1), &"a", 5), 0.0));
        for second in 0..=30 {
            let total = if second <= 15 { 100 * second } else { 1500 };
            rates.note(s(second), HashMap::from([("a", total)]));
        }
        // The window begins at 20 s, when it had stopped.
        assert!(close(rates.per_second(s(30), &"a", 1500), 0.0));
        assert!(close(rates.per_second(s(30), &"a", 1700), 20.0));
        assert!(close(rates.per_second(s(30), &"b", 50), 5.0), "new");
        assert!(close(rates.per_second(s(30), &"a", 10), 1.0), "begun anew");
        assert!(rates.readings.len() <= 12);
    }

    #[test]
    fn readings_that_come_quickly_are_passed_over() {
        let mut rates = Rates::default();
        for milliseconds in 0..2_500 {
            let at = Duration::from_millis(milliseconds);
            rates.note(at, HashMap::from([((), milliseconds)]));
        }
        assert_eq!(rates.readings.len(), 3);
        assert!(close(rates.per_second(Duration::from_millis(2_500), &(), 2_500), 1_000.0));
    }
}
