//! One look without a daemon: probes of its own are loaded, what is there is counted, and all ends.

use super::{
    alerting::Alerting,
    pipeline::{Limits, Pipeline, PipelineError},
    report::{self, Bounds},
    sampler::SampleError,
    watch::{Look, Watch},
};
use crate::{kernel::probes::Scope, model::report::Report, pressure::thresholds::Thresholds};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the sockets of all namespaces may take to be counted. What is not counted by then is
/// said to be missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a reader must know of such a look.
const NOTE: &str = "no daemon runs: this is one look by probes of its own, so totals begin with \
                    it, there are no rates and no forecasts, failures before it are not known, and \
                    sockets in TIME_WAIT whose process had closed them have no owner";

/// Why there is no look.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The pipeline does not run here.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The counters could not be read.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

/// Loads the probes, looks once at everything, and detaches them.
///
/// # Errors
///
/// Where the probes do not run here, or their counters cannot be read. Nothing is left behind.
pub fn report(limits: Limits, top: usize) -> Result<Report, OnceError> {
    // Nobody is disturbed for long: the snapshot may take what it needs.
    let limits = Limits { snapshot_cpu_share: 1.0, ..limits };
    let (pipeline, sampler) = Pipeline::start(limits, Scope::default(), false)?;
    // There is no second look that could tell whether something lasts.
    let thresholds = Thresholds { hold: Duration::ZERO, ..Thresholds::DEFAULT };
    let watch = Watch::new(Arc::new(sampler), thresholds, Alerting::new(None));
    let look = whole_look(&watch);
    pipeline.stop();
    let mut report = report::report(&look?, Bounds { top });
    report.notes.insert(0, NOTE.to_owned());
    Ok(report)
}

/// A look with the sockets of all namespaces in it, or the last before patience ends.
fn whole_look(watch: &Watch) -> Result<Look, SampleError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Waits for the survey.
        let look = watch.look()?;
        let namespaces = &look.sample.time_wait.namespaces;
        let is_whole = !namespaces.is_empty() && namespaces.iter().all(|it| it.sockets.is_some());
        if is_whole || Instant::now() >= deadline {
            return Ok(look);
        }
    }
}
