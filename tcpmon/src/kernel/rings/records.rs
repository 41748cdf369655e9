//! The records of all rings, in the order of their time.
//!
//! That is the order of what happened to any one socket: its transitions are made under its lock,
//! so that the one before is on its ring before the next one takes its time. So that none is taken
//! too early, a look takes only what is older than itself: whatever such a record follows has been
//! on its ring by then.

use crate::kernel::{clock, mapped::Mapped};
use rustix::time::ClockId;
use std::{cmp::Reverse, collections::BinaryHeap, mem::offset_of, sync::atomic::Ordering};
use tcpmon_common::{RingEnds, RingShape, Slot, Transition};

/// The rings, for their only reader.
pub(super) struct Records {
    places: Places,
    ends: Mapped<RingEnds>,
    /// Records read, by ring.
    read: Vec<u64>,
    /// Rings with a record that is old enough: its time, and which ring.
    next: BinaryHeap<Reverse<(u64, u32)>>,
}

/// Where records are.
struct Places {
    shape: RingShape,
    slots: Mapped<Slot>,
}

impl Records {
    pub(super) fn new(shape: RingShape, slots: Mapped<Slot>, ends: Mapped<RingEnds>) -> Self {
        let places = Places { shape, slots };
        Self { places, ends, read: vec![0; shape.rings as usize], next: BinaryHeap::new() }
    }

    pub(super) fn shape(&self) -> RingShape {
        self.places.shape
    }

    /// See [`super::Rings::take`].
    pub(super) fn take(&mut self, records: &mut Vec<Transition>, most: usize) {
        let now = u64::try_from(clock::read(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX);
        self.next.clear();
        for ring in 0..self.shape().rings {
            self.queue(ring, now);
        }
        while records.len() < most
            && let Some(Reverse((_, ring))) = self.next.pop()
        {
            let Some(read) = self.read.get_mut(ring as usize) else { return };
            // As many of one ring as come before what the others have: mostly that is all.
            let until = self.next.peek().map_or(now, |Reverse((ts_ns, _))| *ts_ns);
            while records.len() < most
                && let Some((place, ts_ns)) = self.places.find(ring, *read)
                && ts_ns < now
                && ts_ns <= until
                && let Some(slot) = self.places.slots.get(place)
            {
                records.push(slot.record);
                *read += 1;
            }
            if let Some(place) = self.ends.word(ring, offset_of!(RingEnds, read)) {
                // From here on the probes write to the places of what has been read.
                place.store(*read, Ordering::Release);
            }
            self.queue(ring, now);
        }
    }

    /// Notes the ring's next record, if it is older than `now`.
    fn queue(&mut self, ring: u32, now: u64) {
        let Some(&read) = self.read.get(ring as usize) else { return };
        if let Some((_, ts_ns)) = self.places.find(ring, read)
            && ts_ns < now
        {
            self.next.push(Reverse((ts_ns, ring)));
        }
    }

    /// See [`super::Rings::are_empty`].
    pub(super) fn are_empty(&self) -> bool {
        let mut rings = self.read.iter().zip(0..);
        rings.all(|(&read, ring)| self.ends.get(ring).is_none_or(|ends| ends.claimed == read))
    }

    /// See [`super::Rings::lost`].
    pub(super) fn lost(&self) -> u64 {
        lost(&self.ends)
    }
}

impl Places {
    /// Where a ring's record of that number is, and its time, once it is there. It stays until it
    /// has been read.
    fn find(&self, ring: u32, number: u64) -> Option<(u32, u64)> {
        const TIME: usize = offset_of!(Slot, record) + offset_of!(Transition, ts_ns);
        let inside = u32::try_from(number & u64::from(self.shape.slots - 1)).ok()?;
        let place = ring * self.shape.slots + inside;
        let turn = self.slots.word(place, offset_of!(Slot, turn))?.load(Ordering::Acquire);
        if turn != number + 1 {
            return None;
        }
        Some((place, self.slots.word(place, TIME)?.load(Ordering::Relaxed)))
    }
}

/// Records that found no place.
pub(super) fn lost(ends: &Mapped<RingEnds>) -> u64 {
    (0..ends.len()).filter_map(|ring| ends.get(ring)).map(|ends| ends.lost).sum()
}

#[cfg(test)]
mod tests;
