//! What the probes keep of each socket.

use crate::maps::Comm;
use core::mem::offset_of;

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
const NEAR: usize = WAYS / 2;

/// One place of the table of sockets, on four lines of the cache. Cookies stand beside each other,
/// and with them what a transition changes of the first two sockets (mostly there are no more): to
/// find such a socket and to note its transition touches one line. Their owners, read seldom, are
/// on the next two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketSet {
    /// Whose the sockets are; 0: nobody's.
    pub cookies: [u64; WAYS],
    near: [Present; NEAR],
    owners: [Owner; WAYS],
    far: [Present; NEAR],
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
        let present = if way < NEAR { self.near[way] } else { self.far[way % NEAR] };
        Socket { owner: self.owners[way], present }
    }

    /// Where it stands in the set that `set` points to.
    #[inline(always)]
    #[must_use]
    pub const fn place(set: *mut Self, way: usize) -> SocketPlace {
        let way = way % WAYS;
        let presents = if way < NEAR {
            set.wrapping_byte_add(offset_of!(Self, near))
        } else {
            set.wrapping_byte_add(offset_of!(Self, far))
        };
        let owners = set.wrapping_byte_add(offset_of!(Self, owners));
        SocketPlace {
            owner: owners.cast::<Owner>().wrapping_add(way),
            present: presents.cast::<Present>().wrapping_add(way % NEAR),
        }
    }
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

const _: () = {
    assert!(size_of::<Owner>() == 40);
    assert!(offset_of!(Owner, comm) == 16);
    assert!(size_of::<Socket>() == 56);
    assert!(size_of::<Present>() == 16);
    assert!(size_of::<SocketSet>() == 256);
    assert!(offset_of!(SocketSet, owners) == 64);
    assert!(size_of::<Embryo>() == 64);
};

#[cfg(feature = "user")]
crate::pod!(Owner, Socket, Present, SocketSet, Embryo);
