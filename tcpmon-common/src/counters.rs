//! The exact counters.

use crate::state::TcpState;

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

/// Buckets of the state-duration histogram that stand in an [`Edge`]: those up to 10 ms, which are
/// the busiest.
pub const SHORT: usize = 5;

/// Transitions from one state to another, and how long their sockets had been in the first: a line
/// of the cache, since most transitions find no line there that another one has just used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Edge {
    /// How many, of IPv4 and of IPv6.
    pub transitions: [u64; 2],
    /// Sum of the observed durations, in nanoseconds.
    pub sum_ns: u64,
    /// Observations of the first buckets, not cumulated.
    pub short: [u64; SHORT],
}

/// How many there are: from each state that a socket can be in to each.
pub const EDGES: usize = STATES * STATES;

/// States of the kernel's, which have the numbers from 1 on.
pub const STATES: usize = TcpState::ALL.len();

/// Buckets of the state-duration histogram that do not stand in an [`Edge`].
pub const LONG: usize = DURATION_BUCKETS - SHORT;

/// Place of a transition in [`Counters::edges`]; of numbers that no state has, another's or none below
/// [`EDGES`].
#[inline(always)]
#[must_use]
pub const fn edge_index(old: u8, new: u8) -> usize {
    (old as usize * STATES + new as usize).wrapping_sub(STATES + 1)
}

/// The exact counters, one copy for each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// By [`edge_index`].
    pub edges: [Edge; EDGES],
    /// Observations of the state-duration histogram's other buckets, by the state's number less 1.
    pub long: [[u64; LONG]; STATES],
    /// connect() calls that found no free port.
    pub port_failures: u64,
    /// What was lost.
    pub losses: Losses,
    /// How many transitions there were, more or less: it only has to be another number each time.
    pub last: u32,
    unused: [u32; 15],
    /// [`Self::last`] when it was of a socket of these network namespaces, by the last bits of their
    /// inode number: where it has not changed, no socket of theirs has.
    pub activity: [u32; ACTIVITY],
}

impl Counters {
    /// Nothing counted yet.
    pub const NONE: Self = Self {
        edges: [Edge { transitions: [0; 2], sum_ns: 0, short: [0; SHORT] }; EDGES],
        long: [[0; LONG]; STATES],
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
        last: 0,
        unused: [0; 15],
        activity: [0; ACTIVITY],
    };
}

/// Places in [`Counters::activity`]. Inode numbers of namespaces are given in sequence, so few
/// share a place.
pub const ACTIVITY: usize = 1_024;

/// A factor that mixes the bits of a number: odd, and with bits all over.
pub const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

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

/// The bucket that a duration falls into, if that stands in [`Edge::short`]. One comparison with a number
/// after the other: most durations of a busy machine fall into the first buckets.
#[inline(always)]
#[must_use]
pub const fn short_bucket(duration_ns: u64) -> Option<usize> {
    let mut bucket = 0;
    while bucket < SHORT {
        if duration_ns <= DURATION_BOUNDS_NS[bucket] {
            return Some(bucket);
        }
        bucket += 1;
    }
    None
}

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

const _: () = {
    assert!(size_of::<Losses>() == 64);
    assert!(size_of::<Edge>() == 64);
    assert!(size_of::<Counters>() == 64 * 169 + 8 * (13 * 11 + 1 + 8) + 4 * (16 + 1_024));
    // Those of all CPUs are one value of a map, which before Linux 6.0 has four megabytes at most.
    assert!(256 * size_of::<Counters>() <= 4 << 20);
};

#[cfg(feature = "user")]
crate::pod!(Losses, Edge, Counters);

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
    fn edge_indexes_are_distinct_and_inside() {
        let mut seen = [false; EDGES];
        for old in TcpState::ALL {
            for new in TcpState::ALL {
                let index = edge_index(old.number(), new.number());
                assert!(!core::mem::replace(&mut seen[index], true));
            }
        }
        assert!(edge_index(0, 0) >= EDGES && edge_index(14, 1) >= EDGES);
    }

    #[test]
    fn a_short_duration_is_found_by_its_bucket_and_no_other() {
        for bound in DURATION_BOUNDS_NS {
            for duration_ns in [bound - 1, bound, bound + 1] {
                let bucket = duration_bucket(duration_ns);
                assert_eq!(short_bucket(duration_ns), (bucket < SHORT).then_some(bucket));
            }
        }
    }
}
