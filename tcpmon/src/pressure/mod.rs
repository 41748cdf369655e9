//! Port pressure: how many ports there are, who holds them, how long they will last, when to raise
//! an alarm and what to advise.
//!
//! Pure functions over [`facts`]: no kernel, no clock, no network. Time and facts are passed in, so
//! every rule is tested with a table.

pub mod advice;
pub mod alerts;
mod conditions;
pub mod facts;
pub mod forecast;
pub mod plan;
pub mod thresholds;
pub mod usage;

use advice::Advice;
use alerts::{Alert, AlertEngine, Change};
use facts::Facts;
use forecast::{Forecast, Forecaster};
use std::sync::Arc;
use thresholds::Thresholds;
use usage::PortUse;

/// The ports of one network namespace towards one destination, and what will become of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessed {
    /// Name of the network namespace.
    pub netns: Arc<str>,
    /// What is held.
    pub ports: PortUse,
    /// What will become of it; `None` where the capacity is not known.
    pub forecast: Option<Forecast>,
}

/// What the rules make of the facts of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// By route, the highest ratio first.
    pub ports: Vec<Assessed>,
    /// What has begun or ended to fire.
    pub changes: Vec<Change>,
    /// What fires, the most severe first.
    pub firing: Vec<Alert>,
    /// Something would fire, or not any more, if it went on like this.
    pub is_pending: bool,
    /// What to change, the most useful first.
    pub advice: Vec<Advice>,
}

/// All rules, with what they remember.
#[derive(Debug, Default)]
pub struct Pressure {
    forecaster: Forecaster,
    engine: AlertEngine,
}

impl Pressure {
    /// Rules with these thresholds.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { engine: AlertEngine::new(thresholds), ..Self::default() }
    }

    /// Judges the facts of a moment that is not before the last one.
    pub fn step(&mut self, facts: &Facts) -> Assessment {
        let mut ports = Vec::new();
        for netns in &facts.namespaces {
            let uses = usage::uses(netns);
            let forecasts = self.forecaster.step(facts.at, &netns.netns, &uses);
            ports.extend(uses.into_iter().zip(forecasts).map(|(ports, forecast)| Assessed {
                netns: Arc::clone(&netns.netns),
                ports,
                forecast,
            }));
        }
        self.forecaster.forget_before(facts.at);
        // Of equal ratio the one with the most ports; they come sorted so within a namespace.
        ports.sort_by(|a, b| {
            let ratio = |it: &Assessed| it.ports.ratio().unwrap_or(0.0);
            ratio(b).total_cmp(&ratio(a))
        });
        let mut changes = self.engine.step(facts, &ports);
        let mut firing: Vec<Alert> = self.engine.firing().into_iter().cloned().collect();
        let raised = changes.iter_mut().filter_map(|change| match change {
            Change::Raised(alert) => Some(alert),
            Change::Resolved(_) => None,
        });
        advice::add_to(raised.chain(&mut firing), facts, &ports);
        let advice = advice::advise(facts, &ports, &firing);
        let is_pending = self.engine.is_pending();
        Assessment { ports, changes, firing, is_pending, advice }
    }
}
