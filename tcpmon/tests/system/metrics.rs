//! Every family that users rely on is there, with exactly its labels.

use std::collections::BTreeSet;

use xtask::lab::{Addresses, Recipe};

use crate::support::daemon::Daemon;
use crate::support::exposition::Metrics;
use crate::support::lab;
use crate::support::tail::Tail;
use crate::support::turn::Turn;

/// Name, type and labels.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("tcpmon_transitions_total", "counter", "family new old"),
    ("tcpmon_connections_total", "counter", "role service"),
    ("tcpmon_state_duration_seconds", "histogram", "state"),
    ("tcpmon_connect_port_failures_total", "counter", "dport dst netns service src"),
    ("tcpmon_sockets", "gauge", "family netns state"),
    ("tcpmon_time_wait_entered_total", "counter", "netns service"),
    ("tcpmon_time_wait_exited_total", "counter", "netns reason"),
    ("tcpmon_time_wait_overflow_total", "counter", "netns"),
    ("tcpmon_time_wait_sockets", "gauge", "dport dst netns service"),
    ("tcpmon_time_wait_drift", "gauge", "netns"),
    ("tcpmon_time_wait_mode", "gauge", "mode"),
    ("tcpmon_ephemeral_ports", "gauge", "netns"),
    ("tcpmon_ephemeral_ports_used", "gauge", "dport dst kind netns src"),
    ("tcpmon_ephemeral_port_utilization_ratio", "gauge", "dport dst netns src"),
    ("tcpmon_port_exhaustion_eta_seconds", "gauge", "dport dst netns src"),
    ("tcpmon_alert_firing", "gauge", "alert dport dst netns severity src"),
    ("tcpmon_alertmanager_alerts_sent_total", "counter", "alertmanager"),
    ("tcpmon_alertmanager_push_failures_total", "counter", "alertmanager"),
    ("tcpmon_alertmanager_alerts_dropped_total", "counter", "alertmanager"),
    ("tcpmon_alertmanager_queue_length", "gauge", "alertmanager"),
    ("tcpmon_sysctl", "gauge", "name netns"),
    ("tcpmon_snapshot_duration_seconds", "gauge", ""),
    ("tcpmon_snapshot_sockets", "gauge", ""),
    ("tcpmon_events_lost_total", "counter", "where"),
    ("tcpmon_events_total", "counter", ""),
    ("tcpmon_probe_run_seconds_total", "counter", "probe"),
    ("tcpmon_probe_runs_total", "counter", "probe"),
    ("tcpmon_probe_attached", "gauge", "probe"),
    ("tcpmon_build_info", "gauge", "revision version"),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_open_fds", "gauge", ""),
    ("process_max_fds", "gauge", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_virtual_memory_bytes", "gauge", ""),
    ("process_start_time_seconds", "gauge", ""),
];

/// Values of a label in a family.
fn values(metrics: &Metrics, name: &str, label: &str) -> BTreeSet<String> {
    metrics.series(name).map(|(labels, _)| labels[label].clone()).collect()
}

#[test]
fn every_family_is_there_with_its_labels() {
    let turn = Turn::shared();
    // Nobody listens there.
    let daemon = Daemon::start(&turn, &["--alertmanager.url", "http://127.0.0.1:9"]);
    let mut lab = lab::open(Addresses::Ipv6);
    lab::perform(&mut lab, Recipe::Exhausted, 3).expect("failures");
    let metrics = daemon.metrics();
    for (name, kind, labels) in FAMILIES {
        assert_eq!(metrics.families.get(*name).map(String::as_str), Some(*kind), "{name}");
        let wanted: Vec<&str> = labels.split_whitespace().collect();
        let sample = if *kind == "histogram" { format!("{name}_count") } else { (*name).into() };
        let mut series = metrics.series(&sample).peekable();
        assert!(series.peek().is_some(), "{name} has no series");
        for (labels, _) in series {
            let labels: Vec<&str> = labels.keys().map(String::as_str).collect();
            assert_eq!(labels, wanted, "{name}");
        }
    }
    let of = |name, label| values(&metrics, name, label);
    let set = |words: &str| words.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(of("tcpmon_transitions_total", "family"), set("ipv4 ipv6"));
    assert_eq!(of("tcpmon_connections_total", "role"), set("active passive"));
    assert_eq!(of("tcpmon_events_lost_total", "where"), set("ring subscriber probe"));
    assert_eq!(of("tcpmon_build_info", "version"), set(env!("CARGO_PKG_VERSION")));
    let states = "close close_wait closing established fin_wait1 fin_wait2 last_ack listen \
                  new_syn_recv syn_recv syn_sent time_wait bound_inactive";
    for label in ["old", "new"] {
        assert!(of("tcpmon_transitions_total", label).is_subset(&set(states)));
    }
    for (_, value) in metrics.series("tcpmon_probe_attached") {
        assert_eq!(value, "1");
    }
}

#[test]
fn the_probes_runs_and_their_cost_are_measured() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let runs = |metrics: &Metrics| -> u64 {
        let series = metrics.series("tcpmon_probe_runs_total");
        series.map(|(_, value)| value.parse::<u64>().expect("a count")).sum()
    };
    let before = daemon.metrics();
    let mut lab = lab::open(Addresses::Ipv4);
    let done = lab::perform(&mut lab, Recipe::ClientFirst, 20).expect("connections");
    let after = daemon.metrics();
    assert!(runs(&after) - runs(&before) >= done.shown_transitions());
    let seconds: f64 = after
        .series("tcpmon_probe_run_seconds_total")
        .map(|(_, value)| value.parse::<f64>().expect("seconds"))
        .sum();
    assert!(seconds > 0.0 && seconds < 10.0, "{seconds}");
}

#[test]
fn open_streams_are_counted() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    assert_eq!(daemon.streams(), 0);
    let tail = Tail::start(&daemon, &[]);
    let stream = daemon.stream("");
    daemon.await_streams(2);
    drop((tail, stream));
    daemon.await_streams(0);
}
