//! The way from the probes to the subscribers, as one thing to start and to stop: for the daemon,
//! and for a `tail` that has no daemon to ask.

use super::{
    heart::Heart,
    hub::{self, Hub},
    names::Names,
    reader::{self, QUEUED_BATCHES, ReaderControl},
    sampler::Sampler,
    survey::{self, Survey},
};
use crate::kernel::{
    census::Census,
    counters::CounterMaps,
    namespaces,
    probes::{MapSizes, ProbeError, Probes, Scope, TimeWaitMode},
};
use aya::programs::links::FdLink;
use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// How long the survey may be at one namespace: a census of millions of sockets takes seconds, and
/// /proc on a host that swaps may take longer.
const SURVEY_PATIENCE: Duration = Duration::from_mins(2);

/// How large things may get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// What the probes may keep.
    pub maps: MapSizes,
    /// Bytes that may wait for one subscriber.
    pub queue_bytes: usize,
    /// Share of one CPU that the survey's snapshots of sockets may take, 0 to 1.
    pub snapshot_cpu_share: f64,
}

/// Why there is no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The probes do not run.
    #[error(transparent)]
    Probes(#[from] ProbeError),
    /// The process may not have another thread or descriptor.
    #[error(
        "cannot start a thread of the daemon: {0}; raise the limits of tasks, memory and open files"
    )]
    Thread(io::Error),
}

impl From<io::Error> for PipelineError {
    fn from(cause: io::Error) -> Self {
        Self::Thread(cause)
    }
}

/// The running pipeline.
pub struct Pipeline {
    /// Where streams are subscribed to.
    pub hub: Arc<Hub>,
    /// Log lines of the probes, to be flushed when there are any.
    pub log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// What is known of the pipeline's health.
    pub health: Health,
    reader: ReaderControl,
    survey: Option<Survey>,
    threads: Vec<JoinHandle<()>>,
    links: Vec<FdLink>,
    /// While this is open the kernel measures what programs cost.
    measuring: Option<OwnedFd>,
}

/// What counts, beside the stream.
struct Counting {
    counters: CounterMaps,
    census: Census,
    programs: Vec<(&'static str, OwnedFd)>,
    names: Arc<Names>,
    time_wait: TimeWaitMode,
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
    /// Loads the probes and starts the threads behind them: those of the stream, and the survey.
    /// Returns where counters are read too. `measure`: let the kernel measure what its BPF programs
    /// cost, which itself costs some 20 ns a run.
    ///
    /// # Errors
    ///
    /// Where the probes do not run here, or no thread can be started.
    pub fn start(
        limits: Limits,
        scope: Scope,
        measure: bool,
    ) -> Result<(Self, Sampler), PipelineError> {
        let (mut pipeline, counting) = Self::stream(limits, scope)?;
        if measure {
            let measuring = aya::sys::enable_stats(aya::sys::Stats::RunTime)
                .inspect_err(|error| log::warn!("cannot measure the probes' cost: {error}"));
            pipeline.measuring = measuring.ok();
        }
        let counters = Arc::new(Mutex::new(counting.counters));
        let sources = survey::Sources {
            census: counting.census,
            counters: Arc::clone(&counters),
            names: Arc::clone(&counting.names),
            scope: match scope.only_netns {
                Some(_) => namespaces::Scope::Own,
                None => namespaces::Scope::All,
            },
            most_namespaces: limits.maps.namespaces as usize,
            exact: counting.time_wait == TimeWaitMode::Exact,
            share: limits.snapshot_cpu_share,
        };
        let (survey, thread) = survey::start(sources, pipeline.health.clone())?;
        pipeline.threads.push(thread);
        pipeline.survey = Some(survey.clone());
        let sampler = Sampler::new(
            counters,
            survey,
            counting.time_wait,
            counting.programs,
            Arc::clone(&pipeline.hub),
            counting.names,
        );
        Ok((pipeline, sampler))
    }

    /// As [`Self::start`], for the stream alone.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_streaming(limits: Limits) -> Result<Self, PipelineError> {
        Self::stream(limits, Scope::default()).map(|(pipeline, _)| pipeline)
    }

    fn stream(limits: Limits, scope: Scope) -> Result<(Self, Counting), PipelineError> {
        let probes = Probes::start(limits.maps, scope)?;
        let names = Arc::new(Names::new());
        let reader = ReaderControl::new()?;
        let hub = Hub::new(reader.clone(), limits.queue_bytes);
        let (batches, batch_queue) = mpsc::sync_channel(QUEUED_BATCHES);
        let (spares, spare_queue) = mpsc::channel();
        let health = Health(Arc::new(AtomicBool::new(true)));
        let shared_names = Arc::clone(&names);
        let threads = vec![
            reader::start(probes.rings, reader.clone(), batches, spare_queue, health.clone())?,
            hub::start(Arc::clone(&hub), shared_names, batch_queue, spares, health.clone())?,
        ];
        let counting = Counting {
            counters: probes.counters,
            census: probes.census,
            programs: probes.programs,
            names,
            time_wait: probes.time_wait,
        };
        let pipeline = Self {
            hub,
            log: probes.log,
            health,
            reader,
            survey: None,
            threads,
            links: probes.links,
            measuring: None,
        };
        Ok((pipeline, counting))
    }

    /// What there is to be watched; `prompt`: how long whoever is rung up by
    /// [`ReaderControl::ring_up`] may take.
    #[must_use]
    pub fn heart(&self, prompt: Duration) -> (Heart, ReaderControl) {
        let mut heart = Heart::default();
        heart.add("the reader", self.reader.pulse(), prompt);
        heart.add("the hub", self.hub.pulse(), prompt);
        if let Some(survey) = &self.survey {
            heart.add("the survey", survey.pulse(), SURVEY_PATIENCE);
        }
        (heart, self.reader.clone())
    }

    /// Detaches the probes and ends the threads and all streams.
    pub fn stop(mut self) {
        self.links.clear();
        self.measuring = None;
        self.hub.close();
        self.reader.stop();
        if let Some(survey) = &self.survey {
            survey.stop();
        }
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
