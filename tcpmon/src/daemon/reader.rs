//! The reader: a thread of its own that empties the rings and does nothing else.
//!
//! It hands whole batches to the hub through a short queue. When the hub is behind, the reader
//! waits and the rings fill; what then finds no room is counted in the kernel, so that a loss is
//! told in one place and no total is ever wrong.
//!
//! A wake-up for every record would cost more than all the rest. So while records come, the
//! reader looks every few milliseconds, and is woken only when a ring is half full. Once
//! nothing has come for a while it asks for the next record to wake it, and sleeps: an idle host
//! costs nothing, and the first event after the silence is shown as fast as any.

use super::{heart::Pulse, hub::TOLD_WITHIN, pipeline::Health};
use crate::kernel::{
    privileges::{self, Role},
    rings::Rings,
};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tcpmon_common::Transition;

/// How often the rings are looked at while records come.
const INTERVAL: Duration = Duration::from_millis(5);
/// The same after the first record that ended a silence: mostly others follow at once, and one of
/// them tells its port.
const FIRST_INTERVAL: Duration = Duration::from_millis(1);
/// Looks in vain after which the reader sleeps until it is woken.
const PATIENCE: u32 = 8;
/// Records in a batch at most: what the hub works on at a time.
const BATCH: usize = 16_384;
/// Records in a batch below which there are more spare vectors than needed.
const CALM: usize = BATCH / 8;
/// Batches that wait for the hub at most.
pub const QUEUED_BATCHES: usize = 16;

/// What one look at the rings brought.
#[derive(Debug)]
pub struct Batch {
    /// Records in the order of their time.
    pub records: Vec<Transition>,
    /// When the look began: what had been put on a ring by then is in this batch or an earlier.
    pub looked: Instant,
    /// Records lost for want of room on the rings, since the probes were loaded.
    pub lost_total: u64,
    /// The probes did not put records on the rings before this batch.
    pub begins: bool,
}

/// Tells the reader what to do, from any thread.
#[derive(Debug, Clone)]
pub struct ReaderControl(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What is wanted: a number that grows with each change, odd while records are wanted.
    wanted: AtomicU64,
    stop: AtomicBool,
    /// The reader is to hand a batch over even if there is nothing in it.
    wanted_batch: AtomicBool,
    pulse: Pulse,
    bell: OwnedFd,
    /// What the probes have been told last, by the same numbers.
    told: Mutex<u64>,
    telling: Condvar,
}

impl ReaderControl {
    /// # Errors
    ///
    /// Where the process may not open another descriptor.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared {
            wanted: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            wanted_batch: AtomicBool::new(false),
            pulse: Pulse::default(),
            bell,
            told: Mutex::new(0),
            telling: Condvar::new(),
        })))
    }

    /// Whether the probes are to put records on the rings. To be called under the caller's lock.
    pub fn stream(&self, wanted: bool) {
        let before = self.0.wanted.load(Ordering::SeqCst);
        if (before % 2 == 1) != wanted {
            self.0.wanted.store(before + 1, Ordering::SeqCst);
            self.ring();
        }
    }

    /// Waits until the probes have been told what is wanted now, or the reader has ended.
    pub fn wait_until_told(&self) {
        let wanted = self.0.wanted.load(Ordering::SeqCst);
        let told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that is stuck has more to say than this; the stream begins late then.
        let _ = self.0.telling.wait_timeout_while(told, TOLD_WITHIN, |told| *told < wanted);
    }

    /// Has the reader, and the hub behind it, go round once, though there be nothing to do.
    pub fn ring_up(&self) {
        self.0.wanted_batch.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Beats with every round of the reader.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.0.pulse.clone()
    }

    /// Ends the reader.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.ring();
    }

    fn ring(&self) {
        // A bell that has been rung too often to count rings all the same.
        let _ = rustix::io::write(&self.0.bell, &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.0.bell, &mut count);
    }
}

/// Starts the reader.
///
/// Batches go to `batches`; emptied vectors come back by `spares`, so that no memory is asked for
/// in the steady state.
///
/// # Errors
///
/// Where no thread can be started.
pub fn start(
    rings: Rings,
    control: ReaderControl,
    batches: SyncSender<Batch>,
    spares: Receiver<Vec<Transition>>,
    health: Health,
) -> io::Result<JoinHandle<()>> {
    let waiter = waiter(&control.0.bell, &rings)?;
    std::thread::Builder::new().name("tcpmon-reader".to_owned()).spawn(move || {
        privileges::shed(Role::Other);
        health.watch(|| {
            let mut reader =
                Reader { rings, control, batches, spares, waiter, streaming: false, told: 0 };
            if let Err(error) = reader.run() {
                log::error!("the reader of the rings stopped: {error}; restart tcpmon");
            }
        });
    })
}

struct Reader {
    rings: Rings,
    control: ReaderControl,
    batches: SyncSender<Batch>,
    spares: Receiver<Vec<Transition>>,
    waiter: OwnedFd,
    streaming: bool,
    /// What the probes have been told last: see [`Shared::wanted`].
    told: u64,
}

impl Reader {
    fn run(&mut self) -> io::Result<()> {
        let mut in_vain = 0;
        let mut interval = INTERVAL;
        loop {
            self.control.0.pulse.beat();
            if self.control.0.stop.load(Ordering::SeqCst) {
                self.rings.tell(false, None);
                return Ok(());
            }
            let wanted = self.control.0.wanted.load(Ordering::SeqCst);
            if wanted != self.told {
                self.streaming = wanted % 2 == 1;
                if self.streaming && !self.begin() {
                    self.rings.tell(false, None);
                    return Ok(());
                }
                self.rings.tell(self.streaming, None);
                self.told = wanted;
                *self.control.0.told.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
                self.control.0.telling.notify_all();
                in_vain = 0;
            }
            let started = Instant::now();
            let Some((found, more)) = self.drain() else {
                // The hub has gone: the daemon is ending.
                self.rings.tell(false, None);
                return Ok(());
            };
            if more {
                continue;
            }
            in_vain = if found { 0 } else { in_vain + 1 };
            if !self.streaming {
                self.wait(None)?;
            } else if in_vain > PATIENCE {
                self.rings.tell(true, Some(0));
                // A record may have come since the last look and before the probes were told.
                if self.rings.are_empty() {
                    self.wait(None)?;
                }
                in_vain = 0;
                interval = FIRST_INTERVAL;
            } else {
                self.rings.tell(true, Some(u64::from(self.rings.slots() / 2)));
                self.wait(Some(interval.saturating_sub(started.elapsed())))?;
                interval = INTERVAL;
            }
        }
    }

    /// Takes what is on the rings, up to one batch: whether there was any, and whether there may
    /// be more. `None` once nobody takes batches.
    fn drain(&mut self) -> Option<(bool, bool)> {
        let looked = Instant::now();
        let mut records = self.spares.try_recv().unwrap_or_default();
        self.rings.take(&mut records, BATCH);
        let wanted = self.control.0.wanted_batch.swap(false, Ordering::SeqCst);
        if records.is_empty() && !self.streaming && !wanted {
            return Some((false, false));
        }
        let (found, more) = (!records.is_empty(), records.len() == BATCH);
        if records.len() < CALM {
            // Vectors that a hub which was behind has given back, one at a time: it may be again.
            drop(self.spares.try_recv());
        }
        let lost_total = self.rings.lost();
        if self.batches.send(Batch { records, looked, lost_total, begins: false }).is_err() {
            return None;
        }
        Some((found, more))
    }

    /// Tells the hub that a stream begins: what was lost before is nobody's loss, and what probes put
    /// on the rings after the last stream had ended is nobody's event. False once nobody takes
    /// batches.
    fn begin(&mut self) -> bool {
        let mut nobodys = Vec::new();
        loop {
            nobodys.clear();
            self.rings.take(&mut nobodys, BATCH);
            if nobodys.len() < BATCH {
                break;
            }
        }
        let lost_total = self.rings.lost();
        let (records, looked) = (Vec::new(), Instant::now());
        self.batches.send(Batch { records, looked, lost_total, begins: true }).is_ok()
    }

    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        let timeout = at_most.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut events: [MaybeUninit<epoll::Event>; 2] = [const { MaybeUninit::uninit() }; 2];
        match epoll::wait(&self.waiter, &mut events, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.control.silence();
        self.rings.hush();
        Ok(())
    }
}

/// What wakes the reader: its bell, and a probe that forces a wake-up, as an edge.
fn waiter(bell: impl AsFd, rings: impl AsFd) -> io::Result<OwnedFd> {
    let waiter = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&waiter, bell, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&waiter, rings, epoll::EventData::new_u64(1), edges)?;
    Ok(waiter)
}
