//! The way from the probes to the subscribers, as one thing to start and to stop: for the daemon,
//! and for a `tail` that has no daemon to ask.

use super::{
    hub::{self, Hub},
    names::Names,
    reader::{self, QUEUED_BATCHES, ReaderControl, Ring},
    sampler::Sampler,
};
use crate::kernel::{
    counters::CounterMaps,
    probes::{MapSizes, ProbeError, Probes, Scope},
};
use aya::programs::links::FdLink;
use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

/// How large things may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the probes may keep.
    pub maps: MapSizes,
    /// Bytes that may wait for one subscriber.
    pub queue_bytes: usize,
}

/// Why there is no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The probes do not run.
    #[error(transparent)]
    Probes(#[from] ProbeError),
    /// The process may not have another thread or descriptor.
    #[error("cannot start a thread of the daemon: {0}; raise the limits of tasks and open files")]
    Thread(#[from] io::Error),
}

/// The running pipeline.
pub struct Pipeline {
    /// Where streams are subscribed to.
    pub hub: Arc<Hub>,
    /// Where counters are read.
    pub sampler: Arc<Sampler>,
    /// Log lines of the probes, to be flushed when there are any.
    pub log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// What is known of the pipeline's health.
    pub health: Health,
    reader: ReaderControl,
    threads: Vec<JoinHandle<()>>,
    links: Vec<FdLink>,
    /// While this is open the kernel measures what programs cost.
    _measuring: Option<OwnedFd>,
}

/// Tells whether the pipeline's threads run.
#[derive(Clone, Debug)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Whether they all do.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Says so when a thread ends, however it does.
struct Guard(Health);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl Pipeline {
    /// Loads the probes and starts the threads behind them. `measure`: let the kernel measure what
    /// its BPF programs cost, which itself costs some 20 ns a run.
    ///
    /// # Errors
    ///
    /// Where the probes do not run here, or no thread can be started.
    pub fn start(limits: Limits, scope: Scope, measure: bool) -> Result<Self, PipelineError> {
        let probes = Probes::start(limits.maps, scope)?;
        let measuring = measure
            .then(|| {
                aya::sys::enable_stats(aya::sys::Stats::RunTime)
                    .inspect_err(|error| log::warn!("cannot measure the probes' cost: {error}"))
                    .ok()
            })
            .flatten();
        let names = Arc::new(Names::new());
        let reader = ReaderControl::new()?;
        let hub = Hub::new(reader.clone(), limits.queue_bytes);
        let maps = CounterMaps {
            counters: probes.counters,
            ring_lost: probes.ring_lost,
            services: probes.services,
            failures: probes.failures,
            time_waits: probes.time_waits,
            entered: probes.entered,
        };
        let sampler =
            Arc::new(Sampler::new(maps, probes.programs, Arc::clone(&hub), Arc::clone(&names)));
        let (batches, batch_queue) = mpsc::sync_channel(QUEUED_BATCHES);
        let (spares, spare_queue) = mpsc::channel();
        let health = Health(Arc::new(AtomicBool::new(true)));
        let ring = Ring {
            events: probes.events,
            control: probes.control,
            lost: probes.reader_lost,
            bytes: u64::from(limits.maps.ring_bytes),
        };
        let threads = vec![
            reader::start(ring, reader.clone(), batches, spare_queue, health.clone())?,
            hub::start(Arc::clone(&hub), names, batch_queue, spares, health.clone())?,
        ];
        Ok(Self {
            hub,
            sampler,
            log: probes.log,
            health,
            reader,
            threads,
            links: probes.links,
            _measuring: measuring,
        })
    }

    /// Detaches the probes and ends the threads and all streams.
    pub fn stop(mut self) {
        self.links.clear();
        self.hub.close();
        self.reader.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Health {
    /// Runs `work`, and notes when it ends.
    pub(super) fn watch(self, work: impl FnOnce()) {
        let guard = Guard(self);
        work();
        drop(guard);
    }
}
