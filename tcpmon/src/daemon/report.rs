//! The report: from the sample that the metrics are made of, so that both have the same figures.

use super::{
    alerting,
    watch::{Growth, Look},
};
use crate::{
    export::{
        labels::label,
        levels::NamespaceSample,
        metrics::{Destination, Sample, by_destination},
        time_wait::{TimeWaitSample, entered_by_owner},
    },
    model::report::{
        AlertRow, ConnectionsRow, FailuresRow, Loss, NamespaceRow, PortsRow, Report, SocketsRow,
        TimeWaitRow, TransitionsRow,
    },
    pressure::Assessed,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use tcpmon_common::{Family, TcpState};

/// Rows of a table that has no bound of its own, at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// As `--top` has it.
    pub top: usize,
}

/// The report of a look, but for what the rules made of it, which the look has already.
#[must_use]
pub fn report(look: &Look, bounds: Bounds) -> Report {
    let sample = &look.sample;
    let mut report = Report {
        version: Report::VERSION,
        ts: look.ts.clone(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        uptime_s: look.at.as_secs_f64(),
        alerts: alerts(look),
        ports: look.assessment.ports.iter().filter_map(ports).collect(),
        time_wait: time_wait(&sample.time_wait, &look.growth),
        sockets: sockets(&sample.time_wait.namespaces),
        namespaces: sample.time_wait.namespaces.iter().map(namespace).collect(),
        failures: failures(&sample.failures),
        transitions: transitions(sample),
        connections: connections(look),
        advice: look.assessment.advice.clone(),
        loss: Loss { ring: sample.ring_lost, subscriber: sample.subscriber_lost },
        notes: notes(look),
    };
    report.ports.truncate(bounds.top);
    report.time_wait.truncate(bounds.top);
    report.failures.truncate(bounds.top);
    report.connections.truncate(2 * bounds.top);
    report
}

/// The alerts that fire.
#[must_use]
pub fn alerts(look: &Look) -> Vec<AlertRow> {
    look.alerts.iter().filter(|told| told.sample.firing).map(|told| told.row.clone()).collect()
}

/// `None` where the capacity is not known: a note says so.
fn ports(it: &Assessed) -> Option<PortsRow> {
    let ports = &it.ports;
    let eta = it.forecast.map(|forecast| forecast.eta_seconds);
    Some(PortsRow {
        netns: it.netns.to_string(),
        src: ports.route.src.to_string(),
        dst: ports.route.dst.to_string(),
        dport: ports.route.dport,
        capacity: ports.capacity?.into(),
        live: ports.live,
        time_wait: ports.time_wait,
        time_wait_reusable: ports.time_wait_reusable,
        utilization_ratio: ports.ratio()?,
        eta_s: eta.filter(|eta| eta.is_finite()),
        settles_at_ratio: it.forecast.map(|forecast| forecast.settles_at),
        owners: alerting::owners(&ports.owners),
    })
}

/// Connections by role and service.
pub(super) fn established(sample: &Sample) -> HashMap<(&'static str, Arc<str>), u64> {
    let mut totals = HashMap::new();
    for (service, counts) in &sample.connections {
        let service = label(service.clone());
        for (role, count) in [("active", counts.active), ("passive", counts.passive)] {
            if count > 0 {
                *totals.entry((role, Arc::clone(&service))).or_default() += count;
            }
        }
    }
    totals
}

fn time_wait(sample: &TimeWaitSample, growth: &Growth) -> Vec<TimeWaitRow> {
    let entered = entered_by_owner(sample);
    let rate = |key: &Enterer| growth.entered.get(key).copied().unwrap_or(0.0);
    let mut rows = Vec::new();
    let mut shown: HashSet<Enterer> = HashSet::new();
    for netns in &sample.namespaces {
        for (holder, sockets) in &netns.holders {
            let key = (Arc::clone(&netns.netns), label(holder.service.clone()));
            let total = entered.get(&key).copied().unwrap_or(0);
            rows.push(TimeWaitRow {
                netns: netns.netns.to_string(),
                service: key.1.to_string(),
                dst: holder.dst.to_string(),
                dport: holder.dport,
                sockets: Some(*sockets),
                entered_total: total,
                entered_per_s: rate(&key),
            });
            shown.insert(key);
        }
    }
    let is_news = |(key, total): &(&Enterer, &u64)| **total > 0 && !shown.contains(*key);
    for (key, total) in entered.iter().filter(is_news) {
        rows.push(TimeWaitRow {
            netns: key.0.to_string(),
            service: key.1.to_string(),
            dst: String::new(),
            dport: None,
            sockets: None,
            entered_total: *total,
            entered_per_s: rate(key),
        });
    }
    rows.sort_by(|a, b| {
        let place = |row: &TimeWaitRow| {
            (Reverse(row.sockets), Reverse(row.entered_total), row.netns.clone(), row.dst.clone())
        };
        place(a).cmp(&place(b))
    });
    rows
}

/// A namespace, and the name of an owner in it.
type Enterer = (Arc<str>, Arc<str>);

fn sockets(namespaces: &[NamespaceSample]) -> Vec<SocketsRow> {
    let mut rows = Vec::new();
    for netns in namespaces {
        let mut sums: BTreeMap<(&str, TcpState), u64> = BTreeMap::new();
        for count in netns.sockets.iter().flatten() {
            *sums.entry((count.family.name(), count.state)).or_default() += count.sockets;
        }
        rows.extend(sums.into_iter().map(|((family, state), sockets)| SocketsRow {
            netns: netns.netns.to_string(),
            family: family.to_owned(),
            state: state.name().to_owned(),
            sockets,
        }));
    }
    rows
}

fn namespace(netns: &NamespaceSample) -> NamespaceRow {
    NamespaceRow {
        netns: netns.netns.to_string(),
        ephemeral_ports: netns.ephemeral_ports.map(u64::from),
        time_wait: netns.level,
        overflow_total: netns.overflow,
        drift: netns.drift.map(|drift| drift.level),
        sysctls: netns.sysctls.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    }
}

fn failures(counts: &[(Destination, u64)]) -> Vec<FailuresRow> {
    let named = by_destination(counts.iter().cloned());
    let row = |(of, total): (Destination, u64)| FailuresRow {
        netns: of.netns.to_string(),
        src: of.src.to_string(),
        dst: of.dst.to_string(),
        dport: of.dport,
        service: of.service.unwrap_or_default().to_string(),
        total,
    };
    let mut rows: Vec<FailuresRow> = named.into_iter().map(row).collect();
    rows.sort_by(|a, b| {
        b.total.cmp(&a.total).then_with(|| (&a.netns, &a.dst).cmp(&(&b.netns, &b.dst)))
    });
    rows
}

fn transitions(sample: &Sample) -> Vec<TransitionsRow> {
    let mut rows = Vec::new();
    for family in Family::ALL {
        for old in TcpState::ALL {
            for new in TcpState::ALL {
                let total = sample.totals.transitions(family, old, new);
                if total > 0 {
                    rows.push(TransitionsRow {
                        family: family.name().to_owned(),
                        old: old.name().to_owned(),
                        new: new.name().to_owned(),
                        total,
                    });
                }
            }
        }
    }
    rows
}

fn connections(look: &Look) -> Vec<ConnectionsRow> {
    let row = |(key, total): ((&'static str, Arc<str>), u64)| ConnectionsRow {
        per_s: look.growth.established.get(&key).copied().unwrap_or(0.0),
        role: key.0.to_owned(),
        service: key.1.to_string(),
        total,
    };
    let mut rows: Vec<ConnectionsRow> = established(&look.sample).into_iter().map(row).collect();
    rows.sort_by(|a, b| {
        b.total.cmp(&a.total).then_with(|| (&a.role, &a.service).cmp(&(&b.role, &b.service)))
    });
    rows
}

/// What a reader must know to take the figures for what they are.
fn notes(look: &Look) -> Vec<String> {
    let sample = &look.sample;
    let mut notes = Vec::new();
    let unknown = look.assessment.ports.iter().filter(|it| it.ports.capacity.is_none()).count();
    if unknown > 0 {
        notes.push(format!(
            "{unknown} destinations are left out: how many ports their namespaces offer could not \
             be read"
        ));
    }
    if sample.time_wait.mode == "sampled" {
        notes.push(
            "TIME_WAIT is sampled (--time-wait sampled): who entered it, and how sockets left, is \
             known by the kernel's counters alone"
                .to_owned(),
        );
    }
    let without = sample.time_wait.namespaces.iter().filter(|netns| netns.sockets.is_none());
    let without = without.count();
    if without > 0 {
        notes.push(format!(
            "{without} network namespaces have no snapshot yet (--snapshot-cpu-share bounds them)"
        ));
    }
    let skipped: u64 = sample.probes.iter().map(|(_, stats)| stats.recursion_misses).sum();
    if skipped > 0 {
        notes.push(format!(
            "the kernel skipped {skipped} runs of probes that would have re-entered"
        ));
    }
    notes
}

#[cfg(test)]
mod tests;
