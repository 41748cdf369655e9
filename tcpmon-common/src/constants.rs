//! What the daemon knows before it loads the probes, and the probes have as constants.
//!
//! They stand in the probes' code itself: where one is used, an instruction loads a number of 64
//! bits (`BPF_LD | BPF_IMM | BPF_DW`), which in the object is a [`placeholder`]; the daemon puts the
//! value there before it loads the object. In read-only data, as is usual, each use would be a read
//! from a line of the cache that the kernel's own work on the connection has pushed out, before the
//! probe can read what it is about.

use crate::offsets::Offsets;

/// The numbers that the daemon puts into the probes' code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Constants {
    /// Address of `tw_timer_handler()`, by which the timers of time-wait sockets are told from all
    /// others; 0: no probe watches timers.
    pub tw_handler: u64,
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

/// The upper half of every placeholder, and of no other number in the probes' code.
const MARK: u64 = 0xe7c5_91b3;

/// What stands in the object for the member of [`Constants`] that has this offset and that size, in
/// bytes.
#[must_use]
pub const fn placeholder(offset: usize, size: usize) -> u64 {
    assert!(size == 4 || size == 8, "a member of Constants");
    assert!(offset + size <= size_of::<Constants>(), "a member of Constants");
    MARK << 32 | (size as u64) << 16 | offset as u64
}

/// The offset and the size of the member that a number stands for; `None` for any other number.
#[must_use]
pub const fn stands_for(number: u64) -> Option<(usize, usize)> {
    if number >> 32 != MARK {
        return None;
    }
    Some(((number & 0xffff) as usize, (number >> 16 & 0xffff) as usize))
}

/// The size of a member, told by a function that gives it.
#[must_use]
pub const fn size_of_member<T>(_member: fn(&Constants) -> &T) -> usize {
    size_of::<T>()
}

const _: () = assert!(size_of::<Constants>() == 8 + size_of::<Offsets>() + 8 * 4);

#[cfg(feature = "user")]
crate::pod!(Constants);

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn a_placeholder_tells_which_member_it_stands_for() {
        let handler = placeholder(0, size_of_member(|constants| &constants.tw_handler));
        assert_eq!(stands_for(handler), Some((0, 8)));
        let offset = offset_of!(Constants, offsets.net_inum);
        let inode = placeholder(offset, size_of_member(|constants| &constants.offsets.net_inum));
        assert_eq!(stands_for(inode), Some((offset, 4)));
        for number in [0, u64::MAX, u64::from(u32::MAX), MARK, 60_000_000_000] {
            assert_eq!(stands_for(number), None);
        }
    }
}
