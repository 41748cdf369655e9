//! The kernel's clocks, as times since they began.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A clock's time. `CLOCK_MONOTONIC` is the probes' clock, and the CPU time of a thread is that in
/// the kernel too.
#[must_use]
pub fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}
