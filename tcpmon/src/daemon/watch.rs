//! Looking at everything at once, and judging it: what the metrics, the report and the alerts are
//! made of.
//!
//! Whoever asks gets a look of that moment. While nobody does, the daemon looks once a second
//! itself where anything has happened, so that an alert does not wait for a scrape.

use super::{
    alerting::{Alerting, Told},
    facts::FactsBuilder,
    report,
    sampler::{SampleError, Sampler},
};
use crate::{
    export::{
        levels::NamespaceSample,
        metrics::Sample,
        pressure::{PressureSample, RouteSample},
        time_wait::entered_by_owner,
    },
    model::{levels::StateCount, rates::Rates},
    pressure::{Assessed, Assessment, Pressure, thresholds::Thresholds},
};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tcpmon_common::TcpState;

/// Everything at one moment.
#[derive(Debug)]
pub struct Look {
    /// When: since the daemon began to watch.
    pub at: Duration,
    /// The same in RFC 3339, UTC.
    pub ts: String,
    /// What was counted.
    pub sample: Sample,
    /// How fast some of it grows.
    pub growth: Growth,
    /// What the rules made of it.
    pub assessment: Assessment,
    /// The alerts that fire, and those that have, with the time of day.
    pub alerts: Arc<Vec<Told>>,
}

/// How fast counters grow, a second.
#[derive(Debug, Default)]
pub struct Growth {
    /// Entries into TIME_WAIT, by network namespace and service.
    pub entered: HashMap<(Arc<str>, Arc<str>), f64>,
    /// Connections, by role and service.
    pub established: HashMap<(&'static str, Arc<str>), f64>,
}

/// Looks, and remembers what it takes to judge.
pub struct Watch {
    sampler: Arc<Sampler>,
    begun: Instant,
    memory: Mutex<Memory>,
}

/// What is remembered from look to look.
#[derive(Debug)]
struct Memory {
    builder: FactsBuilder,
    pressure: Pressure,
    alerting: Alerting,
    entered: Rates<(Arc<str>, Arc<str>)>,
    established: Rates<(&'static str, Arc<str>)>,
    /// What the sum of all counters was at the last look.
    sign: Option<u64>,
    /// Until when it is looked although nothing happens: what leaves TIME_WAIT, and alerts that
    /// are to be resolved.
    until: Duration,
    /// Nothing has happened since the daemon began.
    is_untouched: bool,
    /// At the last look an alert was about to be raised or resolved.
    is_pending: bool,
    /// At the last look there was nothing that could change by itself.
    is_still: bool,
}

/// So long after the last event something may still change by itself: a minute of TIME_WAIT, and
/// the usual rests of alerts after it; longer ones are waited for all the same.
const AFTERMATH: Duration = Duration::from_secs(150);

impl Watch {
    /// Nothing has been looked at yet.
    #[must_use]
    pub fn new(sampler: Arc<Sampler>, thresholds: Thresholds, alerting: Alerting) -> Self {
        Self {
            sampler,
            begun: Instant::now(),
            memory: Mutex::new(Memory {
                builder: FactsBuilder::default(),
                pressure: Pressure::new(thresholds),
                alerting,
                entered: Rates::default(),
                established: Rates::default(),
                sign: None,
                until: Duration::ZERO,
                is_untouched: true,
                is_pending: false,
                is_still: false,
            }),
        }
    }

    /// Looks at everything now.
    ///
    /// # Errors
    ///
    /// As [`Sampler::gather`].
    pub fn look(&self) -> Result<Look, SampleError> {
        // One at a time: what is remembered has to be in order.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = &mut *memory;
        let gathered = self.sampler.gather()?;
        let at = self.begun.elapsed();
        let facts = self.sampler.facts(at, &gathered, &mut memory.builder);
        let mut sample = self.sampler.sample_of(gathered)?;
        let growth = Growth {
            entered: rates(&mut memory.entered, at, entered_by_owner(&sample.time_wait)),
            established: rates(&mut memory.established, at, report::established(&sample)),
        };
        let assessment = memory.pressure.step(&facts);
        let alerts = memory.alerting.tell(&assessment);
        memory.is_pending = assessment.is_pending;
        memory.is_still = !assessment.is_pending
            && assessment.firing.is_empty()
            && assessment.changes.is_empty()
            && sample.time_wait.namespaces.iter().all(is_still);
        sample.pressure = PressureSample {
            routes: assessment.ports.iter().map(route).collect(),
            alerts: alerts.iter().map(|told| told.sample.clone()).collect(),
        };
        let ts = jiff::Timestamp::now().to_string();
        Ok(Look { at, ts, sample, growth, assessment, alerts })
    }

    /// Looks if anything has happened since the last time, or may still.
    ///
    /// # Errors
    ///
    /// As [`Sampler::gather`].
    pub fn tick(&self) -> Result<(), SampleError> {
        let sign = self.sampler.sign();
        {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let at = self.begun.elapsed();
            let before = memory.sign.replace(sign);
            if before != Some(sign) {
                memory.is_untouched = before.is_none();
                memory.until = at + AFTERMATH;
            } else if at > memory.until && !memory.is_pending
                || memory.is_untouched && memory.is_still
            {
                return Ok(());
            }
        }
        self.look().map(|_| ())
    }
}

/// Whether nothing there can change without an event: no time-wait socket that ends, no connection
/// in CLOSE_WAIT that grows old.
fn is_still(netns: &NamespaceSample) -> bool {
    let waits = |it: &StateCount| it.state == TcpState::CloseWait && it.sockets > 0;
    netns.level == Some(0)
        && netns.sockets.as_ref().is_some_and(|sockets| !sockets.iter().any(waits))
}

/// The metrics of a route.
fn route(it: &Assessed) -> RouteSample {
    RouteSample {
        netns: Arc::clone(&it.netns),
        src: it.ports.route.src,
        dst: it.ports.route.dst,
        dport: it.ports.route.dport,
        live: it.ports.live,
        time_wait: it.ports.time_wait,
        time_wait_reusable: it.ports.time_wait_reusable,
        ratio: it.ports.ratio(),
        eta_seconds: it.forecast.map(|forecast| forecast.eta_seconds),
    }
}

/// The rates of counters, which are noted.
fn rates<K: Clone + Eq + Hash>(
    rates: &mut Rates<K>,
    at: Duration,
    totals: HashMap<K, u64>,
) -> HashMap<K, f64> {
    let per_second =
        totals.iter().map(|(key, total)| (key.clone(), rates.per_second(at, key, *total)));
    let per_second = per_second.collect();
    rates.note(at, totals);
    per_second
}
