//! The exact counters.

use crate::state::STATE_COUNT;

/// What could not be stored, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Losses {
    /// Sockets that found the socket map full.
    pub sockets: u64,
    /// Listeners that found the listener map full.
    pub listeners: u64,
    /// Connections that found the service map full; they are counted here instead,
    /// active and passive.
    pub services: [u64; 2],
    /// Port failures that found the failure map full; they are counted here instead.
    pub failures: u64,
    /// Sockets that entered the time-wait table and found the socket map full.
    pub time_waits: u64,
    /// Entries into the time-wait table that found the map of services full; they are counted for
    /// their namespace alone.
    pub entered: u64,
    /// Events of time-wait sockets that found the map of namespaces full.
    pub namespaces: u64,
}

/// The exact counters, one copy for each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Transitions by [`transition_index`].
    pub transitions: [u64; 2 * STATE_COUNT * STATE_COUNT],
    /// Time spent in each state, by its number.
    pub durations: [Durations; STATE_COUNT],
    /// connect() calls that found no free port.
    pub port_failures: u64,
    /// What was lost.
    pub losses: Losses,
    /// A mark of the last transition, by the last bits of its network namespace's inode number: where
    /// it has not changed, no socket of those namespaces has. It is no count: of the last
    /// transition a mark can be written without reading first what was there.
    pub activity: [u64; ACTIVITY],
    unused: [u64; 7],
}

impl Counters {
    /// Nothing counted yet.
    pub const NONE: Self = Self {
        transitions: [0; 2 * STATE_COUNT * STATE_COUNT],
        durations: [Durations::NONE; STATE_COUNT],
        port_failures: 0,
        losses: Losses {
            sockets: 0,
            listeners: 0,
            services: [0; 2],
            failures: 0,
            time_waits: 0,
            entered: 0,
            namespaces: 0,
        },
        activity: [0; ACTIVITY],
        unused: [0; 7],
    };
}

/// Places in [`Counters::activity`]. Inode numbers of namespaces are given in sequence, so few
/// share a place.
pub const ACTIVITY: usize = 1_024;

/// Place of a transition in [`Counters::transitions`].
///
/// `family` is masked to 0 and 1 and the states to 0 to 15, so the result is always inside.
#[inline(always)]
#[must_use]
pub const fn transition_index(family: u8, old: u8, new: u8) -> usize {
    let mask = STATE_COUNT - 1;
    ((family as usize & 1) * STATE_COUNT + (old as usize & mask)) * STATE_COUNT
        + (new as usize & mask)
}

/// Number of buckets of the state-duration histogram, the one without an upper bound included.
pub const DURATION_BUCKETS: usize = 16;

/// Upper bounds of the state-duration histogram's buckets but the last, inclusive, in nanoseconds:
/// loopback to the hour, with 60 s because that is how long TIME-WAIT lasts.
pub const DURATION_BOUNDS_NS: [u64; DURATION_BUCKETS - 1] = [
    10_000,
    100_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
    120_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
];

/// The bucket that a duration falls into, 0 to `DURATION_BUCKETS - 1`.
#[inline(always)]
#[must_use]
pub const fn duration_bucket(duration_ns: u64) -> usize {
    // Four comparisons instead of fifteen, and no loop for the verifier to walk.
    let bounds = &DURATION_BOUNDS_NS;
    let mut bucket = 0;
    if duration_ns > bounds[bucket + 7] {
        bucket += 8;
    }
    if duration_ns > bounds[bucket + 3] {
        bucket += 4;
    }
    if duration_ns > bounds[bucket + 1] {
        bucket += 2;
    }
    if duration_ns > bounds[bucket] {
        bucket += 1;
    }
    bucket
}

/// Time spent in one state. The sum and the buckets up to 100 ms, which are the busiest, share a
/// line of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Durations {
    /// Sum of the observed durations, in nanoseconds.
    pub sum_ns: u64,
    /// Observations by bucket, not cumulated.
    pub buckets: [u64; DURATION_BUCKETS],
    unused: [u64; 7],
}

impl Durations {
    /// Nothing observed yet.
    pub const NONE: Self = Self { sum_ns: 0, buckets: [0; DURATION_BUCKETS], unused: [0; 7] };
}

const _: () = {
    assert!(size_of::<Losses>() == 64);
    assert!(size_of::<Counters>() == 8 * (2 * 16 * 16 + 16 * (1 + 16 + 7) + 1 + 8 + 1_024 + 7));
    assert!(size_of::<Durations>() == 8 * (1 + 16 + 7));
};

#[cfg(feature = "user")]
crate::pod!(Losses, Counters, Durations);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_the_first_bucket_that_bounds_it() {
        for (bucket, &bound) in DURATION_BOUNDS_NS.iter().enumerate() {
            assert_eq!(duration_bucket(bound), bucket);
            assert_eq!(duration_bucket(bound + 1), bucket + 1);
        }
        assert_eq!(duration_bucket(0), 0);
        assert_eq!(duration_bucket(u64::MAX), DURATION_BUCKETS - 1);
    }

    #[test]
    fn transition_indexes_are_distinct_and_inside() {
        let mut seen = [false; 2 * STATE_COUNT * STATE_COUNT];
        for family in 0..2 {
            for old in 0..16 {
                for new in 0..16 {
                    let index = transition_index(family, old, new);
                    assert!(!core::mem::replace(&mut seen[index], true));
                }
            }
        }
        assert!(transition_index(u8::MAX, u8::MAX, u8::MAX) < seen.len());
    }
}
