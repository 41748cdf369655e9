//! Records for the daemon: see `tcpmon_common::Slot`.

use crate::{
    atomic::{add, commit, compare_and_swap, exchange},
    kernel::{constant, cpu},
    maps::{BELL, RING_ENDS, RING_SLOTS, control},
};
use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use tcpmon_common::{Slot, Transition};

/// How often a claim may be tried: others come first who interrupt this one, or share the ring. One
/// that fails as often is a loss.
const TRIES: u32 = 16;

/// Whether the daemon wants records.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    // SAFETY: a pointer into the table's only value; an old value is as good as a new one here.
    unsafe { (&raw const (*control()).streaming).read_volatile() != 0 }
}

/// A place for one record, to be given to [`submit`].
pub(crate) struct Claim {
    slot: *mut Slot,
    /// The record's number in its ring.
    number: u64,
    /// Records on the ring, this one not included.
    before: u64,
}

impl Claim {
    /// Where the record is to be written.
    #[inline(always)]
    pub(crate) fn record(&self) -> *mut Transition {
        // SAFETY: a pointer to a map's value.
        unsafe { &raw mut (*self.slot).record }
    }
}

/// Claims a place for one record; a full ring is counted as the loss of an event, unless the record
/// only adds to one that went before.
///
/// Between this and [`submit`] the reader waits for this record, and reads none of this ring that
/// comes after it.
#[inline(always)]
pub(crate) fn claim(is_event: bool) -> Option<Claim> {
    let ring = cpu() & constant!(ring_mask) as u32;
    let size = constant!(ring_size) as u32;
    let ends = RING_ENDS.get_ptr_mut(ring)?;
    // SAFETY: a pointer to a map's value.
    let (claimed, lost, read) =
        unsafe { (&raw mut (*ends).claimed, &raw mut (*ends).lost, &raw const (*ends).read) };
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        // SAFETY: as above. In this order, so that what is claimed and read in between makes the
        // ring seem too full: never too empty, unless the processor swaps the two.
        let (read, number) = unsafe { (read.read_volatile(), claimed.read_volatile()) };
        let before = number.wrapping_sub(read);
        if before == u64::from(size) {
            break;
        }
        // More than there are places: the two are of different moments.
        let is_one_moment = before < u64::from(size);
        // SAFETY: as above; shared with nothing but this and volatile reads.
        if is_one_moment && unsafe { compare_and_swap(claimed, number, number + 1) } == number {
            let place = number as u32 & (size - 1);
            let slot = RING_SLOTS.get_ptr_mut(ring * size + place)?;
            return Some(Claim { slot, number, before });
        }
    }
    if is_event {
        // SAFETY: as above.
        unsafe { add(lost, 1) };
    }
    None
}

/// Hands a record to the reader.
///
/// The reader drains the rings by a timer. It is woken only when it asked for it: while it sleeps,
/// by the first record, and while it drains, by the record that passes the high-water mark. Then
/// only once, until it asks again: a wake-up costs ten times what the rest of the program does.
#[inline(always)]
pub(crate) fn submit(claim: &Claim) {
    let turn = claim.number + 1;
    let control = control();
    // SAFETY: pointers to maps' values.
    unsafe {
        commit(&raw mut (*claim.slot).turn, turn);
        // The claim has been seen by whoever asked to be woken, or what it asked is seen here.
        let armed = &raw mut (*control).armed;
        if armed.read_volatile() != 0
            && claim.before >= (&raw const (*control).wake_above).read_volatile()
            && exchange(armed, 0) != 0
        {
            // In this order: whoever is asked again after that has been woken by this. There is
            // room, or an earlier call has not been heard yet.
            let _ = BELL.output::<u64>(turn, u64::from(BPF_RB_FORCE_WAKEUP));
        }
    }
}
