//! From a real load to the API of a real Alertmanager: by the daemon itself, and by a real
//! Prometheus that scrapes it and judges the shipped rules.

#[path = "../../prometheus/server.rs"]
mod server;

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::load::{Load, small};
use crate::support::skipped;
use crate::support::turn::Turn;
use server::{Server, alertmanager, shipped, until};

/// Whether there are servers to push to. `TCPMON_ALERTMANAGER=required` says that there must be.
fn servers(test: &str) -> bool {
    let is_required = std::env::var_os("TCPMON_ALERTMANAGER").is_some_and(|it| it == "required");
    let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    for program in ["prometheus-alertmanager", "prometheus"] {
        if !is_there(program) {
            assert!(!is_required, "there is no {program}");
            skipped(test, program);
            return false;
        }
    }
    true
}

/// Prometheus with the shipped rules, made quick: it judges each second, scrapes as often, and
/// waits for nothing to last.
fn prometheus(daemon: &Daemon, alertmanager: &Server) -> Server {
    let rules = shipped("prometheus/tcpmon.rules.yml");
    let lasts = |line: &&str| !line.trim_start().starts_with("for: ");
    let rules = rules
        .lines()
        .filter(lasts)
        .collect::<Vec<_>>()
        .join("\n")
        .replace("interval: 15s", "interval: 1s")
        .replace("[1m]", "[10s]")
        .replace("offset 1m", "offset 10s");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules.yml]\n\
         scrape_configs: [{{job_name: tcpmon, static_configs: [{{targets: ['{}']}}]}}]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        daemon.address(),
        alertmanager.address
    );
    let files = [("prometheus.yml", config.as_str()), ("rules.yml", &rules)];
    Server::start("prometheus", &files, |folder| {
        vec![
            format!("--config.file={}/prometheus.yml", folder.display()),
            format!("--storage.tsdb.path={}/data", folder.display()),
            "--log.level=warn".into(),
        ]
    })
}

/// An active alert about that namespace; `instance` tells who sent it.
fn active(alertmanager: &Server, alert: &str, netns: &str, instance: &str) -> Option<Value> {
    let alerts = alertmanager.get("/api/v2/alerts");
    let alerts = alerts.as_array().unwrap_or_else(|| panic!("{alerts}"));
    let is_it = |it: &&Value| {
        let labels = &it["labels"];
        labels["alertname"] == alert && labels["netns"] == netns && labels["instance"] == instance
    };
    alerts.iter().find(is_it).cloned()
}

#[test]
fn an_exhausted_destination_reaches_alertmanager_by_both_ways_and_is_resolved_by_both() {
    if !servers("pushed") {
        return;
    }
    let turn = Turn::shared();
    let alertmanager = alertmanager();
    let url = format!("http://{}", alertmanager.address);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = host.as_str();
    let arguments = ["--alertmanager.url", &url, "--alert.failure-rest", "4"];
    let daemon = Daemon::start(&turn, &arguments);
    let prometheus = prometheus(&daemon, &alertmanager);
    until("a scrape", || {
        let up = prometheus.get("/api/v1/query?query=up");
        (up["data"]["result"][0]["value"][1] == "1").then_some(())
    });
    let (_lab, netns) = small(200, "0");
    let mut load = Load::start(&netns, 10);
    let scraped = daemon.address().to_string();
    for instance in [name, &scraped] {
        until(&format!("a warning of {instance}"), || {
            active(&alertmanager, "TcpPortExhaustionPredicted", &netns, instance)
        });
    }
    assert_eq!(load.failures(), 0, "warned only when it had come");
    let exhausted = |instance: &str| active(&alertmanager, "TcpPortExhausted", &netns, instance);
    for instance in [name, &scraped] {
        let arrived = until(&format!("the alert of {instance}"), || exhausted(instance));
        let labels = &arrived["labels"];
        assert_eq!((&labels["dst"], &labels["dport"]), (&"127.0.0.7".into(), &"907".into()));
        assert_eq!(labels["severity"], "critical", "{arrived}");
        for annotation in ["summary", "owners", "runbook_url"] {
            let text = arrived["annotations"][annotation].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "no {annotation}: {arrived}");
        }
    }
    load.end();
    until("it to be resolved by the daemon", || exhausted(name).is_none().then_some(()));

    // Again, and the daemon ends: what it has raised ends with it.
    let mut load = Load::start(&netns, 20);
    until("the alert once more", || exhausted(name));
    let ended = daemon.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    until("it to be resolved at the end", || exhausted(name).is_none().then_some(()));
    load.end();
    until("it to be resolved by Prometheus", || exhausted(&scraped).is_none().then_some(()));
}
