//! The record that the probes put on the rings.

use crate::maps::{Address, Comm};

/// [`Transition::duration_ns`] when the start of the old state was not seen.
pub const DURATION_UNKNOWN: u64 = u64::MAX;

/// Bits of [`Transition::flags`] and of [`crate::Socket::flags`].
pub mod flags {
    /// The owner fields are filled in.
    pub const OWNER_KNOWN: u8 = 1 << 0;
    /// This end opened the connection (RFC 9293: active OPEN).
    pub const ACTIVE: u8 = 1 << 1;
    /// This end listens, or was accepted from a listener (RFC 9293: passive OPEN).
    pub const PASSIVE: u8 = 1 << 2;
    /// This is a connect() that found no free local port.
    pub const PORT_EXHAUSTED: u8 = 1 << 3;
    /// The socket had no local port when connect() began: the kernel had to choose one.
    pub const PORT_WANTED: u8 = 1 << 4;
    /// The cgroup id is of a version 1 hierarchy, not of the unified one.
    pub const CGROUP_V1: u8 = 1 << 5;
    /// Of a record `... -> time_wait`, and of a socket in that state: it entered the time-wait
    /// table before the peer's FIN had come, in substate FIN_WAIT2.
    pub const SUBSTATE_FIN_WAIT2: u8 = 1 << 6;
    /// Of a record `time_wait -> close`: the bits of [`crate::Ending`].
    pub const ENDING: u8 = 0b11 << ENDING_SHIFT;
    /// The lowest bit of [`ENDING`].
    pub const ENDING_SHIFT: u8 = 6;
}

/// One TCP state transition, as the probe saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Transition {
    /// When, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub ts_ns: u64,
    /// The socket's cookie: never 0, never used for another socket until reboot.
    pub cookie: u64,
    /// Time spent in the old state, in nanoseconds, or [`DURATION_UNKNOWN`].
    pub duration_ns: u64,
    /// Cgroup of the owner when it opened the socket; 0 where unknown.
    pub cgroup_id: u64,
    /// Start of the owner's process, nanoseconds of `CLOCK_BOOTTIME`; 0 where unknown.
    pub birth_ns: u64,
    /// Local address.
    pub saddr: Address,
    /// Remote address.
    pub daddr: Address,
    /// Name of the owner's process, NUL-padded.
    pub comm: Comm,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Process id (the kernel's tgid) of the owner, in the initial pid namespace; 0 where unknown.
    pub pid: u32,
    /// Local port, host order; 0 when the socket has none (yet).
    pub sport: u16,
    /// Remote port, host order.
    pub dport: u16,
    /// [`crate::Family`] as a number.
    pub family: u8,
    /// The old [`crate::TcpState`]'s number.
    pub old: u8,
    /// The new [`crate::TcpState`]'s number.
    pub new: u8,
    /// Bits of [`flags`].
    pub flags: u8,
}

const _: () = {
    assert!(size_of::<Transition>() == 104);
    assert!(align_of::<Transition>() == 8);
    assert!(core::mem::offset_of!(Transition, saddr) == 40);
    assert!(core::mem::offset_of!(Transition, comm) == 72);
    assert!(core::mem::offset_of!(Transition, netns) == 88);
    assert!(core::mem::offset_of!(Transition, sport) == 96);
    assert!(core::mem::offset_of!(Transition, flags) == 103);
};
