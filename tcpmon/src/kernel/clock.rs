//! The kernel's clocks, as times since they began.

use rustix::time::{ClockId, clock_gettime};
use std::{fs, sync::LazyLock, time::Duration};

/// A clock's time. The CPU time of a thread is that in the kernel too; for the probes' clock, see
/// [`of_probes`].
#[must_use]
pub fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}

/// The probes' clock: `CLOCK_MONOTONIC` as it is outside of any time namespace.
#[must_use]
pub fn of_probes() -> Duration {
    static AHEAD_NS: LazyLock<i64> = LazyLock::new(|| {
        // The offsets are those of children: of this process too unless it has made a namespace
        // for them and stayed outside. Missing where the kernel has no time namespaces.
        let namespace = |of| fs::read_link(format!("/proc/self/ns/{of}")).ok();
        let text = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        let is_own = namespace("time") == namespace("time_for_children");
        if is_own { monotonic_offset_ns(&text).unwrap_or(0) } else { 0 }
    });
    let here = read(ClockId::Monotonic);
    let ahead = Duration::from_nanos(AHEAD_NS.unsigned_abs());
    if *AHEAD_NS < 0 { here.saturating_add(ahead) } else { here.saturating_sub(ahead) }
}

/// How far `CLOCK_MONOTONIC` is ahead in a time namespace, by its `timens_offsets`
/// (time_namespaces(7)): lines of a clock's name, seconds and nanoseconds.
fn monotonic_offset_ns(text: &str) -> Option<i64> {
    let mut fields = text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        (fields.next()? == "monotonic").then_some(fields)
    })?;
    let seconds: i64 = fields.next()?.parse().ok()?;
    let nanoseconds: i64 = fields.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let table = [
            ("monotonic           0         0\nboottime            0         0\n", Some(0)),
            ("monotonic       -1000 999999999\nboottime 5 5\n", Some(-999_000_000_001)),
            ("boottime 5 5\nmonotonic 86400 1\n", Some(86_400_000_000_001)),
            ("boottime 5 5\n", None),
            ("monotonic 1\n", None),
            ("monotonic 9223372036854775807 0\n", None),
            ("", None),
        ];
        for (text, offset_ns) in table {
            assert_eq!(monotonic_offset_ns(text), offset_ns, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_does_no_harm(text in ".{0,80}", seconds: i64, nanoseconds: i64) {
            let _ = monotonic_offset_ns(&text);
            let _ = monotonic_offset_ns(&format!("monotonic {seconds} {nanoseconds}"));
        }
    }
}
