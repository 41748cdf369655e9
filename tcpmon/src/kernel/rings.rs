//! Reading the rings on which the probes put records, without a system call: they are mapped into
//! this process.

mod records;

use super::mapped::Mapped;
use aya::maps::{Array, MapData, RingBuf};
use records::Records;
use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{Ordering, fence},
};
use tcpmon_common::{Control, RingEnds, RingShape, Slot, Transition};

/// The rings of the loaded probes, for their only reader.
pub struct Rings {
    records: Records,
    control: Mapped<Control>,
    /// What a probe that wakes the reader writes to.
    bell: RingBuf<MapData>,
}

impl Rings {
    /// Of the loaded maps.
    pub(super) fn new(
        slots: &Array<MapData, Slot>,
        ends: &Array<MapData, RingEnds>,
        control: Mapped<Control>,
        bell: RingBuf<MapData>,
    ) -> io::Result<Self> {
        // As the maps were made.
        let rings = ends.len().max(1);
        let shape = RingShape { rings, slots: slots.len() / rings };
        let records = Records::new(shape, Mapped::new(slots)?, Mapped::new(ends)?);
        Ok(Self { records, control, bell })
    }

    /// Places in each ring.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.records.shape().slots
    }

    /// Appends what is on the rings, the oldest first, until there are `most` in `records`. What
    /// was put there before the call is among it, unless `most` were found.
    pub fn take(&mut self, records: &mut Vec<Transition>, most: usize) {
        self.records.take(records, most);
    }

    /// Whether all records for which a place has been claimed have been read.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.records.are_empty()
    }

    /// Records that found no place, since the probes were loaded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.records.lost()
    }

    /// Tells the probes whether records are wanted, and above how many on a ring the reader is to
    /// be woken, if it is. A record that comes after this wakes the reader, or is seen by
    /// [`Self::are_empty`].
    pub fn tell(&self, streaming: bool, wake_above: Option<u64>) {
        let write = |offset, word| {
            if let Some(place) = self.control.word(0, offset) {
                place.store(word, Ordering::Release);
            }
        };
        write(offset_of!(Control, wake_above), wake_above.unwrap_or(u64::MAX));
        write(offset_of!(Control, armed), u64::from(wake_above.is_some()));
        write(offset_of!(Control, streaming), u64::from(streaming));
        // Before what is looked at next: a probe that claimed its place too early to be seen then
        // has yet to look whether to wake the reader, which its claim does not overtake either.
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
        records::lost(&self.0)
    }
}
