//! Sockets in CLOSE_WAIT that a program forgets to close: many are no leak, more and more are.

use super::{
    Condition, Was,
    memory::{History, Owner},
};
use crate::{
    model::report::Severity,
    pressure::{
        alerts::{AlertName, Subject},
        facts::{NamespaceFacts, Share},
        thresholds::Thresholds,
    },
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Sockets in CLOSE_WAIT that grow more and more.
pub(super) fn find(
    at: Duration,
    netns: &NamespaceFacts,
    remembered: &mut HashMap<Owner, History>,
    thresholds: &Thresholds,
    was: &Was<'_>,
    found: &mut Vec<Condition>,
) {
    for waiting in &netns.close_wait {
        let history = remembered.entry(waiting.owner.clone()).or_default();
        note(history, at, waiting.old, thresholds.growth);
        let subject = Subject {
            name: AlertName::CloseWaitLeak,
            netns: Arc::clone(&netns.netns),
            route: None,
            owner: waiting.owner.clone(),
        };
        let fires = was(&subject).is_some();
        let grows = waiting.old >= thresholds.close_wait && has_grown(history, at, thresholds);
        // Once it leaks it does until some are closed.
        let stays = fires
            && history.front().is_some_and(|(_, then)| waiting.old >= *then)
            && waiting.old > 0;
        if grows || stays {
            let who = waiting.owner.as_deref().unwrap_or("an unknown owner");
            found.push(Condition {
                subject,
                severity: Severity::Warning,
                at_once: true,
                summary: format!(
                    "{who} has {} sockets in CLOSE_WAIT for more than a minute, and more and \
                     more: the peers have closed, it has not",
                    waiting.old
                ),
                owners: vec![Share { owner: waiting.owner.clone(), ports: waiting.sockets }],
            });
        }
    }
}

/// Adds a reading, and drops those that are older than needed.
fn note(history: &mut History, at: Duration, count: u64, kept: Duration) {
    // Enough of them in either half of the time.
    let apart = (kept / 8).min(Duration::from_secs(5));
    if history.back().is_some_and(|(last, _)| at.saturating_sub(*last) < apart) {
        return;
    }
    history.push_back((at, count));
    while history.get(1).is_some_and(|(next, _)| at.saturating_sub(*next) >= kept) {
        history.pop_front();
    }
}

/// Whether it has grown in either half of the time, and never fallen.
fn has_grown(history: &History, at: Duration, thresholds: &Thresholds) -> bool {
    let (Some(first), Some(last)) = (history.front(), history.back()) else { return false };
    if at.saturating_sub(first.0) < thresholds.growth {
        return false;
    }
    let half = thresholds.growth / 2;
    let Some(middle) = history.iter().find(|(then, _)| at.saturating_sub(*then) <= half) else {
        return false;
    };
    let falls = history.iter().zip(history.iter().skip(1)).any(|(a, b)| b.1 < a.1);
    !falls && first.1 < middle.1 && middle.1 < last.1
}
