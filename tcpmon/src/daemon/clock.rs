//! From the probes' clock to the time of day.
//!
//! The two clocks cannot be read in one step: a thread that is taken off its CPU between them
//! would find an offset that is off by as long, and events would seem to go back in time. The
//! kernel keeps the offset constant (`wall_to_monotonic` in kernel/time/timekeeping.c: NTP slews
//! both clocks alike) until somebody sets the time of day, so the last offset stays for as long as
//! it can be the true one.

use crate::kernel::clock::{of_probes, read};
use rustix::time::ClockId;
use std::time::Duration;

/// What to add to the probes' clock to get UTC.
#[derive(Debug, Default)]
pub struct UtcOffset {
    last_ns: Option<i64>,
}

impl UtcOffset {
    /// The offset now, in nanoseconds.
    pub fn now_ns(&mut self) -> i64 {
        let before = nanoseconds(of_probes());
        let utc = nanoseconds(read(ClockId::Realtime));
        let after = nanoseconds(of_probes());
        self.settle(utc - after, utc - before)
    }

    /// The offset, known to be between two values.
    fn settle(&mut self, least_ns: i64, most_ns: i64) -> i64 {
        let kept = self.last_ns.filter(|last| (least_ns..=most_ns).contains(last));
        *self.last_ns.insert(kept.unwrap_or(least_ns.midpoint(most_ns)))
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
