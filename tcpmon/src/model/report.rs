//! The report: everything that the faces of the program show, as one document.
//!
//! `/api/v1/report` serves it, `tcpmon report` prints it, the page draws it. Each figure is
//! computed once, by the daemon, and has the name that the metrics have.
//!
//! Readers are lenient: a list that is absent is empty, a member that they do not know is passed
//! over, so that program and daemon need not be of one version. [`Report::VERSION`] rises only
//! where a member changes its meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// [`Report::VERSION`] of whoever wrote it.
    pub version: u32,
    /// When, in RFC 3339, UTC.
    pub ts: String,
    /// Name of the host.
    pub host: String,
    /// Seconds since the daemon began to watch; counts with `total` in their name are since then.
    pub uptime_s: f64,
    /// Alerts that fire, the most severe first.
    pub alerts: Vec<AlertRow>,
    /// Ports in use by destination, the fullest first; the rest beyond the daemon's `--top` is
    /// left out.
    pub ports: Vec<PortsRow>,
    /// Who leaves TIME_WAIT, the largest first.
    pub time_wait: Vec<TimeWaitRow>,
    /// Sockets by state.
    pub sockets: Vec<SocketsRow>,
    /// Network namespaces: what they offer, and what is set.
    pub namespaces: Vec<NamespaceRow>,
    /// connect() calls that found no free local port.
    pub failures: Vec<FailuresRow>,
    /// Transitions since the daemon began.
    pub transitions: Vec<TransitionsRow>,
    /// Connections by role and owner.
    pub connections: Vec<ConnectionsRow>,
    /// What to change, the most useful first.
    pub advice: Vec<AdviceRow>,
    /// Events that were lost on their way; no total is affected.
    pub loss: Loss,
    /// What a reader must know to take these figures for what they are, a sentence each: snapshots
    /// are off, a probe is not attached.
    pub notes: Vec<String>,
}

impl Report {
    /// The version that this program writes and understands.
    pub const VERSION: u32 = 1;

    /// The severity of the worst alert.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.alerts.iter().map(|alert| alert.severity).max()
    }

    /// Keeps only what belongs to that network namespace, and what belongs to none.
    pub fn retain_netns(&mut self, netns: &str) {
        self.alerts.retain(|row| row.netns == netns);
        self.ports.retain(|row| row.netns == netns);
        self.time_wait.retain(|row| row.netns == netns);
        self.sockets.retain(|row| row.netns == netns);
        self.namespaces.retain(|row| row.netns == netns);
        self.failures.retain(|row| row.netns == netns);
        self.advice.retain(|row| row.netns.is_empty() || row.netns == netns);
    }
}

/// How bad it is, the worst last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    #[default]
    Info,
    /// Will break if nothing is done.
    Warning,
    /// Is broken.
    Critical,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// An alert that fires.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertRow {
    /// Its name, as in the metrics: `TcpPortExhausted`.
    pub alert: String,
    /// How bad it is.
    pub severity: Severity,
    /// Network namespace.
    pub netns: String,
    /// Local address; empty where the alert is not about one route.
    pub src: String,
    /// Remote address; empty likewise.
    pub dst: String,
    /// Remote port; null likewise.
    pub dport: Option<u16>,
    /// The service, where the alert is about one; else empty.
    pub service: String,
    /// What is wrong, in one sentence.
    pub summary: String,
    /// Since when, in RFC 3339.
    pub since: String,
    /// Who holds the ports, the most first.
    pub owners: Vec<OwnerPorts>,
    /// What to do about it, a sentence each.
    pub advice: Vec<String>,
}

/// An owner, and how many ports it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerPorts {
    /// Systemd unit, container or process name; `unknown` where nobody knows.
    pub service: String,
    /// Local ports, live and in TIME_WAIT together.
    pub ports: u64,
}

/// The local ports towards one destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortsRow {
    /// Network namespace.
    pub netns: String,
    /// Local address.
    pub src: String,
    /// Remote address.
    pub dst: String,
    /// Remote port.
    pub dport: u16,
    /// How many local ports connect() may choose from towards it.
    pub capacity: u64,
    /// Held by sockets that a process has, or the kernel still has to end.
    pub live: u64,
    /// Held by sockets in the time-wait table that block a connect().
    pub time_wait: u64,
    /// Held by sockets in the time-wait table that a connect() may take over.
    pub time_wait_reusable: u64,
    /// `live` and `time_wait` over `capacity`, as `tcpmon_ephemeral_port_utilization_ratio`.
    pub utilization_ratio: f64,
    /// Seconds until the ports run out at the present rate; null: not at this rate.
    pub eta_s: Option<f64>,
    /// The ratio at which it will settle at the present rate; null where that is not known.
    pub settles_at_ratio: Option<f64>,
    /// Who holds them, the most first.
    pub owners: Vec<OwnerPorts>,
}

impl PortsRow {
    /// Ports that a new connect() does not get.
    #[must_use]
    pub const fn blocking(&self) -> u64 {
        self.live.saturating_add(self.time_wait)
    }
}

/// Sockets in the time-wait table, of one owner towards one destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeWaitRow {
    /// Network namespace.
    pub netns: String,
    /// Systemd unit, container or process name; `unknown` where nobody knows.
    pub service: String,
    /// Remote address; empty where only the owner is known (snapshots are off).
    pub dst: String,
    /// Remote port; null: any, at the end that accepted, or where `dst` is empty.
    pub dport: Option<u16>,
    /// How many there are; null where no snapshot told.
    pub sockets: Option<u64>,
    /// How many this owner has put there, to all its destinations.
    pub entered_total: u64,
    /// How many a second it puts there.
    pub entered_per_s: f64,
}

/// Sockets of one state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketsRow {
    /// Network namespace.
    pub netns: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The state, in the words of the metrics.
    pub state: String,
    /// How many.
    pub sockets: u64,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceRow {
    /// Its name.
    pub netns: String,
    /// Ports of the range, less the reserved ones; null where it could not be read.
    pub ephemeral_ports: Option<u64>,
    /// Sockets in the time-wait table, by the ledger; null where that is not known.
    pub time_wait: Option<u64>,
    /// Sockets that found that table full.
    pub overflow_total: Option<u64>,
    /// The ledger less the kernel's count, at the last reconciliation.
    pub drift: Option<i64>,
    /// Sysctls, by the names that `tcpmon_sysctl` has.
    pub sysctls: BTreeMap<String, i64>,
}

/// connect() calls that found no free local port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailuresRow {
    /// Network namespace.
    pub netns: String,
    /// Local address; unspecified (`0.0.0.0`) where it was not chosen yet.
    pub src: String,
    /// Remote address.
    pub dst: String,
    /// Remote port.
    pub dport: u16,
    /// Who called.
    pub service: String,
    /// How many.
    pub total: u64,
}

/// Transitions from one state to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransitionsRow {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// From.
    pub old: String,
    /// To; `time_wait` where a socket entered the time-wait table.
    pub new: String,
    /// How many.
    pub total: u64,
}

/// Connections of one owner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionsRow {
    /// `active` or `passive`.
    pub role: String,
    /// Systemd unit, container or process name.
    pub service: String,
    /// How many.
    pub total: u64,
    /// How many a second, of late.
    pub per_s: f64,
}

/// Something to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdviceRow {
    /// A name that does not change.
    pub id: String,
    /// Name of the network namespace that it is meant for: sysctls are each namespace's own. Empty
    /// where it is about none that is watched.
    pub netns: String,
    /// What to do, in a few words.
    pub title: String,
    /// Why, with this machine's figures.
    pub reason: String,
    /// The command that does it; empty where it is no command.
    pub command: String,
    /// What will be better.
    pub effect: String,
    /// What may be worse.
    pub risk: String,
    /// When not to do it.
    pub unless: String,
}

/// Events that were lost on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    /// The ring between kernel and daemon was full.
    pub ring: u64,
    /// A subscriber read too slowly.
    pub subscriber: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_empty_and_what_is_new_is_passed_over() {
        let report: Report =
            serde_json::from_str(r#"{"version":1,"later":{"a":1},"ports":[{"dst":"10.0.0.2"}]}"#)
                .expect("a report");
        assert_eq!(report.ports[0].dst, "10.0.0.2");
        assert_eq!(report.ports[0].eta_s, None);
        let text = serde_json::to_string(&report).expect("JSON");
        assert!(text.contains(r#""eta_s":null"#), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report);
    }

    #[test]
    fn the_worst_alert_counts() {
        let alert = |severity| AlertRow { severity, netns: "a".into(), ..AlertRow::default() };
        let mut report = Report {
            alerts: vec![
                alert(Severity::Info),
                alert(Severity::Critical),
                alert(Severity::Warning),
            ],
            ..Report::default()
        };
        assert_eq!(report.worst(), Some(Severity::Critical));
        report.retain_netns("b");
        assert_eq!(report.worst(), None);
    }
}
