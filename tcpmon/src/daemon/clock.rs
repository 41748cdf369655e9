//! From the probes' clock to the time of day.
//!
//! The two clocks cannot be read in one step: a thread that is taken off its CPU between them
//! would find an offset that is off by as long, and events would seem to go back in time. The
//! kernel keeps the offset constant (`wall_to_monotonic` in kernel/time/timekeeping.c: NTP slews
//! both clocks alike) until somebody sets the time of day, so the last offset stays for as long as
//! it can be the true one.

use rustix::time::{ClockId, clock_gettime};

/// What to add to `CLOCK_MONOTONIC` to get UTC.
#[derive(Debug, Default)]
pub struct UtcOffset {
    last_ns: Option<i64>,
}

impl UtcOffset {
    /// The offset now, in nanoseconds.
    pub fn now_ns(&mut self) -> i64 {
        let before = read(ClockId::Monotonic);
        let utc = read(ClockId::Realtime);
        let after = read(ClockId::Monotonic);
        self.settle(utc - after, utc - before)
    }

    /// The offset, known to be between two values.
    fn settle(&mut self, least_ns: i64, most_ns: i64) -> i64 {
        let kept = self.last_ns.filter(|last| (least_ns..=most_ns).contains(last));
        *self.last_ns.insert(kept.unwrap_or(least_ns.midpoint(most_ns)))
    }
}

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests;
