//! One look at the daemon: what the kernel says of it, and what it says of itself.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use super::load::Told;
use crate::{
    bench::{metrics::Metrics, proc, session::Session},
    lab::{Ledger, Namespace},
};

/// The figures of one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// Resident memory in bytes, now and at most (`VmRSS` and `VmHWM` in /proc/PID/status).
    pub memory: proc::Memory,
    /// Open descriptors (/proc/PID/fd).
    pub descriptors: usize,
    /// Threads (/proc/PID/status).
    pub threads: u64,
    /// CPU time since the daemon began.
    pub cpu: Duration,
    /// Transitions counted (`tcpmon_events_total`).
    pub events: f64,
    /// Lost between kernel and daemon.
    pub lost_ring: f64,
    /// Lost in the queues of subscribers.
    pub lost_subscriber: f64,
    /// Runs of probes that the kernel left out.
    pub recursion_misses: f64,
    /// Entries for which a map had no room.
    pub map_failures: f64,
    /// By how much ledgers are off, all namespaces together, signs left out.
    pub drift: f64,
    /// Sockets in the time-wait table of the steady load's namespace, by tcpmon's ledger.
    pub ledger: f64,
    /// The same by the kernel (`tw` in its sockstat), a moment later.
    pub kernel: u64,
    /// Series of one scrape.
    pub series: usize,
    /// What the load has done.
    pub load: Told,
}

/// Looks at one daemon.
pub(super) struct Eye {
    pid: u32,
    socket: PathBuf,
    namespace: Namespace,
}

impl Eye {
    pub(super) fn of(session: &Session, namespace: &Namespace) -> Result<Self> {
        let pid = session.daemon().context("the session has no daemon")?;
        Ok(Self { pid, socket: session.socket().to_owned(), namespace: namespace.clone() })
    }

    pub(super) fn look(&self, at: Duration, load: Told) -> Result<Sample> {
        let pid = self.pid;
        let of_daemon = || format!("the daemon (pid {pid}) cannot be looked at: has it ended?");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(of_daemon)?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).with_context(of_daemon)?.count();
        let metrics = Metrics::ask(&self.socket)?;
        let kernel = Ledger::of(&self.namespace)?.level;
        let lost =
            |place: &str| metrics.sum_of("tcpmon_events_lost_total", &format!("where=\"{place}\""));
        let own = format!("netns=\"{}\"", self.namespace.name);
        Ok(Sample {
            at,
            memory: proc::memory(pid).with_context(of_daemon)?,
            descriptors,
            threads: field(&status, "Threads:").unwrap_or_default(),
            cpu: proc::cpu_time(pid).with_context(of_daemon)?,
            events: metrics.sum("tcpmon_events_total"),
            lost_ring: lost("ring"),
            lost_subscriber: lost("subscriber"),
            recursion_misses: metrics.sum("tcpmon_probe_recursion_misses_total"),
            map_failures: metrics.sum("tcpmon_map_insert_failures_total"),
            drift: drift_in(&metrics),
            ledger: metrics.sum_of("tcpmon_time_wait_table_sockets", &own),
            kernel,
            series: metrics.series(),
            load,
        })
    }

    /// By how much ledgers are off now.
    pub(super) fn drift(&self) -> Result<f64> {
        Ok(drift_in(&Metrics::ask(&self.socket)?))
    }
}

/// One that is too high does not make up for one that is too low.
fn drift_in(metrics: &Metrics) -> f64 {
    metrics.values("tcpmon_time_wait_drift").map(f64::abs).sum()
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
