//! What crosses the border between the probes and the daemon: TCP states, the rings and their
//! records, map keys and values, and the constants that the daemon gives the probes.
//!
//! Both sides of the border are compiled by different compilers for different targets, so the
//! shape of every record is asserted here, at compile time, on both of them.

#![no_std]

/// Lets aya read and write these records as bytes, and the daemon map them into its memory.
#[cfg(feature = "user")]
macro_rules! pod {
    ($($record:ty),*) => { $(
        // SAFETY: `repr(C)` with integer members only and, by the sizes asserted where it is
        // declared, without padding: any bytes are a value.
        unsafe impl aya::Pod for $record {}
    )* };
}
#[cfg(feature = "user")]
use pod;

mod cell;
mod constants;
mod counters;
mod maps;
mod offsets;
mod placeholder;
mod record;
mod ring;
mod socket;
mod state;
mod time_wait;

pub use cell::{Cell, CellKey, MAX_CELLS, kind};
pub use constants::{Constants, size_of_member};
pub use counters::{
    ACTIVITY, Counters, DURATION_BOUNDS_NS, DURATION_BUCKETS, EDGES, Edge, LONG, Losses, MIX,
    SHORT, STATES, duration_bucket, edge_index, short_bucket,
};
pub use maps::{
    Address, Comm, Control, FailureKey, Family, ServiceCounts, ServiceKey, ServicePlace,
};
pub use offsets::{ABSENT, Offsets};
pub use placeholder::{Placeholder, Table, displaced, displacement};
pub use record::{DURATION_UNKNOWN, Transition, flags};
pub use ring::{RingEnds, RingShape, Slot};
pub use socket::{
    Embryo, LISTENER_PLACES, ListenerPlace, MAX_SOCKETS, NEAR, Owner, Present, Socket, SocketRest,
    SocketSet, WAYS,
};
pub use state::{STATE_COUNT, TcpState};
pub use time_wait::{Departure, Ending, EnteredKey, Learnt, TimeWaits};
