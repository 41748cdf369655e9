//! The families about TIME_WAIT.

use super::{
    families::{Family, signed},
    labels::{OTHER, label},
    levels::{self, NamespaceSample, Snapshots},
    top::{Top, first},
};
use crate::model::{ledger::Drift, time_wait::Reason};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tcpmon_common::TimeWaits;

/// A namespace, and an owner in it; `None`: the owner is not known.
pub type Enterer = (Arc<str>, Option<Arc<str>>);

/// How TIME_WAIT is watched, and what came of it.
#[derive(Debug, Default)]
pub struct TimeWaitSample {
    /// `exact` or `sampled`.
    pub mode: &'static str,
    /// Came and went, by namespace, as the probes counted.
    pub counts: Vec<(Arc<str>, TimeWaits)>,
    /// Entered, by namespace and owner; `None`: the owner is not known.
    pub entered: Vec<(Enterer, u64)>,
    /// What was found in each namespace.
    pub namespaces: Vec<NamespaceSample>,
    /// What finding it took.
    pub snapshots: Snapshots,
}

/// The label of a remote port that each peer has another of.
const ANY: &str = "any";

/// All families of this module.
pub(super) fn families(
    sample: TimeWaitSample,
    entered_top: &mut Top<(Arc<str>, Arc<str>)>,
    top: usize,
) -> Vec<Family> {
    let mut families = vec![
        mode(sample.mode),
        entered(&sample, entered_top),
        exited(&sample),
        overflow(&sample.namespaces),
        level(&sample.namespaces),
    ];
    families.extend(drift(&sample.namespaces));
    families.extend(levels::families(&sample.namespaces, &sample.snapshots));
    families.push(holders(sample.namespaces, top));
    families
}

fn mode(mode: &'static str) -> Family {
    let mut family = Family::gauge(
        "tcpmon_time_wait_mode",
        "1: how TIME_WAIT is watched; exact, by its sockets' timers, or sampled, by snapshots.",
    );
    family.add_count(&[("mode", mode)], 1);
    family
}

/// Entries by namespace and the label of the owner. Those for whose owner the probes had no room are
/// of others. Those that no probe saw, by the kernel's count,
/// are of an unknown owner; without probes that is all that is known.
pub(crate) fn entered_by_owner(sample: &TimeWaitSample) -> HashMap<(Arc<str>, Arc<str>), u64> {
    let mut named = HashMap::new();
    for ((netns, service), count) in &sample.entered {
        *named.entry((Arc::clone(netns), label(service.clone()))).or_default() += count;
    }
    for (netns, counts) in sample.counts.iter().filter(|(_, counts)| counts.nameless > 0) {
        *named.entry((Arc::clone(netns), OTHER.into())).or_default() += counts.nameless;
    }
    for netns in &sample.namespaces {
        let unseen = netns.missed_entered + netns.kernel.map_or(0, |kernel| kernel.entered);
        if unseen > 0 || netns.kernel.is_some() {
            *named.entry((Arc::clone(&netns.netns), label(None))).or_default() += unseen;
        }
    }
    named
}

fn entered(sample: &TimeWaitSample, top: &mut Top<(Arc<str>, Arc<str>)>) -> Family {
    let mut family = Family::counter(
        "tcpmon_time_wait_entered_total",
        "Sockets that entered the time-wait table, by owner.",
    );
    let named = entered_by_owner(sample);
    // The counts of a namespace that has gone are gone too.
    top.forget(|key| !named.contains_key(key));
    let (named, others): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|((_, service), _)| &**service != OTHER);
    let (own, rest) = top.split(named, |count| *count);
    let rest = rest.into_iter().chain(others);
    for ((netns, service), count) in own {
        family.add_count(&[("netns", &netns), ("service", &service)], count);
    }
    for (netns, count) in by_netns(rest.map(|((netns, _), count)| (netns, count))) {
        family.add_count(&[("netns", &netns), ("service", OTHER)], count);
    }
    family
}

/// The sums of each namespace.
pub(super) fn by_netns(counts: impl Iterator<Item = (Arc<str>, u64)>) -> BTreeMap<Arc<str>, u64> {
    let mut sums = BTreeMap::new();
    for (netns, count) in counts {
        *sums.entry(netns).or_default() += count;
    }
    sums
}

fn exited(sample: &TimeWaitSample) -> Family {
    let mut family = Family::counter(
        "tcpmon_time_wait_exited_total",
        "Sockets that left the time-wait table: their time was over, a connect() took their port \
         over, or they were killed (a reset, a SYN, ss -K, the end of their namespace).",
    );
    let mut sums: BTreeMap<&Arc<str>, TimeWaits> = BTreeMap::new();
    for (netns, counts) in &sample.counts {
        sums.entry(netns).or_default().add(counts);
    }
    for netns in sample.namespaces.iter().filter(|netns| netns.missed_reused > 0) {
        sums.entry(&netns.netns).or_default().reused += netns.missed_reused;
    }
    for (netns, counts) in sums {
        for reason in Reason::ALL {
            let count = match reason {
                Reason::Expired => counts.expired,
                Reason::Reused => counts.reused,
                Reason::Killed => counts.killed,
            };
            family.add_count(&[("netns", netns), ("reason", reason.name())], count);
        }
    }
    // Without probes only this can be told.
    for netns in &sample.namespaces {
        if let Some(kernel) = netns.kernel {
            let labels = [("netns", &*netns.netns), ("reason", Reason::Reused.name())];
            family.add_count(&labels, kernel.reused);
        }
    }
    family
}

fn overflow(namespaces: &[NamespaceSample]) -> Family {
    let mut family = Family::counter(
        "tcpmon_time_wait_overflow_total",
        "Sockets that did not enter the time-wait table because it was full \
         (tcp_max_tw_buckets), by the kernel's own count.",
    );
    for netns in namespaces {
        if let Some(overflow) = netns.overflow {
            family.add_count(&[("netns", &netns.netns)], overflow);
        }
    }
    family
}

fn level(namespaces: &[NamespaceSample]) -> Family {
    let mut family = Family::gauge(
        "tcpmon_time_wait_table_sockets",
        "Sockets in the time-wait table now, by the probes' ledger.",
    );
    for netns in namespaces {
        if let Some(level) = netns.level {
            family.add_count(&[("netns", &netns.netns)], level);
        }
    }
    family
}

fn drift(namespaces: &[NamespaceSample]) -> [Family; 2] {
    let mut family = Family::gauge(
        "tcpmon_time_wait_drift",
        "The probes' ledger of the time-wait table less the kernel's number, at the last \
         reconciliation, which corrected it.",
    );
    let mut counters = Family::gauge(
        "tcpmon_time_wait_counter_drift",
        "The probes' counts of sockets that entered the time-wait table, or were reused, less the \
         kernel's, at the last reconciliation, which corrected them.",
    );
    for netns in namespaces {
        if let Some(Drift { level, entered, reused }) = netns.drift {
            family.add(&[("netns", &netns.netns)], signed(level));
            for (counter, drift) in [("entered", entered), ("reused", reused)] {
                counters.add(&[("netns", &netns.netns), ("counter", counter)], signed(drift));
            }
        }
    }
    [family, counters]
}

fn holders(namespaces: Vec<NamespaceSample>, top: usize) -> Family {
    let mut family = Family::gauge(
        "tcpmon_time_wait_sockets",
        "Sockets in the time-wait table, by owner and destination.",
    );
    let mut rest: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut named = Vec::new();
    for netns in namespaces {
        if netns.unplaced > 0 {
            *rest.entry(Arc::clone(&netns.netns)).or_default() += netns.unplaced;
        }
        let found = netns.holders.into_iter();
        named.extend(found.map(|(holder, count)| (Arc::clone(&netns.netns), holder, count)));
    }
    // The busiest first; of equal ones always the same, so that series do not come and go.
    first(&mut named, top, |a, b| b.2.cmp(&a.2).then_with(|| (&a.0, &a.1).cmp(&(&b.0, &b.1))));
    for (place, (netns, holder, count)) in named.into_iter().enumerate() {
        if place >= top {
            *rest.entry(netns).or_default() += count;
            continue;
        }
        let service = label(holder.service);
        let (dst, dport) = (holder.dst.to_string(), holder.dport.map(|port| port.to_string()));
        let dport = dport.as_deref().unwrap_or(ANY);
        let labels = [("netns", &*netns), ("service", &service), ("dst", &dst), ("dport", dport)];
        family.add_count(&labels, count);
    }
    for (netns, count) in rest {
        let labels = [("netns", &*netns), ("service", OTHER), ("dst", OTHER), ("dport", OTHER)];
        family.add_count(&labels, count);
    }
    family
}
