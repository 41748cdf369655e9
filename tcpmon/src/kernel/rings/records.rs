//! The records of all rings, in the order of their time.
//!
//! That is the order of what happened to any one socket that is not in TIME_WAIT: its transitions are
//! made under its lock, so that the one before is whole and on its ring before the next one takes
//! its time, or is on the same ring and has the same time. So that none is taken too early, a look
//! takes only what is older than itself: whatever such a record follows is on its ring by then. It
//! may stand behind one that is not whole yet, and cannot be taken; then the look takes nothing that
//! is younger than it.

use crate::kernel::{clock, mapped::Mapped};
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
    /// Only what is older is taken in this look.
    before: u64,
}

/// Where records are.
struct Places {
    shape: RingShape,
    slots: Mapped<Slot>,
}

impl Records {
    pub(super) fn new(shape: RingShape, slots: Mapped<Slot>, ends: Mapped<RingEnds>) -> Self {
        let places = Places { shape, slots };
        Self {
            places,
            ends,
            read: vec![0; shape.rings as usize],
            next: BinaryHeap::new(),
            before: 0,
        }
    }

    pub(super) fn shape(&self) -> RingShape {
        self.places.shape
    }

    /// See [`super::Rings::take`].
    pub(super) fn take(&mut self, records: &mut Vec<Transition>, most: usize) {
        self.before = u64::try_from(clock::of_probes().as_nanos()).unwrap_or(u64::MAX);
        self.next.clear();
        for ring in 0..self.shape().rings {
            self.queue(ring);
        }
        while records.len() < most
            && let Some(Reverse((_, ring))) = self.next.pop()
        {
            let Some(read) = self.read.get_mut(ring as usize) else { return };
            // As many of one ring as come before what the others have: mostly that is all.
            let until = self.next.peek().map_or(u64::MAX, |Reverse((ts_ns, _))| *ts_ns);
            while records.len() < most
                && let Some((place, ts_ns)) = self.places.find(ring, *read)
                && ts_ns < self.before
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
            self.queue(ring);
        }
    }

    /// Notes the ring's next record, if it is old enough. If that is not whole yet, nothing is old
    /// enough any more that may follow one of those behind it.
    fn queue(&mut self, ring: u32) {
        let Some(&read) = self.read.get(ring as usize) else { return };
        if let Some((_, ts_ns)) = self.places.find(ring, read) {
            if ts_ns < self.before {
                self.next.push(Reverse((ts_ns, ring)));
            }
            return;
        }
        let hidden = (read..self.claimed(ring)).skip(1);
        let oldest =
            hidden.filter_map(|number| self.places.find(ring, number)).map(|it| it.1).min();
        self.before = oldest.map_or(self.before, |ts_ns| self.before.min(ts_ns));
    }

    /// Records for which a place of the ring has been claimed.
    fn claimed(&self, ring: u32) -> u64 {
        let claimed = self.ends.word(ring, offset_of!(RingEnds, claimed));
        claimed.map_or(0, |claimed| claimed.load(Ordering::Acquire))
    }

    /// See [`super::Rings::are_empty`].
    pub(super) fn are_empty(&self) -> bool {
        let mut rings = self.read.iter().zip(0..);
        rings.all(|(&read, ring)| self.claimed(ring) == read)
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
    (0..ends.len())
        .filter_map(|ring| ends.word(ring, offset_of!(RingEnds, lost)))
        .map(|lost| lost.load(Ordering::Relaxed))
        .sum()
}

#[cfg(test)]
mod tests;
