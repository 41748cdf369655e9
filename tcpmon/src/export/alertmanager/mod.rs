//! Pushing alerts to Alertmanager's v2 API.
//!
//! Whoever judges alerts hands over all that fire, each time that they were judged:
//! [`AlertPusher::set`] never waits. A task for each Alertmanager tells it what is new and what has
//! ended, repeats what still fires, and tries again where it cannot. An Alertmanager that is dead,
//! slow or out of its mind costs a bounded amount of memory, a connection now and then, and a line
//! in the log each minute.

mod alert;
mod backoff;
mod book;
mod client;
mod endpoint;
mod families;
#[cfg(test)]
mod tests;
pub(crate) mod words;
mod worker;

pub use alert::{Alert, Annotations, Labels};
pub use endpoint::{Endpoint, EndpointError};
pub use families::families;

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// What the pusher is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every Alertmanager of a cluster, as each has to be told.
    pub endpoints: Vec<Endpoint>,
    /// The label `instance` of every alert: this host, as people call it.
    pub instance: Arc<str>,
    /// Where a reader of an alert finds this daemon; Alertmanager shows it as the alert's source.
    pub generator_url: Option<Arc<str>>,
    /// Alerts that are kept at most; of more than that, the most severe ones.
    pub capacity: usize,
    /// When to do what.
    pub pace: Pace,
}

impl Settings {
    /// The usual settings.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, instance: Arc<str>) -> Self {
        Self { endpoints, instance, generator_url: None, capacity: 512, pace: Pace::default() }
    }
}

/// When the pusher does what.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often what fires is told again. It is said to end four times as late, so that the
    /// alerts of a daemon that was killed end by themselves.
    pub repeat: Duration,
    /// Time between two pushes at least, so that an alert that comes and goes makes no storm.
    pub gap: Duration,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long a push may take in all.
    pub push: Duration,
    /// The pause after a first failure, more or less; it doubles with each that follows,
    pub first_pause: Duration,
    /// up to this.
    pub longest_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            repeat: Duration::from_mins(1),
            gap: Duration::from_secs(1),
            connect: Duration::from_secs(3),
            push: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(1),
        }
    }
}

/// What became of alerts at one Alertmanager, for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// The Alertmanager, without a password.
    pub alertmanager: Arc<str>,
    /// Alerts that it took, repetitions and ends included.
    pub sent: u64,
    /// Pushes that failed.
    pub failed: u64,
    /// Alerts that were not told, since there were too many.
    pub dropped: u64,
    /// Alerts that it has still to be told.
    pub queued: u64,
}

/// What a worker counts.
#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
    queued: AtomicU64,
}

/// All that fires, each identity once.
type Firing = Arc<[Arc<Alert>]>;

/// Tells every Alertmanager which alerts fire.
#[derive(Debug)]
pub struct AlertPusher {
    capacity: usize,
    firing: watch::Sender<Firing>,
    stop: watch::Sender<bool>,
    workers: Vec<(Arc<str>, Arc<Counters>, Worker)>,
    refused: Mutex<Refused>,
}

/// A worker's task; gone once it has been waited for.
type Worker = Mutex<Option<JoinHandle<()>>>;

/// Alerts for which there was no room.
#[derive(Debug, Default)]
struct Refused {
    hasher: RandomState,
    /// Those of the last time, so that each is counted once.
    last: HashSet<u64>,
    count: u64,
}

impl AlertPusher {
    /// Starts a task for each Alertmanager. To be called within a tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let (firing, _) = watch::channel(Firing::default());
        let (stop, _) = watch::channel(false);
        let settings = Arc::new(settings);
        let workers = settings.endpoints.iter().map(|endpoint| {
            let counters = Arc::new(Counters::default());
            let worker = worker::Worker {
                endpoint: endpoint.clone(),
                settings: Arc::clone(&settings),
                counters: Arc::clone(&counters),
            };
            let task = tokio::spawn(worker.run(firing.subscribe(), stop.subscribe()));
            (endpoint.to_string().into(), counters, Mutex::new(Some(task)))
        });
        let workers = workers.collect();
        Self { capacity: settings.capacity, firing, stop, workers, refused: Mutex::default() }
    }

    /// Sets all that fires now: what was there and is missing has ended. Never waits.
    pub fn set(&self, alerts: Vec<Alert>) {
        let mut seen = HashSet::new();
        let mut alerts: Vec<Arc<Alert>> = alerts.into_iter().map(Arc::new).collect();
        alerts.retain(|alert| seen.insert(alert.labels.clone()));
        // Stable: among the equally severe, the caller's order decides.
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.labels.severity));
        let beyond = alerts.split_off(alerts.len().min(self.capacity));
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let now: HashSet<u64> =
            beyond.iter().map(|alert| refused.hasher.hash_one(&alert.labels)).collect();
        let new = now.difference(&refused.last).count();
        refused.count = refused.count.saturating_add(u64::try_from(new).unwrap_or(u64::MAX));
        refused.last = now;
        // Sent with the lock held, so that of two calls the later one is the last in both respects.
        self.firing.send_replace(alerts.into());
    }

    /// What became of alerts, for each Alertmanager.
    #[must_use]
    pub fn counts(&self) -> Vec<Counts> {
        let dropped = self.refused.lock().unwrap_or_else(PoisonError::into_inner).count;
        let of = |(alertmanager, counters, _): &(Arc<str>, Arc<Counters>, Worker)| Counts {
            alertmanager: Arc::clone(alertmanager),
            sent: counters.sent.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            dropped,
            queued: counters.queued.load(Ordering::Relaxed),
        };
        self.workers.iter().map(of).collect()
    }

    /// Tells every Alertmanager that all alerts have ended, and ends within `limit`, whether they
    /// listen or not.
    pub async fn shutdown(&self, limit: Duration) {
        self.stop.send_replace(true);
        let ends_at = tokio::time::Instant::now() + limit;
        for (_, _, task) in &self.workers {
            let Some(task) = task.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                continue;
            };
            let abort = task.abort_handle();
            if tokio::time::timeout_at(ends_at, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

impl Drop for AlertPusher {
    fn drop(&mut self) {
        for (_, _, task) in &self.workers {
            if let Some(task) = &*task.lock().unwrap_or_else(PoisonError::into_inner) {
                task.abort();
            }
        }
    }
}
