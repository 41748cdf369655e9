//! The reader: a thread of its own that empties the ring and does nothing else.
//!
//! It hands whole batches to the hub through a short queue. When the hub is behind, the reader
//! waits and the ring fills; what then finds no room is counted in the kernel, so that a loss is
//! told in one place and no total is ever wrong.
//!
//! A wake-up for every record would cost more than all the rest. So while records come, the
//! reader looks every few milliseconds, and is woken only when the ring is half full. Once
//! nothing has come for a while it asks for the next record to wake it, and sleeps: an idle host
//! costs nothing, and the first event after the silence is shown as fast as any.

use super::{heart::Pulse, hub::TOLD_WITHIN, pipeline::Health};
use crate::kernel::privileges::{self, Role};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
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
use tcpmon_common::{Control, Transition};

/// How often the ring is looked at while records come.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long the reader sleeps at most while there are streams.
const SLEEP: Duration = Duration::from_secs(1);
/// Looks in vain after which the reader sleeps until it is woken.
const PATIENCE: u32 = 8;
/// Records in a batch at most: what the hub works on at a time.
const BATCH: usize = 16_384;
/// Records in a batch below which there are more spare vectors than needed.
const CALM: usize = BATCH / 8;
/// Batches that wait for the hub at most.
pub const QUEUED_BATCHES: usize = 16;

/// What one look at the ring brought.
#[derive(Debug)]
pub struct Batch {
    /// Records in the order of the ring.
    pub records: Vec<Transition>,
    /// When the look began: what had been put on the ring by then is in this batch or an earlier.
    pub looked: Instant,
    /// Records lost for want of room on the ring, since the probes were loaded.
    pub lost_total: u64,
    /// The probes did not put records on the ring before this batch.
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

    /// Whether the probes are to put records on the ring. To be called under the caller's lock.
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

/// The maps that the reader alone uses.
pub struct Ring {
    /// Records.
    pub events: RingBuf<MapData>,
    /// What the probes are to do.
    pub control: Array<MapData, Control>,
    /// Records lost.
    pub lost: PerCpuArray<MapData, u64>,
    /// Size of the ring in bytes.
    pub bytes: u64,
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
    ring: Ring,
    control: ReaderControl,
    batches: SyncSender<Batch>,
    spares: Receiver<Vec<Transition>>,
    health: Health,
) -> io::Result<JoinHandle<()>> {
    let waiter = waiter(&control.0.bell, ring.events.as_fd())?;
    std::thread::Builder::new().name("tcpmon-reader".to_owned()).spawn(move || {
        privileges::shed(Role::Other);
        health.watch(|| {
            let mut reader =
                Reader { ring, control, batches, spares, waiter, streaming: false, told: 0 };
            if let Err(error) = reader.run() {
                log::error!("the reader of the ring buffer stopped: {error}; restart tcpmon");
            }
        });
    })
}

struct Reader {
    ring: Ring,
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
        loop {
            self.control.0.pulse.beat();
            if self.control.0.stop.load(Ordering::SeqCst) {
                return self.tell(false, None);
            }
            let wanted = self.control.0.wanted.load(Ordering::SeqCst);
            if wanted != self.told {
                self.streaming = wanted % 2 == 1;
                if self.streaming && !self.begin()? {
                    return self.tell(false, None);
                }
                self.tell(self.streaming, None)?;
                self.told = wanted;
                *self.control.0.told.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
                self.control.0.telling.notify_all();
                in_vain = 0;
            }
            let started = Instant::now();
            let Some((found, more)) = self.drain()? else {
                // The hub has gone: the daemon is ending.
                return self.tell(false, None);
            };
            if more {
                continue;
            }
            in_vain = if found { 0 } else { in_vain + 1 };
            if !self.streaming {
                self.wait(None)?;
            } else if in_vain > PATIENCE {
                self.tell(true, Some(0))?;
                // A record may have come since the last look and before the probes were told.
                if !self.drain()?.is_none_or(|(found, _)| found) {
                    // Not for ever: a probe that had reserved its record by then, and had looked
                    // whether to wake the reader before it was asked to, wakes nobody.
                    self.wait(Some(SLEEP))?;
                }
                in_vain = 0;
            } else {
                self.tell(true, Some(self.ring.bytes / 2))?;
                self.wait(Some(INTERVAL.saturating_sub(started.elapsed())))?;
            }
        }
    }

    /// Takes what is on the ring, up to one batch: whether there was any, and whether there may
    /// be more. `None` once nobody takes batches.
    fn drain(&mut self) -> io::Result<Option<(bool, bool)>> {
        let looked = Instant::now();
        let mut records = self.spares.try_recv().unwrap_or_default();
        while records.len() < BATCH {
            let Some(item) = self.ring.events.next() else { break };
            if item.len() == size_of::<Transition>() {
                // SAFETY: the probes put nothing else than whole `Transition`s on this ring, the
                // length was checked, and any bytes are a value of it.
                records.push(unsafe { item.as_ptr().cast::<Transition>().read_unaligned() });
            }
        }
        let wanted = self.control.0.wanted_batch.swap(false, Ordering::SeqCst);
        if records.is_empty() && !self.streaming && !wanted {
            return Ok(Some((false, false)));
        }
        let (found, more) = (!records.is_empty(), records.len() == BATCH);
        if records.len() < CALM {
            // Vectors that a hub which was behind has given back, one at a time: it may be again.
            drop(self.spares.try_recv());
        }
        let lost_total = self.lost_total()?;
        if self.batches.send(Batch { records, looked, lost_total, begins: false }).is_err() {
            return Ok(None);
        }
        Ok(Some((found, more)))
    }

    /// Tells the hub that a stream begins: what was lost before is nobody's loss. False once
    /// nobody takes batches.
    fn begin(&mut self) -> io::Result<bool> {
        let lost_total = self.lost_total()?;
        let (records, looked) = (Vec::new(), Instant::now());
        Ok(self.batches.send(Batch { records, looked, lost_total, begins: true }).is_ok())
    }

    fn lost_total(&self) -> io::Result<u64> {
        Ok(self.ring.lost.get(&0, 0).map_err(io::Error::other)?.iter().sum())
    }

    fn tell(&mut self, streaming: bool, wake_above: Option<u64>) -> io::Result<()> {
        let control = Control {
            streaming: u32::from(streaming),
            armed: u32::from(wake_above.is_some()),
            wake_above: wake_above.unwrap_or(u64::MAX),
        };
        self.ring.control.set(0, control, 0).map_err(io::Error::other)
    }

    fn wait(&self, at_most: Option<Duration>) -> io::Result<()> {
        let timeout = at_most.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut events: [MaybeUninit<epoll::Event>; 2] = [const { MaybeUninit::uninit() }; 2];
        match epoll::wait(&self.waiter, &mut events, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.control.silence();
        Ok(())
    }
}

/// What wakes the reader: its bell, and the ring when a probe forces a wake-up.
///
/// The ring is watched for edges: by level it would be ready whenever it is not empty, and the
/// reader would never sleep (`ringbuf_map_poll_kern()` in kernel/bpf/ringbuf.c).
fn waiter(bell: impl AsFd, ring: impl AsFd) -> io::Result<OwnedFd> {
    let waiter = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&waiter, bell, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&waiter, ring, epoll::EventData::new_u64(1), edges)?;
    Ok(waiter)
}
