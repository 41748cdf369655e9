//! The report: with a daemon, where its figures are those of the metrics, and without.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use serde_json::Value;
use xtask::lab::{Addresses, Lab};

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::exposition::Metrics;
use crate::support::lab::{self, inside};
use crate::support::program::{run, tcpmon};
use crate::support::turn::Turn;

const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 8)), 908);

/// Connections that stay open, both ends, with their listener.
type Open = (TcpListener, Vec<(TcpStream, TcpStream)>);

/// A namespace with 100 ports, of which 90 are in TIME_WAIT and 6 belong to open connections.
fn crowded() -> (Lab, String, Open) {
    let lab = lab::open(Addresses::Ipv4);
    lab.set_sysctl("ipv4/ip_local_port_range", "20000 20099").expect("a sysctl");
    lab.set_sysctl("ipv4/tcp_tw_reuse", "0").expect("a sysctl");
    let netns = lab.namespaces()[0].name.clone();
    let open = inside(&netns, || {
        let listener = TcpListener::bind(TO).expect("a port");
        let pair = || {
            let client = TcpStream::connect(TO).expect("a connection");
            (client, listener.accept().expect("a client").0)
        };
        for _ in 0..90 {
            let (client, server) = pair();
            drop(client);
            let ended = std::io::Read::read(&mut &server, &mut [0]).expect("an end");
            assert_eq!(ended, 0);
        }
        let open = (0..6).map(|_| pair()).collect();
        (listener, open)
    });
    (lab, netns, open)
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn rows<'a>(report: &'a Value, table: &str) -> &'a [Value] {
    report[table].as_array().expect("a table")
}

#[test]
fn without_a_daemon_one_look_tells_who_holds_the_ports() {
    // It attaches probes of its own, who knows when.
    let _turn = Turn::alone();
    let (_lab, netns, _open) = crowded();
    let nobody = ["report", "--socket", "/run/tcpmon-nobody.sock", "--netns", &netns];
    let done = run(&mut tcpmon(&[], &[&nobody[..], &["--json", "--exit-code"]].concat()));
    assert_eq!(done.code, Some(4), "{done:?}");
    assert!(done.stderr.contains("using probes of its own"), "{}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);

    let report = parsed(&done.stdout);
    let [ports] = rows(&report, "ports") else { panic!("{report}") };
    for (figure, value) in [("capacity", 100), ("live", 6), ("time_wait", 90)] {
        assert_eq!(ports[figure], value, "{ports}");
    }
    // Whoever had closed before the probes came has left no trace; who still has a socket is named.
    let owners: BTreeMap<&str, u64> = rows(ports, "owners")
        .iter()
        .map(|it| (it["service"].as_str().expect("a name"), it["ports"].as_u64().expect("ports")))
        .collect();
    assert_eq!(owners.get("unknown"), Some(&90), "{ports}");
    assert_eq!(owners.values().sum::<u64>(), 96, "{ports}");
    let sockets: u64 =
        rows(&report, "time_wait").iter().filter_map(|it| it["sockets"].as_u64()).sum();
    assert_eq!(sockets, 90, "{report}");
    let [alert, ..] = rows(&report, "alerts") else { panic!("{report}") };
    assert_eq!(alert["alert"], "TcpPortsNearlyExhausted", "{report}");
    assert!(!rows(&report, "advice").is_empty());
    let note = report["notes"][0].as_str().expect("a note");
    assert!(note.contains("no daemon runs"), "{note}");

    // The same in words, and the advice alone.
    let done = run(&mut tcpmon(&[], &["report", "--standalone", "--netns", &netns]));
    assert_eq!(done.code, Some(0), "{done:?}");
    for words in ["96 of 100 local ports", "127.0.0.8:908", "no daemon runs"] {
        assert!(done.stdout.contains(words), "{words}: {}", done.stdout);
    }
    let done = run(&mut tcpmon(&[], &["advise", "--socket", "/run/tcpmon-nobody.sock"]));
    assert!(done.code == Some(0) && done.stdout.contains("tcp_tw_reuse"), "{done:?}");
}

#[test]
fn without_a_daemon_and_without_the_right_it_says_what_to_do() {
    let _turn = Turn::shared();
    let nobody = ["setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all"];
    for command in ["report", "advise"] {
        let done = run(&mut tcpmon(&nobody, &[command, "--socket", "/run/tcpmon-nobody.sock"]));
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        assert!(done.stderr.contains("start `tcpmon daemon`"), "{}", done.stderr);
    }
}

/// The value of each series of a family with that namespace, by the labels that are asked for.
fn series(metrics: &Metrics, family: &str, netns: &str, by: &[&str]) -> BTreeMap<Vec<String>, f64> {
    let mut sums = BTreeMap::new();
    for (labels, value) in metrics.series(family).filter(|(labels, _)| labels["netns"] == netns) {
        let key = by.iter().map(|label| labels[*label].clone()).collect();
        *sums.entry(key).or_default() += value.parse::<f64>().expect("a number");
    }
    sums
}

/// The same of a table of the report.
fn table(report: &Value, of: &str, by: &[&str], figure: &str) -> BTreeMap<Vec<String>, f64> {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let mut sums = BTreeMap::new();
    for row in rows(report, of).iter().filter(|row| row[figure].is_number()) {
        let key = by.iter().map(|column| word(&row[*column])).collect();
        *sums.entry(key).or_default() += row[figure].as_f64().expect("a number");
    }
    sums
}

#[test]
fn the_report_the_api_and_the_metrics_have_the_same_figures() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &["--top", "1000"]);
    let (_lab, netns, _open) = crowded();
    // The survey comes by within seconds, on a busy machine too.
    eventually("the namespace to be known", || {
        let used = series(&daemon.metrics(), "tcpmon_ephemeral_ports_used", &netns, &[]);
        (used.values().sum::<f64>() > 95.0).then_some(())
    });
    let printed = ["report", "--json", "--netns", &netns, "--socket", daemon.socket_text()];
    let printed = parsed(&run(&mut tcpmon(&[], &printed)).stdout);
    let metrics = daemon.metrics();
    let mut served = parsed(&daemon.get("/api/v1/report").text());
    for rows in served.as_object_mut().expect("a report").values_mut() {
        if let Some(rows) = rows.as_array_mut() {
            rows.retain(|row| row.get("netns").is_none_or(|it| it == &*netns));
        }
    }
    let route = ["src", "dst", "dport"];
    for report in [&printed, &served] {
        let kinds = ["live", "time_wait", "time_wait_reusable"];
        let shown = kinds.map(|kind| (vec![kind.to_owned()], table(report, "ports", &[], kind)));
        let shown: BTreeMap<_, f64> =
            shown.into_iter().map(|(kind, sums)| (kind, sums.values().sum())).collect();
        let wanted = kinds.map(|kind| vec![kind.to_owned()]).into_iter().zip([6.0, 90.0, 0.0]);
        assert_eq!(shown, wanted.collect());
        assert_eq!(shown, series(&metrics, "tcpmon_ephemeral_ports_used", &netns, &["kind"]));
        for (family, of, by, figure) in [
            ("tcpmon_ephemeral_port_utilization_ratio", "ports", &route[..], "utilization_ratio"),
            ("tcpmon_time_wait_sockets", "time_wait", &["service", "dst", "dport"], "sockets"),
            ("tcpmon_sockets", "sockets", &["family", "state"], "sockets"),
            ("tcpmon_ephemeral_ports", "namespaces", &[], "ephemeral_ports"),
            ("tcpmon_time_wait_drift", "namespaces", &[], "drift"),
        ] {
            let metrics = series(&metrics, family, &netns, by);
            // Families with an age or a zero for each state have more rows than the report.
            let metrics: BTreeMap<_, _> =
                metrics.into_iter().filter(|(_, it)| *it != 0.0).collect();
            let mut report = table(report, of, by, figure);
            report.retain(|_, it| *it != 0.0);
            assert_eq!(metrics, report, "{family}");
        }
        let entered = series(&metrics, "tcpmon_time_wait_entered_total", &netns, &["service"]);
        let rows = rows(report, "time_wait").iter();
        let rows = rows.map(|row| {
            let service = row["service"].as_str().expect("a name").to_owned();
            (vec![service], row["entered_total"].as_f64().expect("a count"))
        });
        assert_eq!(entered, rows.collect());
    }
}
