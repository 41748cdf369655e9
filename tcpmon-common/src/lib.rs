//! What crosses the border between the probes and the daemon: TCP states, the rings and their records,
//! map keys and values, and the field offsets that the daemon gives the probes.
//!
//! Both sides of the border are compiled by different compilers for different targets, so the
//! shape of every record is asserted here, at compile time, on both of them.

#![no_std]

mod cell;
mod maps;
mod offsets;
mod record;
mod ring;
mod state;
mod time_wait;

pub use cell::{Cell, CellKey, MAX_CELLS, kind};
pub use maps::{
    ACTIVITY, Address, Comm, Control, Counters, DURATION_BOUNDS_NS, DURATION_BUCKETS, Durations,
    Embryo, FailureKey, Family, Losses, Owner, Present, ServiceCounts, ServiceKey, Socket,
    SocketPlace, SocketSet, WAYS, duration_bucket, transition_index,
};
pub use offsets::{ABSENT, Offsets};
pub use record::{DURATION_UNKNOWN, Transition, flags};
pub use ring::{RingEnds, RingShape, Slot};
pub use state::{STATE_COUNT, TcpState};
pub use time_wait::{Departure, Ending, EnteredKey, Learnt, TimeWaits};
