//! The rings by which records go from the probes to the daemon.
//!
//! The kernel's own ring buffer has one lock for all CPUs, and hands each record over by an
//! exchange that waits until the record's lines of the cache have come from the CPU that read
//! there last. These rings have neither: a CPU has one almost to itself, a place is claimed by a
//! compare-and-swap, and a record is handed over by the plain write of one number.
//!
//! A ring is `slots` places, a power of two. The place of the record with the number `n`, counted
//! from 0, is `n` modulo `slots`; the record is there once the place's `turn` is `n + 1`. The reader
//! alone writes [`RingEnds::read`], and a place is free again when that has passed it.

use crate::record::Transition;

/// One place of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// What the probes saw.
    pub record: Transition,
    /// The record's number in its ring plus 1, written when the record is whole.
    pub turn: u64,
}

/// Size of a [`Slot`].
const SLOT_BYTES: u32 = 112;

/// How far a ring has been filled, and how far it has been read: each on a line of the cache of its
/// own, since different CPUs write to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(128))]
pub struct RingEnds {
    /// Records for which a place has been claimed.
    pub claimed: u64,
    /// Records for which there was no place.
    pub lost: u64,
    unused: [u64; 6],
    /// Records that have been read.
    pub read: u64,
    unused_too: [u64; 7],
}

/// How many rings there are, and how large each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingShape {
    /// Rings, a power of two: a CPU's is its number modulo this.
    pub rings: u32,
    /// Places in each, a power of two.
    pub slots: u32,
}

impl RingShape {
    /// A ring that CPUs share is better than one that a burst fills before the reader comes: this is
    /// 20 ms of 200,000 records a second, on one CPU.
    const ENOUGH_SLOTS: u32 = 4_096;

    /// Rings that take at most `bytes` together (but have sixteen places at least), for that many
    /// CPUs.
    #[must_use]
    pub const fn new(bytes: u32, cpus: u32) -> Self {
        let mut slots = bytes / SLOT_BYTES;
        slots = if slots < 16 { 16 } else { 1 << slots.ilog2() };
        let mut rings = 1;
        while rings < cpus && slots / 2 >= Self::ENOUGH_SLOTS {
            rings *= 2;
            slots /= 2;
        }
        Self { rings, slots }
    }

    /// Places in all rings together.
    #[must_use]
    pub const fn all_slots(self) -> u32 {
        self.rings * self.slots
    }
}

const _: () = {
    assert!(size_of::<Slot>() == SLOT_BYTES as usize);
    assert!(size_of::<RingEnds>() == 128);
    assert!(core::mem::offset_of!(RingEnds, read) == 64);
};

#[cfg(feature = "user")]
crate::pod!(Slot, RingEnds);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_as_many_as_cpus_where_there_is_room() {
        let table = [
            // bytes, cpus, rings, slots
            (4 << 20, 1, 1, 32_768),
            (4 << 20, 2, 2, 16_384),
            (4 << 20, 3, 4, 8_192),
            (4 << 20, 128, 8, 4_096),
            (4_096, 2, 1, 32),
            (1, 2, 1, 16),
            (1 << 30, 64, 64, 131_072),
        ];
        for (bytes, cpus, rings, slots) in table {
            let shape = RingShape::new(bytes, cpus);
            assert_eq!(shape, RingShape { rings, slots }, "{bytes} bytes, {cpus} CPUs");
            assert!(
                bytes < 4_096 || shape.all_slots() as usize * size_of::<Slot>() <= bytes as usize
            );
        }
    }
}
