//! The families about the sockets there are, and about how that was found out; and the plain values
//! that these and the families of TIME_WAIT are made of.

use super::families::{Family, signed, to_f64};
use crate::model::{ledger::Drift, levels::StateCount};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use tcpmon_common::{Family as IpFamily, TcpState};

/// What was found in a network namespace.
#[derive(Debug, Default)]
pub struct NamespaceSample {
    /// Its name.
    pub netns: Arc<str>,
    /// All sockets, by family and state; `None` before the first snapshot.
    pub sockets: Option<Vec<StateCount>>,
    /// Sockets in the time-wait table.
    pub holders: Vec<(Holder, u64)>,
    /// Those of which nothing more is known.
    pub unplaced: u64,
    /// Sockets in the time-wait table by the ledger, now; `None` where that is not known.
    pub level: Option<u64>,
    /// The ledger less the kernel's number, at the last reconciliation.
    pub drift: Option<Drift>,
    /// Sockets that entered the table and that no probe saw.
    pub missed_entered: u64,
    /// Sockets that a connect() took over and that no probe saw.
    pub missed_reused: u64,
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
    /// Namespaces of which none is taken, since there are so many.
    pub unwatched: usize,
    /// Age of the oldest one that is not up to date; zero where all are.
    pub lag: Duration,
}

/// All families of this module.
pub(super) fn families(namespaces: &[NamespaceSample], taken: &Snapshots) -> Vec<Family> {
    let mut families = vec![sockets(namespaces), ephemeral_ports(namespaces), sysctls(namespaces)];
    families.extend(snapshots(taken));
    families
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
            *sums.entry((count.family.name(), count.state)).or_default() += count.sockets;
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
            family.add(&[("netns", &netns.netns), ("name", name)], signed(*value));
        }
    }
    family
}

fn snapshots(snapshots: &Snapshots) -> [Family; 6] {
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
    let mut unwatched = Family::gauge(
        "tcpmon_namespaces_unwatched",
        "Network namespaces beyond --max-namespaces, of which no level is known.",
    );
    unwatched.add_count(&[], snapshots.unwatched as u64);
    [taken, cpu, duration, sockets, lag, unwatched]
}
