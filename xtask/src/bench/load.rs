//! The loads, made by the lab: how fast they ran is what the bench is about.

use std::thread;

use anyhow::{Context as _, Result};

use super::wait;
use crate::lab::{Expectation, Lab, Options, Recipe};

/// Connections before the first that are measured: they fill the time-wait table to its limit, so
/// that every later run finds it full.
const WARM_UP: u64 = 2_000;

/// The labs of a bench, each with a namespace and a load of its own.
pub(super) struct Loads {
    labs: Vec<Lab>,
}

/// What a load brought about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Connections a second; of several threads, the sum.
    pub(super) per_second: f64,
    /// Transitions that the tracepoint must have shown.
    pub(super) events: u64,
}

impl Loads {
    /// Makes the namespaces for up to `threads` loads at a time, 0 if none is to run. Needs root.
    pub(super) fn open(threads: usize) -> Result<Self> {
        let labs = (0..threads).map(|_| Lab::open(Options::default()));
        let mut loads = Self { labs: labs.collect::<Result<_, _>>().context("the lab")? };
        let _warm = loads.churn(threads, WARM_UP)?;
        Ok(loads)
    }

    /// The inode of the namespace in which a single load runs.
    pub(super) fn netns(&self) -> Option<u64> {
        self.labs.first()?.namespaces().first().map(|netns| netns.inode)
    }

    /// Load A: connections that are opened, closed by the client and closed by the server, as
    /// fast as it goes, so many in each of `threads` threads.
    pub(super) fn churn(&mut self, threads: usize, connections: u64) -> Result<Outcome> {
        wait::check()?;
        let perform = |lab: &mut Lab| lab.perform(Recipe::Churn, Some(connections));
        let labs = self.labs.iter_mut().take(threads);
        let told: Result<Vec<Expectation>, _> = thread::scope(|scope| {
            let running: Vec<_> = labs.map(|lab| scope.spawn(move || perform(lab))).collect();
            running
                .into_iter()
                .map(|load| load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        // An interrupted load fails in some way or other: that is not its news.
        wait::check()?;
        let told = told.context("the load")?;
        Ok(Outcome {
            per_second: told
                .iter()
                .filter_map(|told| told.load.as_ref())
                .map(|load| load.connections_per_second)
                .sum(),
            events: told.iter().map(Expectation::transitions).sum(),
        })
    }
}
