//! Keys and values of the maps that the probes fill and the daemon reads.

use crate::state::STATE_COUNT;

/// An IP address in network order; IPv4 in the first four bytes, the others 0.
pub type Address = [u8; 16];

/// A process name, NUL-padded (the kernel's `TASK_COMM_LEN`).
pub type Comm = [u8; 16];

/// Address family of a socket, as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// `AF_INET`.
    Ipv4 = 0,
    /// `AF_INET6`, IPv4-mapped addresses included.
    Ipv6 = 1,
}

impl Family {
    /// Both families, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Name in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// The family of that number; `None` above 1.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ipv4),
            1 => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// Who opened a socket: set in the process that called connect() or listen(), inherited by the
/// sockets accepted from a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Cgroup of the process then: the inode number of the cgroup's directory.
    pub cgroup_id: u64,
    /// Start of the process, nanoseconds of `CLOCK_BOOTTIME`: tells reused pids apart.
    pub birth_ns: u64,
    /// Name of the process (its thread-group leader's), NUL-padded.
    pub comm: Comm,
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// 1 when the cgroup id is of a version 1 hierarchy, else 0.
    pub cgroup_v1: u32,
}

/// What is kept for a socket, by its cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// Who opened it; all zero unless `flags::OWNER_KNOWN` is set.
    pub owner: Owner,
    /// What it is now.
    pub present: Present,
}

/// What a transition changes of what is kept for a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Present {
    /// When its present state began, nanoseconds of `CLOCK_MONOTONIC`; 0 where not seen.
    pub since_ns: u64,
    /// Local port, host order, once it has one.
    pub sport: u16,
    /// Present state's number.
    pub state: u8,
    /// Bits of [`crate::flags`].
    pub flags: u8,
    /// In `SYN_SENT`, `inet_sport` when connect() began: a socket used before still has its old
    /// port there. In `TIME_WAIT`, the [`crate::Cell`] in which the socket is counted: its index
    /// plus 1, or 0 for none. Else nothing.
    pub by_state: u32,
}

/// Sockets that share a place in the table of sockets.
pub const WAYS: usize = 4;

/// Sockets of a place whose [`Present`] stands in the place's first line of the cache.
const NEAR: usize = 2;

/// One place of the table of sockets, on four lines of the cache. Cookies stand beside each other,
/// and with them what a transition changes of the first two sockets (mostly there are no more): to
/// find such a socket and to note its transition touches one line. Its owner, read seldom, is on the
/// next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketSet {
    /// Whose the sockets are; 0: nobody's.
    pub cookies: [u64; WAYS],
    near: [Present; NEAR],
    owners: [Owner; WAYS],
    far: [Present; WAYS - NEAR],
}

/// Where what is kept of a socket stands.
#[derive(Clone, Copy, Debug)]
pub struct SocketPlace {
    /// Its owner.
    pub owner: *mut Owner,
    /// What it is now.
    pub present: *mut Present,
}

impl SocketSet {
    /// What is kept of the socket at that place of [`Self::cookies`]; `way` is cut to be inside.
    #[must_use]
    pub const fn socket(&self, way: usize) -> Socket {
        let way = way % WAYS;
        let present = if way < NEAR { self.near[way] } else { self.far[way - NEAR] };
        Socket { owner: self.owners[way], present }
    }

    /// Where it stands.
    ///
    /// # Safety
    ///
    /// `set` points to a whole set, which need not be initialised.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn place(set: *mut Self, way: usize) -> SocketPlace {
        let way = way % WAYS;
        // SAFETY: by the caller; inside the set.
        unsafe {
            let present = if way < NEAR {
                &raw mut (*set).near[way]
            } else {
                &raw mut (*set).far[way - NEAR]
            };
            SocketPlace { owner: &raw mut (*set).owners[way], present }
        }
    }
}

/// Key of the map from an owner a person would name to its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ServiceKey {
    /// Cgroup id.
    pub cgroup_id: u64,
    /// Process name, NUL-padded.
    pub comm: Comm,
    /// 1 when the cgroup id is of a version 1 hierarchy.
    pub cgroup_v1: u32,
    /// 0 when the owner is unknown: the other members are then all zero.
    pub known: u32,
}

/// Per-CPU value under a [`ServiceKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceCounts {
    /// Connections established that this owner opened.
    pub active: u64,
    /// Connections established that this owner accepted, or will.
    pub passive: u64,
}

/// Key of the map that counts connect() calls that found no free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FailureKey {
    /// Local address, chosen by the caller or by the route.
    pub saddr: Address,
    /// Remote address.
    pub daddr: Address,
    /// Whose call it was.
    pub service: ServiceKey,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Remote port, host order.
    pub dport: u16,
    /// [`Family`] as a number.
    pub family: u8,
    /// Zero.
    pub reserved: u8,
}

/// An accepted socket between its first and its second transition, on kernels that report the
/// first before its addresses and its cookie are set (through Linux 6.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Embryo {
    /// Address of the `struct sock`; 0: none. Compared, never followed.
    pub sock: u64,
    /// When it came to be, nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// Its listener's owner.
    pub owner: Owner,
    /// `flags::OWNER_KNOWN` or 0.
    pub known: u64,
}

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
    /// Transitions by the last bits of their network namespace's inode number: where one of these
    /// has not changed, no socket of those namespaces has.
    pub activity: [u64; ACTIVITY],
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

/// Time spent in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Durations {
    /// Sum of the observed durations, in nanoseconds. Before the buckets, since the first of those
    /// are the busiest: the two are mostly on one line of the cache.
    pub sum_ns: u64,
    /// Observations by bucket, not cumulated.
    pub buckets: [u64; DURATION_BUCKETS],
}

/// What the daemon tells the running probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Non-zero: put records on the rings.
    pub streaming: u32,
    /// Non-zero: wake the reader once a ring holds more than `wake_above` records; the probe that
    /// does so sets it to 0.
    pub armed: u32,
    /// Records on a ring above which the reader is woken; 0: by the next record.
    pub wake_above: u64,
}

const _: () = {
    assert!(size_of::<Owner>() == 40);
    assert!(core::mem::offset_of!(Owner, comm) == 16);
    assert!(size_of::<Socket>() == 56);
    assert!(size_of::<Present>() == 16);
    assert!(size_of::<SocketSet>() == 256);
    assert!(core::mem::offset_of!(SocketSet, owners) == 64);
    assert!(size_of::<ServiceKey>() == 32);
    assert!(size_of::<ServiceCounts>() == 16);
    assert!(size_of::<FailureKey>() == 72);
    assert!(size_of::<Losses>() == 64);
    assert!(size_of::<Counters>() == 8 * (2 * 16 * 16 + 16 * (1 + 16) + 1 + 8 + 1_024));
    assert!(size_of::<Embryo>() == 64);
    assert!(size_of::<Durations>() == 8 * (1 + 16));
    assert!(size_of::<Control>() == 16);
};

#[cfg(feature = "user")]
mod pod {
    use super::{
        Control, Counters, Durations, Embryo, FailureKey, Losses, Owner, ServiceCounts, ServiceKey,
        Socket, SocketSet,
    };

    macro_rules! pod {
        ($($record:ty),*) => { $(
            // SAFETY: `repr(C)` with integer members only and, by the sizes asserted above,
            // without padding: any bytes are a value.
            unsafe impl aya::Pod for $record {}
        )* };
    }
    pod!(
        Owner,
        Socket,
        SocketSet,
        ServiceKey,
        ServiceCounts,
        FailureKey,
        Losses,
        Counters,
        Durations,
        Embryo,
        Control
    );
}

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
