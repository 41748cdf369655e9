//! What the daemon knows before it loads the probes, and the probes have as constants.
//!
//! They stand in the probes' code itself: see [`crate::Placeholder`]. In read-only data, as is usual,
//! each use would be a read from a line of the cache that the kernel's own work on the connection has
//! pushed out, before the probe can read what it is about.

use crate::offsets::Offsets;

/// The numbers that the daemon puts into the probes' code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Constants {
    /// Address of `tw_timer_handler()`, by which the timers of time-wait sockets are told from all
    /// others; 0: no probe watches timers.
    pub tw_handler: u64,
    /// How many numbers of CPUs there may be.
    pub cpus: u64,
    /// Where the fields of the kernel's structures stand.
    pub offsets: Offsets,
    /// Sets in the table of sockets less one, a power of two less one.
    pub set_mask: u32,
    /// Places for owners whose connections are counted less one, a power of two less one.
    pub service_mask: u32,
    /// How many of those may be held.
    pub max_services: u32,
    /// Places in each ring, a power of two.
    pub ring_size: u32,
    /// Rings less one, a power of two less one.
    pub ring_mask: u32,
    /// Inode of the only network namespace whose time-wait sockets are of interest; 0: all are.
    pub only_netns: u32,
    /// Non-zero: no probe watches the timers of time-wait sockets.
    pub time_wait_sampled: u32,
    /// Non-zero: this processor may show others two writes in another order.
    pub weakly_ordered: u32,
}

/// The size of a member, told by a function that gives it.
#[must_use]
pub const fn size_of_member<T>(_member: fn(&Constants) -> &T) -> usize {
    size_of::<T>()
}

const _: () = assert!(size_of::<Constants>() == 2 * 8 + size_of::<Offsets>() + 8 * 4);

#[cfg(feature = "user")]
crate::pod!(Constants);
