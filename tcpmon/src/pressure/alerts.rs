//! The alerts: raised when a condition has held for a while, resolved when it has not for a while.

use super::{
    conditions::{Condition, Conditions},
    facts::{Facts, Route, Share},
    thresholds::Thresholds,
};
use crate::model::report::Severity;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// Alerts that may be pending or fire at once: beyond that the least severe are not raised.
const MOST: usize = 1_000;

/// The alerts that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertName {
    /// A connect() failed for want of a port.
    PortExhausted,
    /// Most ports towards a destination are taken.
    PortsNearlyExhausted,
    /// So many are taken that connect() searches for long.
    PortSearchSlow,
    /// At the present rate they run out.
    PortExhaustionPredicted,
    /// The time-wait table is nearly full, or was.
    TimeWaitBucketsNearlyFull,
    /// A service forgets to close connections that the peer has closed.
    CloseWaitLeak,
}

impl AlertName {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PortExhausted,
        Self::PortsNearlyExhausted,
        Self::PortSearchSlow,
        Self::PortExhaustionPredicted,
        Self::TimeWaitBucketsNearlyFull,
        Self::CloseWaitLeak,
    ];

    /// The name that everybody sees.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortExhausted => "TcpPortExhausted",
            Self::PortsNearlyExhausted => "TcpPortsNearlyExhausted",
            Self::PortSearchSlow => "TcpPortSearchSlow",
            Self::PortExhaustionPredicted => "TcpPortExhaustionPredicted",
            Self::TimeWaitBucketsNearlyFull => "TcpTimeWaitBucketsNearlyFull",
            Self::CloseWaitLeak => "TcpCloseWaitLeak",
        }
    }
}

/// What an alert is about: one alert at a time for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// Which.
    pub name: AlertName,
    /// Name of the network namespace.
    pub netns: Arc<str>,
    /// The route; `None` where it is about none.
    pub route: Option<Route>,
    /// The owner, where it is about one.
    pub owner: Option<Arc<str>>,
}

/// An alert that fires, or has just ceased to.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// Since when, by the facts' clock.
    pub since: Duration,
    /// What is wrong, in one sentence with figures.
    pub summary: String,
    /// Who holds the ports, the most first.
    pub owners: Vec<Share>,
    /// What to do about it, a line each, the most useful first.
    pub advice: Vec<String>,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It fires now, or with another severity.
    Raised(Alert),
    /// It does not any more, or not with that severity.
    Resolved(Alert),
}

/// How it stands with one subject.
#[derive(Clone, Debug)]
struct Standing {
    /// Since when it would be raised with another severity than it has; with which.
    pending: Option<(Severity, Duration)>,
    firing: Option<Alert>,
    /// Since when nothing holds.
    quiet_since: Option<Duration>,
}

/// Raises and resolves.
#[derive(Debug, Default)]
pub struct AlertEngine {
    thresholds: Thresholds,
    conditions: Conditions,
    standings: BTreeMap<Subject, Standing>,
}

impl AlertEngine {
    /// An engine with these thresholds.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, ..Self::default() }
    }

    /// Takes the facts, what is made of them, and tells what has changed.
    pub fn step(&mut self, facts: &Facts, assessed: &[super::Assessed]) -> Vec<Change> {
        let standings = &self.standings;
        let was = |subject: &Subject| {
            let firing = standings.get(subject).and_then(|standing| standing.firing.as_ref());
            firing.map(|alert| alert.severity)
        };
        let mut holding = self.conditions.step(facts, assessed, &self.thresholds, &was);
        holding.sort_by_key(|it| Reverse(it.severity));
        holding.truncate(MOST);
        let mut changes = Vec::new();
        let subjects: HashSet<Subject> = holding.iter().map(|it| it.subject.clone()).collect();
        for condition in holding {
            hold(&mut self.standings, condition, facts.at, &self.thresholds, &mut changes);
        }
        let rest = self.thresholds.rest;
        self.standings.retain(|subject, standing| {
            if subjects.contains(subject) {
                return true;
            }
            standing.pending = None;
            let since = *standing.quiet_since.get_or_insert(facts.at);
            // What has failed is resolved by its own time.
            let at_once = matches!(subject.name, AlertName::PortExhausted);
            if standing.firing.is_some() && !at_once && facts.at.saturating_sub(since) < rest {
                return true;
            }
            changes.extend(standing.firing.take().map(Change::Resolved));
            false
        });
        changes
    }

    /// Whether something will be raised or resolved if nothing changes.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.standings.values().any(|it| it.pending.is_some() || it.quiet_since.is_some())
    }

    /// All that fire, the most severe first.
    #[must_use]
    pub fn firing(&self) -> Vec<&Alert> {
        let firing = self.standings.values().filter_map(|standing| standing.firing.as_ref());
        let mut firing: Vec<&Alert> = firing.collect();
        firing.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.subject.cmp(&b.subject)));
        firing
    }
}

/// Something holds now.
fn hold(
    standings: &mut BTreeMap<Subject, Standing>,
    condition: Condition,
    at: Duration,
    thresholds: &Thresholds,
    changes: &mut Vec<Change>,
) {
    let Condition { subject, severity, at_once, summary, owners } = condition;
    let none = Standing { pending: None, firing: None, quiet_since: None };
    let standing = standings.entry(subject.clone()).or_insert(none);
    standing.quiet_since = None;
    if let Some(alert) = &mut standing.firing
        && alert.severity == severity
    {
        // Its figures are those of now.
        alert.summary = summary;
        alert.owners = owners;
        standing.pending = None;
        return;
    }
    let since = match standing.pending {
        Some((pending, since)) if pending == severity => since,
        _ => at,
    };
    standing.pending = Some((severity, since));
    // From critical back to warning takes as long as to resolve.
    let is_less = standing.firing.as_ref().is_some_and(|alert| alert.severity > severity);
    let patience = if is_less { thresholds.rest } else { thresholds.hold };
    if !at_once && at.saturating_sub(since) < patience {
        return;
    }
    standing.pending = None;
    changes.extend(standing.firing.take().map(Change::Resolved));
    let alert = Alert { subject, severity, since: at, summary, owners, advice: Vec::new() };
    changes.push(Change::Raised(alert.clone()));
    standing.firing = Some(alert);
}

#[cfg(test)]
mod tests;
