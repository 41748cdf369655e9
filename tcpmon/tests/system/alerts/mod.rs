//! Alerts on real sockets: told before ports run out, at once when they have, and resolved.

mod leaks;
mod pushed;
mod quiet;
mod scale;

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::load::{Load, small};
use crate::support::program::{run, tcpmon};
use crate::support::turn::Turn;
use crate::support::{as_quick_as, eventually};

fn json(daemon: &Daemon, route: &str) -> Value {
    let answer = daemon.get(route);
    assert_eq!(answer.status, 200, "{route}");
    serde_json::from_str(&answer.text()).expect("JSON")
}

/// The alert of that name in a namespace, as `/api/v1/alerts` has it.
fn alert(daemon: &Daemon, netns: &str, name: &str) -> Option<Value> {
    let alerts = json(daemon, "/api/v1/alerts");
    let alerts = alerts["alerts"].as_array().expect("alerts");
    alerts.iter().find(|it| it["netns"] == netns && it["alert"] == name).cloned()
}

fn own_alerts(daemon: &Daemon, netns: &str) -> Vec<String> {
    let alerts = json(daemon, "/api/v1/alerts");
    let alerts = alerts["alerts"].as_array().expect("alerts");
    let own = alerts.iter().filter(|it| it["netns"] == netns);
    own.map(|it| it["alert"].as_str().expect("a name").to_owned()).collect()
}

fn firing(daemon: &Daemon, netns: &str, name: &str) -> Option<f64> {
    let metrics = daemon.metrics();
    let mut series = metrics.series("tcpmon_alert_firing").filter(|(labels, _)| {
        labels["netns"] == netns && labels["alert"] == name && labels["dport"] == "907"
    });
    series.next().map(|(_, value)| value.parse().expect("a number"))
}

#[test]
fn a_ramp_is_predicted_its_failure_raised_at_once_and_its_end_resolved() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &["--alert.failure-rest", "4"]);
    let (_lab, netns) = small(150, "0");
    let mut load = Load::start(&netns, 10);
    eventually("the end to be predicted", || alert(&daemon, &netns, "TcpPortExhaustionPredicted"));
    assert_eq!(load.failures(), 0, "predicted only when it had come");

    eventually("a failure", || load.first_failure());
    let raised = eventually("it to be raised", || alert(&daemon, &netns, "TcpPortExhausted"));
    let late = load.first_failure().expect("a failure").elapsed();
    assert!(late < as_quick_as(Duration::from_secs(2)), "after {late:?}");
    assert_eq!(raised["severity"], "critical");
    assert_eq!((&raised["dst"], &raised["dport"]), (&"127.0.0.7".into(), &907.into()));
    let comm = std::fs::read_to_string("/proc/self/comm").expect("a name");
    let owner = raised["owners"][0]["service"].as_str().expect("an owner");
    // In CI the tests may be a service of systemd's themselves.
    assert!(owner == comm.trim_end() || owner.contains('.'), "{raised}");
    assert_eq!(raised["owners"][0]["ports"], 150, "{raised}");
    assert!(!raised["advice"].as_array().expect("advice").is_empty(), "{raised}");
    assert_eq!(firing(&daemon, &netns, "TcpPortExhausted"), Some(1.0));

    // All that have to do with it are told by the report, whose exit code says how bad it is.
    let report = ["report", "--socket", daemon.socket_text(), "--exit-code", "--netns", &netns];
    let done = run(&mut tcpmon(&[], &report));
    assert_eq!(done.code, Some(4), "{done:?}");
    for words in ["TcpPortExhausted", "127.0.0.7:907", "none is left"] {
        assert!(done.stdout.contains(words), "{words}: {}", done.stdout);
    }
    let advice = json(&daemon, "/api/v1/advice");
    let ids: Vec<_> =
        advice["advice"].as_array().expect("advice").iter().map(|it| &it["id"]).collect();
    assert!(ids.contains(&&Value::from("tcp-tw-reuse")), "{ids:?}");

    load.end();
    eventually("it to be resolved", || {
        alert(&daemon, &netns, "TcpPortExhausted").is_none().then_some(())
    });
    assert_eq!(firing(&daemon, &netns, "TcpPortExhausted"), Some(0.0));
    let counted: u64 = daemon
        .metrics()
        .series("tcpmon_connect_port_failures_total")
        .filter(|(labels, _)| labels["netns"] == netns)
        .map(|(_, value)| value.parse::<u64>().expect("a count"))
        .sum();
    assert_eq!(counted, load.failures());
}

#[test]
fn a_load_that_fits_raises_nothing_and_says_where_it_settles() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    // 300 ports in a minute, of 1,000.
    let (_lab, netns) = small(1_000, "0");
    let mut load = Load::start(&netns, 5);
    let row = eventually("where it settles", || {
        assert_eq!(own_alerts(&daemon, &netns), [""; 0]);
        let report = json(&daemon, "/api/v1/report");
        let rows = report["ports"].as_array().expect("rows").clone();
        let row = rows.into_iter().find(|row| row["netns"] == *netns)?;
        (row["time_wait"].as_u64()? >= 50).then_some(row)
    });
    let settles = row["settles_at_ratio"].as_f64().expect("a ratio");
    assert!((0.2..0.4).contains(&settles), "{row}");
    assert_eq!((&row["eta_s"], &row["capacity"]), (&Value::Null, &1_000.into()));
    load.end();
}

#[test]
fn ports_that_a_connect_may_take_over_raise_nothing_until_they_may_not() {
    let turn = Turn::shared();
    // connect() tries every other port first, so about half of them are used, give or take one: the
    // bound lies between that and the fifth or so that is too young to be taken over.
    let daemon = Daemon::start(&turn, &["--alert.search-slow", "0.4"]);
    let (lab, netns) = small(100, "1");
    let mut load = Load::start(&netns, 20);
    // More connections than there are ports.
    eventually("all ports to have been used", || {
        let metrics = daemon.metrics();
        let entered = metrics
            .series("tcpmon_time_wait_entered_total")
            .filter(|(labels, _)| labels["netns"] == netns)
            .map(|(_, value)| value.parse::<u64>().expect("a count"))
            .sum::<u64>();
        assert_eq!(own_alerts(&daemon, &netns), [""; 0]);
        (entered > 130).then_some(())
    });
    assert_eq!(load.failures(), 0);
    load.end();
    lab.set_sysctl("ipv4/tcp_tw_reuse", "0").expect("a sysctl");
    eventually("the ports to be taken after all", || alert(&daemon, &netns, "TcpPortSearchSlow"));
}

#[test]
fn a_full_table_is_told_at_once() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &["--alert.failure-rest", "4"]);
    let (lab, netns) = small(1_000, "0");
    lab.set_sysctl("ipv4/tcp_max_tw_buckets", "40").expect("a sysctl");
    let mut load = Load::start(&netns, 20);
    let raised = eventually("the table to be told full", || {
        alert(&daemon, &netns, "TcpTimeWaitBucketsNearlyFull")
            .filter(|it| it["severity"] == "critical")
    });
    assert!(raised["summary"].as_str().expect("words").contains("40"), "{raised}");
    eventually("who fills it to be named", || {
        let told = alert(&daemon, &netns, "TcpTimeWaitBucketsNearlyFull")?;
        let most = told["owners"].as_array()?.first()?["ports"].as_u64()?;
        assert!(most <= 40, "{told}");
        (most > 20).then_some(())
    });
    load.end();
}
