//! Records on the ring buffer, without a wake-up for each.

use crate::maps::{CONTROL, EVENTS, RING_LOST};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    maps::ring_buf::RingBufEntry,
};
use tcpmon_common::{Control, Transition};

/// Room for one record on the ring, and what the daemon wants done with it.
pub(crate) struct Slot {
    entry: RingBufEntry<Transition>,
    control: *mut Control,
}

impl Slot {
    /// Room for a record, if anybody listens and there is some. A full ring is counted as the loss
    /// of an event, unless the record only adds to one that went before.
    ///
    /// The reader has had the memory last, so that the first write to each line of it waits for
    /// another processor. Whoever asks early has these on their way while it works; to hand the
    /// record over waits for all of them.
    #[inline(always)]
    pub(crate) fn begin(is_event: bool) -> Option<Self> {
        let control = wanted()?;
        let mut entry = reserve(is_event)?;
        let record: *mut Transition = entry.as_mut_ptr();
        // SAFETY: `record` is as large as a `Transition`.
        unsafe {
            (&raw mut (*record).ts_ns).write_volatile(0);
            (&raw mut (*record).comm).cast::<u64>().write_volatile(0);
        }
        Some(Self { entry, control })
    }

    /// Where the record is to be written.
    #[inline(always)]
    pub(crate) fn record(&mut self) -> *mut Transition {
        self.entry.as_mut_ptr()
    }

    /// Hands the record to the reader.
    #[inline(always)]
    pub(crate) fn submit(self, ts_ns: u64) {
        submit(self.entry, self.control, ts_ns);
    }
}

/// What the daemon wants now, if it wants records.
#[inline(always)]
fn wanted() -> Option<*mut Control> {
    let control = CONTROL.get_ptr_mut(0)?;
    // SAFETY: a pointer into the map's only value; the daemon writes it whole, and an old value
    // is as good as a new one here.
    let streaming = unsafe { (&raw const (*control).streaming).read_volatile() };
    (streaming != 0).then_some(control)
}

/// Room for one record, to be given to [`submit`].
#[inline(always)]
fn reserve(is_event: bool) -> Option<RingBufEntry<Transition>> {
    let entry = EVENTS.reserve::<Transition>(0);
    if entry.is_none()
        && is_event
        && let Some(lost) = RING_LOST.get_ptr_mut(0)
    {
        // SAFETY: this CPU's own value.
        unsafe { *lost += 1 };
    }
    entry
}

/// Hands a record to the reader.
///
/// The reader drains the ring by a timer. It is woken only when it asked for it: while it sleeps,
/// by the first record, and while it drains, by the record that passes the high-water mark. Then
/// only once, until it asks again: a wake-up costs ten times what the rest of the program does.
#[inline(always)]
fn submit(entry: RingBufEntry<Transition>, control: *mut Control, ts_ns: u64) {
    // SAFETY: a pointer into the map's only value; a race only makes a wake-up come twice.
    let wake = unsafe {
        (&raw const (*control).armed).read_volatile() != 0
            && has_passed((&raw const (*control).wake_above).read_volatile(), ts_ns)
    };
    if wake {
        // SAFETY: as above.
        unsafe { (&raw mut (*control).armed).write_volatile(0) };
        entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    } else {
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
}

/// Whether the ring holds that many bytes. Asked for one record in 32, drawn by the last bits of
/// its time: the answer costs a line of the cache that the reader writes to, and half a ring is
/// far more than 32 records.
#[inline(always)]
fn has_passed(mark: u64, ts_ns: u64) -> bool {
    mark == 0 || (ts_ns & 31 == 0 && EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= mark)
}
