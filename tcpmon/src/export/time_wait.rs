//! The families about TIME_WAIT and about the sockets there are.

use super::{
    families::{Family, to_f64},
    labels::{OTHER, label},
    top::Top,
};
use crate::model::{census::KindCount, time_wait::Reason};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tcpmon_common::{Family as IpFamily, TcpState, TimeWaits};

/// How TIME_WAIT is watched, and what came of it.
#[derive(Debug, Default)]
pub struct TimeWaitSample {
    /// `exact` or `sampled`.
    pub mode: &'static str,
    /// Came and went, by namespace, as the probes counted.
    pub counts: Vec<(Arc<str>, TimeWaits)>,
    /// Entered, by namespace and owner; `None`: the owner is not known.
    pub entered: Vec<((Arc<str>, Option<Arc<str>>), u64)>,
    /// What was found in each namespace.
    pub namespaces: Vec<NamespaceSample>,
    /// What finding it took.
    pub snapshots: Snapshots,
}

/// What was found in a network namespace.
#[derive(Debug)]
pub struct NamespaceSample {
    /// Its name.
    pub netns: Arc<str>,
    /// All sockets at the last snapshot, by kind; `None` before the first.
    pub sockets: Option<Vec<KindCount>>,
    /// Sockets in the time-wait table at the last snapshot.
    pub holders: Vec<(Holder, u64)>,
    /// Those that the snapshot had no room to tell apart.
    pub unplaced: u64,
    /// Sockets in the time-wait table by the ledger, now; `None` where that is not known.
    pub level: Option<u64>,
    /// The ledger less the kernel's number, at the last reconciliation.
    pub drift: Option<i64>,
    /// Sockets that found the table full since the daemon watches.
    pub overflow: Option<u64>,
    /// What the kernel itself counted since the daemon watches, where no probe does.
    pub kernel: Option<KernelCounts>,
    /// Ports that the range offers, less the reserved ones.
    pub ephemeral_ports: Option<u32>,
    /// Sysctls by name.
    pub sysctls: Vec<(&'static str, i64)>,
}

/// What the kernel counted of a time-wait table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelCounts {
    /// Sockets that entered (`TW` and `TWKilled`).
    pub entered: u64,
    /// Sockets that a connect() took over (`TWRecycled`).
    pub reused: u64,
}

/// Whose sockets, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The owner; `None`: not known.
    pub service: Option<Arc<str>>,
    /// Remote address.
    pub dst: IpAddr,
    /// Remote port; `None`: any, at the end that accepted.
    pub dport: Option<u16>,
}

/// What snapshots took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshots {
    /// How many were taken.
    pub taken: u64,
    /// CPU time of all.
    pub cpu: Duration,
    /// How long the last one took of each namespace, together.
    pub duration: Duration,
    /// Sockets in the last one of each namespace, together.
    pub sockets: u64,
    /// Age of the oldest one that is not up to date; zero where all are.
    pub lag: Duration,
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
        sockets(&sample.namespaces),
        level(&sample.namespaces),
        drift(&sample.namespaces),
        ephemeral_ports(&sample.namespaces),
        sysctls(&sample.namespaces),
    ];
    families.extend(snapshots(&sample.snapshots));
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

fn entered(sample: &TimeWaitSample, top: &mut Top<(Arc<str>, Arc<str>)>) -> Family {
    let mut family = Family::counter(
        "tcpmon_time_wait_entered_total",
        "Sockets that entered the time-wait table, by owner.",
    );
    let mut named: HashMap<(Arc<str>, Arc<str>), u64> = HashMap::new();
    for ((netns, service), count) in &sample.entered {
        *named.entry((Arc::clone(netns), label(service.clone()))).or_default() += count;
    }
    for netns in &sample.namespaces {
        if let Some(kernel) = netns.kernel {
            *named.entry((Arc::clone(&netns.netns), label(None))).or_default() += kernel.entered;
        }
    }
    // The counts of a namespace that has gone are gone too.
    top.forget(|key| !named.contains_key(key));
    let (own, rest) = top.split(named.into_iter().collect(), |count| *count);
    for ((netns, service), count) in own {
        family.add_count(&[("netns", &netns), ("service", &service)], count);
    }
    for (netns, count) in by_netns(rest.into_iter().map(|((netns, _), count)| (netns, count))) {
        family.add_count(&[("netns", &netns), ("service", OTHER)], count);
    }
    family
}

fn by_netns(counts: impl Iterator<Item = (Arc<str>, u64)>) -> BTreeMap<Arc<str>, u64> {
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
    for (netns, counts) in sums {
        for reason in Reason::ALL {
            let count = match reason {
                Reason::Expired => counts.expired,
                Reason::Reused => counts.reused,
                Reason::Killed => counts.killed(),
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

fn sockets(namespaces: &[NamespaceSample]) -> Family {
    let mut family = Family::gauge(
        "tcpmon_sockets",
        "TCP sockets at the last snapshot; those in the time-wait table whose peer's FIN is still \
         awaited are fin_wait2, as ss has it.",
    );
    for netns in namespaces {
        let Some(counts) = &netns.sockets else { continue };
        let mut sums: BTreeMap<(&str, TcpState), u64> = BTreeMap::new();
        for family in IpFamily::ALL {
            for state in SHOWN {
                sums.insert((family.name(), state), 0);
            }
        }
        for count in counts {
            *sums.entry((count.family.name(), count.kind.state)).or_default() += count.sockets;
        }
        for ((ip, state), count) in sums {
            let labels = [("netns", &*netns.netns), ("family", ip), ("state", state.name())];
            family.add_count(&labels, count);
        }
    }
    family
}

/// States that are shown with 0 where there is none.
const SHOWN: [TcpState; 11] = {
    use TcpState::{
        CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, NewSynRecv, SynRecv,
        SynSent, TimeWait,
    };
    [
        Established,
        SynSent,
        SynRecv,
        FinWait1,
        FinWait2,
        TimeWait,
        CloseWait,
        LastAck,
        Listen,
        Closing,
        NewSynRecv,
    ]
};

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

fn drift(namespaces: &[NamespaceSample]) -> Family {
    let mut family = Family::gauge(
        "tcpmon_time_wait_drift",
        "The probes' ledger of the time-wait table less the kernel's number, at the last \
         reconciliation, which corrected it.",
    );
    for netns in namespaces {
        if let Some(drift) = netns.drift {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
            family.add(&[("netns", &netns.netns)], drift as f64);
        }
    }
    family
}

fn holders(namespaces: Vec<NamespaceSample>, top: usize) -> Family {
    let mut family = Family::gauge(
        "tcpmon_time_wait_sockets",
        "Sockets in the time-wait table at the last snapshot, by owner and destination.",
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
    named.sort_unstable_by(|a, b| b.2.cmp(&a.2).then_with(|| (&a.0, &a.1).cmp(&(&b.0, &b.1))));
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

fn ephemeral_ports(namespaces: &[NamespaceSample]) -> Family {
    let mut family = Family::gauge(
        "tcpmon_ephemeral_ports",
        "Local ports that ip_local_port_range offers, less those in ip_local_reserved_ports.",
    );
    for netns in namespaces {
        if let Some(ports) = netns.ephemeral_ports {
            family.add_count(&[("netns", &netns.netns)], ports.into());
        }
    }
    family
}

fn sysctls(namespaces: &[NamespaceSample]) -> Family {
    let mut family = Family::gauge("tcpmon_sysctl", "Sysctls of net.ipv4 that decide about ports.");
    for netns in namespaces {
        for (name, value) in &netns.sysctls {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
            family.add(&[("netns", &netns.netns), ("name", name)], *value as f64);
        }
    }
    family
}

fn snapshots(snapshots: &Snapshots) -> [Family; 5] {
    let mut taken = Family::counter("tcpmon_snapshots_total", "Snapshots of all sockets taken.");
    taken.add_count(&[], snapshots.taken);
    let mut cpu =
        Family::counter("tcpmon_snapshot_cpu_seconds_total", "CPU time that snapshots took.");
    cpu.add(&[], snapshots.cpu.as_secs_f64());
    let mut duration = Family::gauge(
        "tcpmon_snapshot_duration_seconds",
        "How long the last snapshot of each namespace took, together.",
    );
    duration.add(&[], snapshots.duration.as_secs_f64());
    let mut sockets = Family::gauge(
        "tcpmon_snapshot_sockets",
        "Sockets in the last snapshot of each namespace, together.",
    );
    sockets.add(&[], to_f64(snapshots.sockets));
    let mut lag = Family::gauge(
        "tcpmon_snapshot_lag_seconds",
        "How long ago the oldest snapshot was taken after which something has changed.",
    );
    lag.add(&[], snapshots.lag.as_secs_f64());
    [taken, cpu, duration, sockets, lag]
}
