//! Keys and values of the maps that the probes fill and the daemon reads.

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

/// An owner that a person would name, whose connections are counted.
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

/// One place of the table of owners whose connections are counted, a line of the cache. A place is
/// never given up; two may have the same key, where two CPUs met an owner at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServicePlace {
    /// In the bits of [`ServicePlace::STATE`] one of the numbers below; where it is held, the others
    /// are of the key's hash.
    pub held: u64,
    /// Whose it is, once it is held.
    pub key: ServiceKey,
    unused: [u64; 3],
}

impl ServicePlace {
    /// Which bits of `held` say whether it is.
    pub const STATE: u64 = 3;
    /// Nobody's.
    pub const FREE: u64 = 0;
    /// Somebody's, who is just being written down.
    pub const TAKEN: u64 = 1;
    /// Somebody's.
    pub const HELD: u64 = 2;

    /// A place of that owner's.
    #[must_use]
    pub const fn new(held: u64, key: ServiceKey) -> Self {
        Self { held, key, unused: [0; 3] }
    }
}

/// What a CPU counted at a [`ServicePlace`].
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
    /// Cookie of the network namespace; 0 where that is not watched.
    pub net_cookie: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Remote port, host order.
    pub dport: u16,
    /// [`Family`] as a number.
    pub family: u8,
    /// Zero.
    pub reserved: u8,
}

/// What the daemon tells the running probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Non-zero: put records on the rings.
    pub streaming: u64,
    /// Non-zero: wake the reader once a ring holds more than `wake_above` records; the probe that
    /// does so sets it to 0.
    pub armed: u64,
    /// Records on a ring above which the reader is woken; 0: by the next record.
    pub wake_above: u64,
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 32);
    assert!(size_of::<ServicePlace>() == 64);
    assert!(size_of::<ServiceCounts>() == 16);
    assert!(size_of::<FailureKey>() == 80);
    assert!(size_of::<Control>() == 24);
};

#[cfg(feature = "user")]
crate::pod!(ServiceKey, ServicePlace, ServiceCounts, FailureKey, Control);
