//! What is wrong now, by the facts and by what they were: one condition for each alert that would
//! fire if it stayed so.

mod leaks;
mod memory;
mod ports;

use super::{
    Assessed,
    alerts::{AlertName, Subject},
    facts::{Facts, NamespaceFacts, PortFailures, Route, Share},
    thresholds::Thresholds,
};
use crate::model::report::Severity;
use memory::{Growing, Memory, Owner, Remembered};
use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) subject: Subject,
    pub(super) severity: Severity,
    /// It has happened: there is nothing to wait for.
    pub(super) at_once: bool,
    pub(super) summary: String,
    pub(super) owners: Vec<Share>,
}

/// Holders of ports by network namespace and route.
type ByRoute<'a> = HashMap<(&'a str, Route), &'a Assessed>;

/// Tells with which severity a subject's alert fires already.
type Was<'a> = dyn Fn(&Subject) -> Option<Severity> + 'a;

/// Owners that are named in one alert, at most.
const NAMED: usize = 5;

/// Finds what is wrong, by what is remembered.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    memory: Memory,
}

impl Conditions {
    /// What is wrong now. `was` tells with which severity a subject's alert fires already.
    pub(super) fn step(
        &mut self,
        facts: &Facts,
        assessed: &[Assessed],
        thresholds: &Thresholds,
        was: &Was<'_>,
    ) -> Vec<Condition> {
        let mut found = Vec::new();
        // Made once it is needed: of many failures each looks for its holders.
        let mut holders = None;
        for it in assessed {
            ports::find(it, thresholds, was, &mut found);
        }
        for netns in &facts.namespaces {
            let Remembered { failures, overflow, close_wait, .. } = self.memory.of(netns);
            refused(facts.at, netns, failures, (assessed, &mut holders), thresholds, &mut found);
            buckets(facts.at, netns, overflow, thresholds, was, &mut found);
            leaks::find(facts.at, netns, close_wait, thresholds, was, &mut found);
        }
        self.memory.forget(facts);
        found
    }
}

/// connect() calls that found no port.
fn refused<'a>(
    at: Duration,
    netns: &NamespaceFacts,
    remembered: &mut HashMap<(Route, Owner), Growing>,
    (assessed, by_route): (&'a [Assessed], &mut Option<ByRoute<'a>>),
    thresholds: &Thresholds,
    found: &mut Vec<Condition>,
) {
    let mut totals: HashMap<(Route, Owner), u64> = HashMap::new();
    for PortFailures { route, owner, total } in &netns.failures {
        *totals.entry((*route, owner.clone())).or_default() += total;
    }
    for key in totals.keys() {
        remembered.entry(key.clone()).or_default();
    }
    let mut routes: HashMap<Route, (u64, Vec<Owner>)> = HashMap::new();
    for (key, growing) in remembered.iter_mut() {
        // What is missing from this look is what it was.
        let total = totals.get(key).copied().unwrap_or(growing.total);
        if let Some(refused) = growing.step(at, total, thresholds.failure) {
            let of_route = routes.entry(key.0).or_default();
            of_route.0 += refused;
            of_route.1.push(key.1.clone());
        }
    }
    for (route, (refused, callers)) in routes {
        let holders = by_route
            .get_or_insert_with(|| {
                assessed.iter().map(|it| ((&*it.netns, it.ports.route), it)).collect()
            })
            .get(&(&*netns.netns, route));
        let mut owners = holders.map_or_else(Vec::new, |it| it.ports.owners.clone());
        if owners.is_empty() {
            // Nobody is known to hold them: whoever was refused is named.
            owners = callers.iter().map(|it| Share { owner: it.clone(), ports: 0 }).collect();
        }
        owners.truncate(NAMED);
        let who = names(callers.iter().map(Option::as_deref));
        found.push(Condition {
            subject: Subject {
                name: AlertName::PortExhausted,
                netns: Arc::clone(&netns.netns),
                route: Some(route),
                owner: None,
            },
            severity: Severity::Critical,
            at_once: true,
            summary: format!(
                "{refused} connect() calls of {who} to {} were refused for want of a local port",
                destination(&route)
            ),
            owners,
        });
    }
}

/// The time-wait table.
fn buckets(
    at: Duration,
    netns: &NamespaceFacts,
    remembered: &mut Growing,
    thresholds: &Thresholds,
    was: &Was<'_>,
    found: &mut Vec<Condition>,
) {
    let subject = Subject {
        name: AlertName::TimeWaitBucketsNearlyFull,
        netns: Arc::clone(&netns.netns),
        route: None,
        owner: None,
    };
    let owners = || netns.time_wait_owners.iter().take(NAMED).cloned().collect();
    let most = netns.sysctls.tcp_max_tw_buckets.and_then(|most| u32::try_from(most).ok());
    let overflowed =
        netns.time_wait_overflow.and_then(|total| remembered.step(at, total, thresholds.failure));
    if let Some(overflowed) = overflowed {
        let most = most.map_or_else(|| "its bound".to_owned(), |most| most.to_string());
        found.push(Condition {
            subject,
            severity: Severity::Critical,
            at_once: true,
            summary: format!(
                "{overflowed} sockets found the time-wait table full (tcp_max_tw_buckets \
                 {most}): their connections ended without TIME_WAIT"
            ),
            owners: owners(),
        });
        return;
    }
    let (Some(sockets), Some(most)) = (netns.time_wait, most.filter(|&most| most > 0)) else {
        return;
    };
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = sockets as f64 / f64::from(most);
    if thresholds.buckets.holds(ratio, was(&subject).is_some()) {
        found.push(Condition {
            subject,
            severity: Severity::Warning,
            at_once: false,
            summary: format!("{sockets} sockets in TIME_WAIT, of tcp_max_tw_buckets {most}"),
            owners: owners(),
        });
    }
}

/// `10.0.0.2:443`.
pub(super) fn destination(route: &Route) -> String {
    std::net::SocketAddr::new(route.dst, route.dport).to_string()
}

/// Names in a sentence, each once.
fn names<'a>(owners: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut all: Vec<&str> = owners.map(|owner| owner.unwrap_or("an unknown owner")).collect();
    all.sort_unstable();
    all.dedup();
    let rest = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    let mut text = all.join(", ");
    if rest > 0 {
        // A String takes all that is written to it.
        let _ = write!(text, " and {rest} more");
    }
    text
}
