//! Debian's Prometheus and Alertmanager with the files under deploy/, and with tcpmon's own pusher.
//!
//! Both programs run on loopback, with their data in temporary folders; `cargo xtask test` installs
//! them. What happens is waited for, with a limit.

mod exporter;
mod fleet;
mod server;

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use serde_json::Value;
use tcpmon::export::alertmanager::{Alert, AlertPusher, Annotations, Labels, Settings};
use tcpmon::model::report::Severity;

use exporter::Exporter;
use server::{Server, alertmanager, deploy, shipped, until};

/// Runs promtool beside the shipped files.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(deploy().join("prometheus"))
        .output()
        .expect("promtool: cargo xtask test installs it");
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_takes_rules_and_configuration() {
    promtool(&["check", "rules", "tcpmon.rules.yml", "tcpmon.recording.yml"]);
    promtool(&["check", "config", "prometheus.example.yml"]);
}

#[test]
fn alerts_fire_and_end_as_their_tests_say() {
    let folder = fs::read_dir(deploy().join("prometheus/tests")).expect("a folder");
    let mut files: Vec<String> =
        folder.flatten().map(|entry| entry.path().display().to_string()).collect();
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    let mut arguments = vec!["test", "rules"];
    arguments.extend(files.iter().map(String::as_str));
    promtool(&arguments);
}

/// Of a thousand hosts, the ten that run dry first are found.
#[test]
fn the_first_of_a_thousand_hosts_is_found() {
    use std::fmt::Write as _;
    let folder = tempfile::tempdir().expect("a folder");
    let rules = deploy().join("prometheus/tcpmon.recording.yml");
    let mut text = format!(
        "rule_files: ['{}']\nevaluation_interval: 30s\ntests:\n  - interval: 30s\n    \
         input_series:\n",
        rules.display()
    );
    for host in 0..1000 {
        // All different, and in no order.
        let left = (host * 617) % 1000 * 10 + 60;
        let series = "tcpmon_port_exhaustion_eta_seconds";
        writeln!(text, "      - series: '{series}{{job=\"tcpmon\",instance=\"h{host}\",netns=\"host\",src=\"10.0.0.1\",dst=\"10.0.0.2\",dport=\"80\"}}'\n        values: '{left}x4'")
            .expect("a text");
    }
    text.push_str(
        "    promql_expr_test:\n      - expr: \
         bottomk(2, instance:tcpmon_port_exhaustion_eta_seconds:min)\n        eval_time: 1m\n        \
         exp_samples:\n",
    );
    let first_two = (0..1000).filter(|host| (host * 617) % 1000 < 2);
    for host in first_two {
        let left = (host * 617) % 1000 * 10 + 60;
        writeln!(text, "          - {{labels: 'instance:tcpmon_port_exhaustion_eta_seconds:min{{job=\"tcpmon\",instance=\"h{host}\"}}', value: {left}}}")
            .expect("a text");
    }
    let file = folder.path().join("fleet.yml");
    fs::write(&file, text).expect("a file");
    promtool(&["test", "rules", &file.display().to_string()]);
}

/// The shipped rules, made quick: they are judged each second, and without waiting.
fn quick(rules: &str) -> String {
    let mut text = String::new();
    for line in rules.lines() {
        let key = line.trim_start();
        if !key.starts_with("for: ") && !key.starts_with("keep_firing_for: ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.replace("- name: ", "- name: quick-")
        .replace("interval: 15s", "interval: 1s")
        .replace("interval: 30s", "interval: 1s")
        .replace("- alert: ", "- alert: Quick")
        .replace("[1m]", "[5s]")
        .replace("offset 1m", "offset 5s")
        .replace("[5m]", "[15s]")
}

fn prometheus(exporter: &Exporter, alertmanager: &Server) -> Server {
    let rules = shipped("prometheus/tcpmon.rules.yml");
    let recording = quick(&shipped("prometheus/tcpmon.recording.yml"));
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules.yml, quick.yml, recording.yml]\n\
         scrape_configs: [{{job_name: tcpmon, static_configs: [{{targets: ['{}']}}]}}]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        exporter.address, alertmanager.address
    );
    let files = [
        ("prometheus.yml", config.as_str()),
        ("rules.yml", &rules),
        ("quick.yml", &quick(&rules)),
        ("recording.yml", &recording),
    ];
    Server::start("prometheus", &files, |folder| {
        vec![
            format!("--config.file={}/prometheus.yml", folder.display()),
            format!("--storage.tsdb.path={}/data", folder.display()),
            "--log.level=warn".into(),
        ]
    })
}

/// Names of the alerts that Alertmanager holds to be active.
fn active(alertmanager: &Server) -> Vec<Value> {
    let answer = alertmanager.get("/api/v2/alerts");
    answer.as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

fn names(alerts: &[Value]) -> BTreeSet<&str> {
    alerts.iter().filter_map(|alert| alert["labels"]["alertname"].as_str()).collect()
}

/// A text as it may stand in a query string.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"))
}

/// The queries of the dashboard, as Grafana would ask them.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&shipped("grafana/tcpmon.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let asked = targets.filter_map(|target| target["expr"].as_str()).map(|query| {
        query
            .replace("$__rate_interval", "5s")
            .replace("$instance", ".*")
            .replace("$job", ".*")
            .replace("[1h]", "[5s]")
    });
    asked.collect()
}

#[test]
fn rules_fire_in_prometheus_arrive_at_alertmanager_and_are_resolved() {
    let exporter = Exporter::start();
    let alertmanager = alertmanager();
    let prometheus = prometheus(&exporter, &alertmanager);

    // The shipped rules are loaded, and each can be judged.
    let rules = until("rules judged", || {
        let rules = prometheus.get("/api/v1/rules")["data"]["groups"].clone();
        let quick = rules
            .as_array()?
            .iter()
            .filter(|group| group["name"].as_str().is_some_and(|name| name.starts_with("quick-")));
        let judged = quick.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        judged.map(|rule| rule["health"] == "ok").reduce(|all, one| all && one)?.then_some(rules)
    });
    assert!(rules.as_array().expect("groups").iter().any(|group| group["name"] == "tcpmon"));

    // Every query of the dashboard has an answer that is not empty.
    for query in queries() {
        until(&query, || {
            let answer = prometheus.get(&format!("/api/v1/query?query={}", encoded(&query)));
            assert_eq!(answer["status"], "success", "{query}: {answer}");
            let found = answer["data"]["result"].as_array()?.len();
            (found > 0).then_some(())
        });
    }

    let expected: BTreeSet<&str> = [
        "QuickTcpCloseWaitLeak",
        "QuickTcpPortExhausted",
        "QuickTcpPortExhaustionPredicted",
        "QuickTcpPortSearchSlow",
        "QuickTcpPortsNearlyExhausted",
        "QuickTcpTimeWaitBucketsNearlyFull",
    ]
    .into();
    until("alerts in Prometheus", || {
        let alerts = prometheus.get("/api/v1/alerts")["data"]["alerts"].clone();
        let firing: Vec<Value> =
            alerts.as_array()?.iter().filter(|alert| alert["state"] == "firing").cloned().collect();
        expected.is_subset(&names(&firing)).then_some(())
    });
    let alerts = until("alerts in Alertmanager", || {
        let alerts = active(&alertmanager);
        expected.is_subset(&names(&alerts)).then_some(alerts)
    });
    let exhausted = alerts
        .iter()
        .find(|alert| alert["labels"]["alertname"] == "QuickTcpPortExhausted")
        .expect("it was there");
    for (label, value) in [
        ("severity", "critical"),
        ("netns", "host"),
        ("src", "10.0.0.1"),
        ("dst", "10.0.0.2"),
        ("dport", "5432"),
        ("instance", &exporter.address.to_string()),
    ] {
        assert_eq!(exhausted["labels"][label], value, "{exhausted}");
    }
    assert_eq!(exhausted["annotations"]["owners"], "api ", "{exhausted}");
    let runbook = exhausted["annotations"]["runbook_url"].as_str().expect("a runbook");
    assert!(deploy().join("..").join(runbook).exists(), "{runbook}");

    exporter.recover();
    until("resolution in Alertmanager", || {
        let alerts = active(&alertmanager);
        expected.is_disjoint(&names(&alerts)).then_some(())
    });
}

fn alert(name: &str) -> Alert {
    Alert {
        labels: Labels {
            alertname: name.into(),
            severity: Severity::Critical,
            netns: "host".into(),
            src: Some([10, 0, 0, 1].into()),
            dst: Some([10, 0, 0, 2].into()),
            dport: Some(5432),
            service: None,
        },
        annotations: Annotations {
            summary: "no \"port\" left".into(),
            owners: "api (22000)".into(),
            runbook_url: format!("docs/runbooks/{name}.md"),
            ..Annotations::default()
        },
        starts_at: jiff::Timestamp::now(),
    }
}

#[test]
fn what_tcpmon_pushes_arrives_at_alertmanager_and_is_resolved() {
    let alertmanager = alertmanager();
    let url = format!("http://{}", alertmanager.address);
    let mut settings = Settings::new(vec![url.parse().expect("a URL")], "db-7".into());
    settings.generator_url = Some("http://db-7:10066/".into());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let pusher = {
        let _entered = runtime.enter();
        AlertPusher::start(settings)
    };
    let have = |expected: &[&str]| {
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        until(&format!("{expected:?}"), || {
            let alerts = active(&alertmanager);
            (names(&alerts) == expected).then_some(alerts)
        })
    };

    let (one, other) = (alert("TcpPortExhausted"), alert("TcpPortsNearlyExhausted"));
    pusher.set(vec![one.clone()]);
    let alerts = have(&["TcpPortExhausted"]);
    let [arrived] = &alerts[..] else { panic!("{alerts:?}") };
    assert_eq!(
        arrived["labels"],
        serde_json::json!({
            "alertname": "TcpPortExhausted", "severity": "critical", "netns": "host",
            "src": "10.0.0.1", "dst": "10.0.0.2", "dport": "5432", "instance": "db-7",
        })
    );
    assert_eq!(arrived["annotations"]["summary"], "no \"port\" left");
    assert_eq!(arrived["generatorURL"], "http://db-7:10066/");

    pusher.set(vec![one, other.clone()]);
    have(&["TcpPortExhausted", "TcpPortsNearlyExhausted"]);
    pusher.set(vec![other]);
    have(&["TcpPortsNearlyExhausted"]);
    runtime.block_on(pusher.shutdown(Duration::from_secs(5)));
    have(&[]);
}
