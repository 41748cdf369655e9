//! How long to wait after failures, and when to speak of them.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};
use tokio::time::Instant;

/// How often the log may have a line.
const SPEAK_EVERY: Duration = Duration::from_mins(1);

/// Pauses that double with each failure, and are different on each host, so that a thousand hosts
/// do not come back to an Alertmanager in the same instant.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    /// Random keys: each process has its own.
    random: RandomState,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0, random: RandomState::new() }
    }

    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure: between half of what it is at most, and that.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures).and_then(|n| self.first.checked_mul(n));
        let most = doubled.map_or(self.longest, |pause| pause.min(self.longest));
        self.failures = self.failures.saturating_add(1);
        let thousandths = u32::try_from(self.random.hash_one(self.failures) % 1001).unwrap_or(0);
        most / 2 + most / 2 * thousandths / 1000
    }
}

/// Lets one line a minute through, and counts what there would have been besides.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    last: Option<Instant>,
    kept_back: u64,
    /// Whether the last line that was let through is about a failure.
    spoke_of_failure: bool,
}

impl Quiet {
    /// Whether to speak of a failure now, and how many there have been since the last line, this
    /// one included.
    pub(super) fn failure(&mut self, now: Instant) -> Option<u64> {
        self.kept_back += 1;
        self.may_speak(now).then(|| {
            self.spoke_of_failure = true;
            std::mem::take(&mut self.kept_back)
        })
    }

    /// Whether to say now that all is well again, and how many failures nobody has read of.
    pub(super) fn success(&mut self, now: Instant) -> Option<u64> {
        (self.spoke_of_failure && self.may_speak(now)).then(|| {
            self.spoke_of_failure = false;
            std::mem::take(&mut self.kept_back)
        })
    }

    fn may_speak(&mut self, now: Instant) -> bool {
        let may = self.last.is_none_or(|last| now.duration_since(last) >= SPEAK_EVERY);
        if may {
            self.last = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        for most in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Duration::from_secs) {
            let pause = backoff.failed();
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
        }
        for _ in 0..100 {
            assert!(backoff.failed() <= Duration::from_mins(1));
        }
        backoff.succeeded();
        assert!(backoff.failed() <= Duration::from_secs(1));
    }

    #[test]
    fn hosts_do_not_wait_equally_long() {
        let pause = || Backoff::new(Duration::from_mins(1), Duration::from_mins(1)).failed();
        let first = pause();
        assert!((0..50).any(|_| pause() != first));
    }

    #[test]
    fn a_minute_has_one_line_with_a_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut quiet = Quiet::default();
        assert_eq!(quiet.success(at(0)), None);
        assert_eq!(quiet.failure(at(0)), Some(1));
        for second in 1..60 {
            assert_eq!(quiet.failure(at(second)), None);
        }
        assert_eq!(quiet.failure(at(60)), Some(60));
        assert_eq!(quiet.success(at(61)), None);
        assert_eq!(quiet.failure(at(62)), None);
        assert_eq!(quiet.success(at(120)), Some(1));
        assert_eq!(quiet.success(at(300)), None);
        assert_eq!(quiet.failure(at(300)), Some(1));
    }
}
