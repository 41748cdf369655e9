//! What the probes keep of each socket.

use crate::{maps::Comm, placeholder::Table};
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
    /// plus 1, or 0 for none. Of an accepted socket in `SYN_RECV`, the [`crate::ServicePlace`] at
    /// which its connection will be counted, likewise. In other states it means nothing.
    pub by_state: u32,
}

/// Sockets that share a place in the table of sockets.
pub const WAYS: usize = 4;

/// Sockets of a place whose [`Present`] stands beside its cookies: half of them.
pub const NEAR: usize = WAYS / 2;

/// Sockets that may be kept at most: their table has to be within the verifier's reach.
pub const MAX_SOCKETS: u32 = 1 << 23;
const _: () = assert!(
    MAX_SOCKETS as usize / WAYS * size_of::<SocketRest>() < Table::MOST_BYTES
        && size_of::<SocketSet>() < size_of::<SocketRest>()
);

/// One place of the table of sockets, a line of the cache: to find a socket there and to note its
/// transition touches one line, unless there are more than two, which is rare. Cookies are given in
/// sequence, and so are places: the processor fetches the line of the next socket by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketSet {
    /// Whose the sockets are; 0: nobody's.
    pub cookies: [u64; WAYS],
    /// What a transition changes of the first sockets.
    pub near: [Present; NEAR],
}

/// What is read and written seldom of the sockets of a [`SocketSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketRest {
    /// Who opened them.
    pub owners: [Owner; WAYS],
    /// What a transition changes of those that are not among the first.
    pub far: [Present; WAYS - NEAR],
}

impl SocketSet {
    /// What is kept of the socket at that place of [`Self::cookies`]; `way` is cut to be inside.
    #[must_use]
    pub const fn socket(&self, rest: &SocketRest, way: usize) -> Socket {
        let way = way % WAYS;
        let present = if way < NEAR { self.near[way] } else { rest.far[way - NEAR] };
        Socket { owner: rest.owners[way], present }
    }
}

/// Places for listeners; a power of two.
pub const LISTENER_PLACES: u32 = 512;

/// A listener that every connection it accepts asks for, beside the map that all of them are in: one
/// line of the cache, at the place that its mark gives, for the first that comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerPlace {
    /// By which its accepted sockets find it; 0: nobody's, 1: somebody's, who is just being written
    /// down.
    pub mark: u64,
    /// Who opened it.
    pub owner: Owner,
    /// The [`crate::ServicePlace`] at which its connections are counted: its index plus 1, or 0 for
    /// none.
    pub service: u32,
    reserved: [u32; 3],
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
    pub known: u32,
    /// [`ListenerPlace::service`].
    pub service: u32,
}

const _: () = {
    assert!(size_of::<Owner>() == 40);
    assert!(offset_of!(Owner, comm) == 16);
    assert!(size_of::<Socket>() == 56);
    assert!(size_of::<Present>() == 16);
    assert!(size_of::<SocketSet>() == 64);
    assert!(size_of::<SocketRest>() == 192);
    assert!(size_of::<Embryo>() == 64);
    assert!(size_of::<ListenerPlace>() == 64);
    assert!(LISTENER_PLACES.is_power_of_two());
};

#[cfg(feature = "user")]
crate::pod!(Owner, Socket, Present, SocketSet, SocketRest, Embryo, ListenerPlace);
