//! Reading the rings on which the probes put records, without a system call: they are mapped into
//! this process.
//!
//! Records are taken in the order of their time, whichever ring they are on. That is the order of
//! what happened to any one socket: its transitions are made under its lock, so that the one before
//! is on its ring before the next one takes its time. So that none is taken too early, a look takes
//! only what is older than itself: what a record of that age follows has been on its ring by then.

use super::{clock, mapped::Mapped};
use aya::maps::{Array, MapData, RingBuf};
use rustix::time::ClockId;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};
use tcpmon_common::{Control, RingEnds, RingShape, Slot, Transition};

/// The rings of the loaded probes.
pub struct Rings {
    shape: RingShape,
    slots: Mapped<Slot>,
    ends: Mapped<RingEnds>,
    control: Mapped<Control>,
    /// What a probe that wakes the reader writes to.
    bell: RingBuf<MapData>,
    /// Records read, by ring.
    read: Vec<u64>,
    /// Rings with a record that is old enough: its time, and which ring.
    next: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Rings {
    /// Of the loaded maps.
    pub(super) fn new(
        shape: RingShape,
        slots: &Array<MapData, Slot>,
        ends: &Array<MapData, RingEnds>,
        control: &Array<MapData, Control>,
        bell: RingBuf<MapData>,
    ) -> io::Result<Self> {
        Ok(Self {
            shape,
            slots: Mapped::new(slots)?,
            ends: Mapped::new(ends)?,
            control: Mapped::new(control)?,
            bell,
            read: vec![0; shape.rings as usize],
            next: BinaryHeap::new(),
        })
    }

    /// Places in each ring.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.shape.slots
    }

    /// Appends what is on the rings, the oldest first, until `records` has `most`. What was put
    /// there before the call is among it, unless `most` were found.
    pub fn take(&mut self, records: &mut Vec<Transition>, most: usize) {
        let now = u64::try_from(clock::read(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX);
        self.next.clear();
        for ring in 0..self.shape.rings {
            self.queue(ring, now);
        }
        while let Some(Reverse((_, ring))) = self.next.pop() {
            // Of one ring as many as may come before what the others have: mostly that is all.
            let last = now.saturating_sub(1);
            let until = self.next.peek().map_or(last, |Reverse((ts_ns, _))| *ts_ns);
            let Some(read) = self.read.get_mut(ring as usize) else { continue };
            while records.len() < most {
                let Some(record) = record_at(&self.slots, self.shape, ring, *read, until) else {
                    break;
                };
                records.push(record);
                *read += 1;
            }
            self.give_back(ring);
            if records.len() >= most {
                break;
            }
            self.queue(ring, now);
        }
    }

    /// Notes the ring's next record, if it is older than `now`.
    fn queue(&mut self, ring: u32, now: u64) {
        let Some(&read) = self.read.get(ring as usize) else { return };
        if let Some(slot) = slot_at(&self.slots, self.shape, ring, read) {
            // SAFETY: the record is whole, and no probe writes to it before it has been read.
            let ts_ns = unsafe { (&raw const (*slot).record.ts_ns).read() };
            if ts_ns < now {
                self.next.push(Reverse((ts_ns, ring)));
            }
        }
    }

    /// Lets the probes have the places of what has been read.
    fn give_back(&self, ring: u32) {
        if let (Some(ends), Some(&read)) = (self.ends.place(ring), self.read.get(ring as usize)) {
            // SAFETY: a pointer into the map, aligned; written here alone, and read by whole words.
            let place = unsafe { AtomicU64::from_ptr(&raw mut (*ends.as_ptr()).read) };
            place.store(read, Ordering::Release);
        }
    }

    /// Whether all records for which a place has been claimed have been read.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.read.iter().zip(0..).all(|(&read, ring)| {
            self.ends.get(ring).is_none_or(|ends: RingEnds| ends.claimed == read)
        })
    }

    /// Records that found no place, since the probes were loaded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lost(&self.ends)
    }

    /// Tells the probes whether records are wanted, and above how many on a ring the reader is to
    /// be woken, if it is. A record that comes after this wakes the reader, or is seen by
    /// [`Self::are_empty`].
    pub fn tell(&self, streaming: bool, wake_above: Option<u64>) {
        let Some(control) = self.control.place(0) else { return };
        let control = control.as_ptr();
        // SAFETY: pointers into the map, aligned; the probes use whole words.
        unsafe {
            AtomicU64::from_ptr(&raw mut (*control).wake_above)
                .store(wake_above.unwrap_or(u64::MAX), Ordering::Relaxed);
            AtomicU32::from_ptr(&raw mut (*control).armed)
                .store(u32::from(wake_above.is_some()), Ordering::Release);
            AtomicU32::from_ptr(&raw mut (*control).streaming)
                .store(u32::from(streaming), Ordering::Release);
        }
        fence(Ordering::SeqCst);
    }

    /// Takes notice of having been woken.
    pub fn hush(&mut self) {
        while self.bell.next().is_some() {}
    }
}

impl AsFd for Rings {
    /// Becomes readable, as an edge, when a probe wakes the reader.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// The record number `number` of a ring, once it is there and if it is not younger than `until`.
fn record_at(
    slots: &Mapped<Slot>,
    shape: RingShape,
    ring: u32,
    number: u64,
    until: u64,
) -> Option<Transition> {
    let slot = slot_at(slots, shape, ring, number)?;
    // SAFETY: as in `Rings::queue`; any bytes are a record.
    unsafe {
        let is_due = (&raw const (*slot).record.ts_ns).read() <= until;
        is_due.then(|| (&raw const (*slot).record).read())
    }
}

/// Where the record number `number` of a ring is, once it is there.
fn slot_at(slots: &Mapped<Slot>, shape: RingShape, ring: u32, number: u64) -> Option<*const Slot> {
    let place = u32::try_from(number & u64::from(shape.slots - 1)).ok()?;
    let slot = slots.place(ring * shape.slots + place)?.as_ptr();
    // SAFETY: a pointer into the map, aligned; the probes write it as a whole word, and last.
    let turn = unsafe { AtomicU64::from_ptr(&raw mut (*slot).turn) };
    (turn.load(Ordering::Acquire) == number + 1).then_some(slot.cast_const())
}

/// What found no place on the rings, for those who do not read them.
pub struct RingLosses(Mapped<RingEnds>);

impl RingLosses {
    /// Of the loaded map.
    pub(super) fn new(ends: &Array<MapData, RingEnds>) -> io::Result<Self> {
        Mapped::new(ends).map(Self)
    }

    /// Records that found no place, since the probes were loaded.
    #[must_use]
    pub fn total(&self) -> u64 {
        lost(&self.0)
    }
}

fn lost(ends: &Mapped<RingEnds>) -> u64 {
    (0..ends.len()).filter_map(|ring| ends.get(ring)).map(|ends| ends.lost).sum()
}
