//! What is wrong with the ports towards a destination: they are nearly gone, connect() searches for
//! long, or they will be gone soon.

use super::{Condition, NAMED, Was, destination};
use crate::{
    model::report::Severity,
    pressure::{
        Assessed,
        alerts::{AlertName, Subject},
        thresholds::Thresholds,
    },
};
use std::sync::Arc;

/// What is wrong with the ports of one route.
pub(super) fn find(
    it: &Assessed,
    thresholds: &Thresholds,
    was: &Was<'_>,
    found: &mut Vec<Condition>,
) {
    let (Some(ratio), Some(capacity)) = (it.ports.ratio(), it.ports.capacity) else { return };
    // Most routes are well, and there may be very many: nothing is looked up for those.
    if is_well(ratio, it, thresholds) {
        return;
    }
    let subject = |name| Subject {
        name,
        netns: Arc::clone(&it.netns),
        route: Some(it.ports.route),
        owner: None,
    };
    let mut add = |subject, severity, summary| {
        let owners = it.ports.owners.iter().take(NAMED).cloned().collect();
        found.push(Condition { subject, severity, at_once: false, summary, owners });
    };
    let to = || destination(&it.ports.route);
    let blocking = it.ports.blocking();
    let held = || format!("{blocking} of {capacity} local ports to {} are taken", to());

    let nearly = subject(AlertName::PortsNearlyExhausted);
    let fires = was(&nearly);
    if thresholds.ports_critical.holds(ratio, fires == Some(Severity::Critical)) {
        add(nearly, Severity::Critical, held());
    } else if thresholds.ports_warning.holds(ratio, fires.is_some()) {
        add(nearly, Severity::Warning, held());
    }
    let slow = subject(AlertName::PortSearchSlow);
    if thresholds.search_slow.holds(ratio, was(&slow).is_some()) {
        add(
            slow,
            Severity::Info,
            format!("{}: from half on connect() searches 50 times longer", held()),
        );
    }
    if let Some(forecast) = it.forecast {
        let soon = subject(AlertName::PortExhaustionPredicted);
        let bound = match was(&soon) {
            Some(_) => thresholds.predicted_seconds.clear,
            None => thresholds.predicted_seconds.raise,
        };
        // What has run out is no prediction, but it stays true.
        if forecast.eta_seconds <= bound && (ratio < 1.0 || was(&soon).is_some()) {
            let summary = if ratio < 1.0 {
                format!(
                    "at {:.0} new connections a second the local ports to {} run out in {:.0} s \
                     ({blocking} of {capacity} are taken)",
                    forecast.rate,
                    to(),
                    forecast.eta_seconds
                )
            } else {
                format!("{}: as predicted, none is left", held())
            };
            add(soon, Severity::Warning, summary);
        }
    }
}

/// Whether nothing is wrong with a route, whatever was before.
fn is_well(ratio: f64, it: &Assessed, thresholds: &Thresholds) -> bool {
    let Thresholds { ports_warning, ports_critical, search_slow, predicted_seconds, .. } =
        thresholds;
    let is_high = [ports_warning, ports_critical, search_slow]
        .into_iter()
        .any(|band| band.holds(ratio, true) || band.holds(ratio, false));
    let latest = predicted_seconds.raise.max(predicted_seconds.clear);
    !is_high && it.forecast.is_none_or(|forecast| forecast.eta_seconds > latest)
}
