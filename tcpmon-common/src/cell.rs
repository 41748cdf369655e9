//! The cells: who has how many sockets in the time-wait table, and where to, kept by the probes as
//! sockets come and go, so that a look at a million of them is a look at a few cells.

use crate::maps::{Address, ServiceKey};

/// What a socket is, in one byte: [`CellKey::kind`].
pub mod kind {
    /// The bits of the state's number ([`crate::TcpState`]).
    pub const STATE: u8 = 0x0f;
    /// This end listens, or was accepted from a listener.
    pub const PASSIVE: u8 = 0x20;
    /// The connection had TCP timestamps, without which no connect() takes its port over.
    pub const TIMESTAMPS: u8 = 0x40;
    /// The local port was chosen by a bind(), not by connect().
    pub const BOUND: u8 = 0x80;
}

/// The most cells that there may be.
pub const MAX_CELLS: u32 = 1 << 20;

/// What the sockets counted in one cell have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CellKey {
    /// Local address.
    pub saddr: Address,
    /// Remote address.
    pub daddr: Address,
    /// Whose they are.
    pub service: ServiceKey,
    /// Cookie of the network namespace.
    pub net_cookie: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Remote port, host order; 0 at a passive end, where each client has another.
    pub dport: u16,
    /// [`crate::Family`] as a number.
    pub family: u8,
    /// Bits of [`kind`].
    pub kind: u8,
}

/// A group of sockets in the time-wait table, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cell {
    /// What they have in common.
    pub key: CellKey,
    /// How many there are now. Several CPUs count at once, each with one atomic addition.
    pub sockets: u64,
    /// How many have entered since the cell was taken.
    pub entered: u64,
}

const _: () = {
    assert!(size_of::<CellKey>() == 80);
    assert!(align_of::<CellKey>() == 8);
    assert!(core::mem::offset_of!(CellKey, service) == 32);
    assert!(core::mem::offset_of!(CellKey, net_cookie) == 64);
    assert!(core::mem::offset_of!(CellKey, kind) == 79);
    assert!(size_of::<Cell>() == 96);
    assert!(core::mem::offset_of!(Cell, sockets) == 80);
};

#[cfg(feature = "user")]
crate::pod!(CellKey, Cell);
