//! The census: all TCP sockets of one network namespace, counted in the kernel by what people ask
//! of them, so that not a socket but a count crosses the border.
//!
//! The iterator finds the group of a socket by way of a hash index of its own and counts it in a
//! cell; cells are taken in order, so the daemon reads only those in use. Neither is cleared
//! between two censuses: entries of the index carry the number of their census.

use crate::maps::{Address, ServiceKey};

/// What a socket is, in one byte: [`CensusKey::kind`].
pub mod kind {
    /// The bits of the state's number ([`crate::TcpState`]); of a socket in the time-wait table
    /// its substate, `FIN_WAIT2` or `TIME_WAIT`.
    pub const STATE: u8 = 0x0f;
    /// The socket is in the time-wait table: no process has it any more.
    pub const TIME_WAIT_TABLE: u8 = 0x10;
    /// This end listens, or was accepted from a listener.
    pub const PASSIVE: u8 = 0x20;
    // 0x40 is kept free for time-wait sockets that connect() may take over.
}

/// Length of a table with one place for each [`CensusKey::kind`].
pub const KINDS: usize = 128;

/// Places in one value of the index.
pub const CENSUS_SLOTS: usize = 8;

/// The most cells that there may be: an entry of the index has so many numbers.
pub const MAX_CELLS: u32 = 1 << 20;

/// What the sockets counted in one cell have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CensusKey {
    /// Local address.
    pub saddr: Address,
    /// Remote address; zero for a listener.
    pub daddr: Address,
    /// Whose they are.
    pub service: ServiceKey,
    /// Remote port, host order; 0 at a passive end, where each client has another.
    pub dport: u16,
    /// [`crate::Family`] as a number.
    pub family: u8,
    /// Bits of [`kind`].
    pub kind: u8,
    /// Zero.
    pub reserved: u32,
}

/// A group of sockets and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CensusCell {
    /// What they have in common.
    pub key: CensusKey,
    /// How many.
    pub sockets: u64,
}

/// Places in the index: each 0, or the number of a census (32 bits), a part of the hash (12) and
/// the number of a cell (20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CensusSlots {
    /// The places.
    pub slots: [u64; CENSUS_SLOTS],
}

/// Sockets that the iterator looks up at a time.
pub const CENSUS_BATCH: usize = 16;

/// A socket that is yet to be looked up and counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CensusPending {
    /// As in [`CensusKey`], by words.
    pub saddr: [u64; 2],
    /// The same.
    pub daddr: [u64; 2],
    /// The socket's cookie; 0 where nothing can be known of it.
    pub cookie: u64,
    /// Local port, host order.
    pub sport: u16,
    /// Remote port, host order.
    pub dport: u16,
    /// [`crate::Family`] as a number.
    pub family: u8,
    /// Bits of [`kind`], as far as the socket itself tells.
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 18],
}

/// One census: the daemon sets how it begins ([`Self::begin`]), the iterator how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CensusControl {
    /// Number of this census, never 0.
    pub generation: u32,
    /// Cells in use.
    pub cells: u32,
    /// All sockets, by family and kind.
    pub sockets: [[u64; KINDS]; 2],
    /// Those of them that found no cell.
    pub unplaced: [[u64; KINDS]; 2],
    /// One bit for each local port on which a socket listens.
    pub listening: [u64; 1024],
    /// The iterator's own: sockets that wait to be counted.
    pub pending: [CensusPending; CENSUS_BATCH],
    /// How many wait.
    pub waiting: u64,
}

impl CensusControl {
    /// How a census of that number begins.
    #[must_use]
    pub const fn begin(generation: u32) -> Self {
        const NOTHING: CensusPending = CensusPending {
            saddr: [0; 2],
            daddr: [0; 2],
            cookie: 0,
            sport: 0,
            dport: 0,
            family: 0,
            kind: 0,
            reserved: [0; 18],
        };
        Self {
            generation,
            cells: 0,
            sockets: [[0; KINDS]; 2],
            unplaced: [[0; KINDS]; 2],
            listening: [0; 1024],
            pending: [NOTHING; CENSUS_BATCH],
            waiting: 0,
        }
    }
}

const _: () = {
    assert!(size_of::<CensusKey>() == 72);
    assert!(align_of::<CensusKey>() == 8);
    assert!(core::mem::offset_of!(CensusKey, daddr) == 16);
    assert!(core::mem::offset_of!(CensusKey, service) == 32);
    assert!(core::mem::offset_of!(CensusKey, dport) == 64);
    assert!(core::mem::offset_of!(CensusKey, kind) == 67);
    assert!(size_of::<CensusCell>() == 80);
    assert!(core::mem::offset_of!(CensusCell, sockets) == 72);
    assert!(size_of::<CensusSlots>() == 64);
    assert!(size_of::<CensusPending>() == 64);
    assert!(size_of::<CensusControl>() == 8 + 4 * KINDS * 8 + 8192 + 64 * CENSUS_BATCH + 8);
    assert!(core::mem::offset_of!(CensusControl, listening) == 8 + 4 * KINDS * 8);
};

#[cfg(feature = "user")]
mod pod {
    use super::{CensusCell, CensusControl, CensusKey, CensusPending, CensusSlots};

    macro_rules! pod {
        ($($record:ty),*) => { $(
            // SAFETY: `repr(C)` with integer members only and, by the sizes asserted above,
            // without padding: any bytes are a value.
            unsafe impl aya::Pod for $record {}
        )* };
    }
    pod!(CensusKey, CensusCell, CensusSlots, CensusPending, CensusControl);
}
