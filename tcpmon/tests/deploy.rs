//! What is under deploy/, held against the pages under docs/: metrics that rules and dashboard ask
//! for exist, alerts have what people need, links lead somewhere. Whether Prometheus takes the
//! rules, and whether they fire, is in `tests/prometheus`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

#[path = "deploy/kubernetes.rs"]
mod kubernetes;

/// Alerts and their severities, as the daemon has them.
const ALERTS: [(&str, &[&str]); 6] = [
    ("TcpCloseWaitLeak", &["warning"]),
    ("TcpPortExhausted", &["critical"]),
    ("TcpPortExhaustionPredicted", &["warning"]),
    ("TcpPortSearchSlow", &["info"]),
    ("TcpPortsNearlyExhausted", &["critical", "warning"]),
    ("TcpTimeWaitBucketsNearlyFull", &["critical", "warning"]),
];

const RULES: &str = "deploy/prometheus/tcpmon.rules.yml";
const RECORDING: &str = "deploy/prometheus/tcpmon.recording.yml";
const DASHBOARD: &str = "deploy/grafana/tcpmon.json";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("JSON")
}

/// Names of series in a text: of metrics, and with colons in them of recording rules.
fn series(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .map(|word| word.trim_matches(':'))
        .filter(|word| word.contains("tcpmon_") || word.starts_with("process_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

/// The queries of a dashboard, and of its variables.
fn queries(dashboard: &Value) -> String {
    let mut all = String::new();
    let mut open = vec![dashboard];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(text) if matches!(name.as_str(), "expr" | "query") => {
                            all.push_str(text);
                            all.push('\n');
                        }
                        _ => open.push(value),
                    }
                }
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    all
}

/// The rules of a file: each one's lines from its beginning on, by name and in order.
fn rules(file: &str, kind: &str) -> Vec<(String, String)> {
    let beginning = format!("      - {kind}: ");
    let mut rules: Vec<(String, String)> = Vec::new();
    for line in read(file).lines().filter(|line| !line.trim_start().starts_with('#')) {
        if let Some(name) = line.strip_prefix(&beginning) {
            rules.push((name.to_owned(), String::new()));
        } else if let Some((_, text)) = rules.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    rules
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let documented = series(&read("docs/metrics.md"));
    let recorded: BTreeSet<String> =
        rules(RECORDING, "record").into_iter().map(|(name, _)| name).collect();
    assert!(documented.len() > 20 && recorded.len() > 10, "{documented:?} {recorded:?}");
    let exists = |name: &String| documented.contains(name) || recorded.contains(name);
    for (file, text) in [
        (RULES, read(RULES)),
        (RECORDING, read(RECORDING)),
        (DASHBOARD, queries(&dashboard())),
        ("docs/alerting.md", read("docs/alerting.md")),
    ] {
        let asked = series(&text);
        assert!(!asked.is_empty(), "{file} asks for nothing");
        let unknown: Vec<_> = asked.iter().filter(|name| !exists(name)).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[test]
fn alerts_are_those_of_the_daemon_and_say_what_people_need() {
    let mut severities: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in rules(RULES, "alert") {
        let value = |key: &str| {
            let key = format!("{key}: ");
            text.lines().find_map(|line| line.trim_start().strip_prefix(&key)).map(str::to_owned)
        };
        severities.entry(name.clone()).or_default().extend(value("severity"));
        if text.contains("annotations: *") {
            continue;
        }
        for annotation in ["summary", "description"] {
            assert!(value(annotation).is_some(), "{name} has no {annotation}");
        }
        assert_eq!(value("runbook_url"), Some(format!("docs/runbooks/{name}.md")), "{name}");
    }
    let expected: BTreeMap<String, BTreeSet<String>> = ALERTS
        .into_iter()
        .map(|(name, all)| (name.to_owned(), all.iter().map(|one| (*one).to_owned()).collect()))
        .collect();
    assert_eq!(severities, expected);
}

#[test]
fn every_alert_has_a_runbook_and_tests_of_both_outcomes() {
    let overview = read("docs/alerting.md");
    for (name, severities) in ALERTS {
        let page = read(&format!("docs/runbooks/{name}.md"));
        for heading in [
            &format!("# {name}\n"),
            "## What it means",
            "## Who is hurt",
            "## How to look",
            "## What to do",
            "## When not to",
        ] {
            assert!(page.contains(heading), "the runbook of {name} has no {heading}");
        }
        assert!(overview.contains(&format!("(runbooks/{name}.md)")), "{name} is not in the list");
        let tests = read(&format!("deploy/prometheus/tests/{name}.yml"));
        for severity in severities {
            assert!(tests.contains(&format!("severity=\"{severity}\"")), "{name}: {severity}");
        }
        assert!(tests.contains("exp_samples: []"), "no test of {name} has it silent");
        assert!(tests.contains("exp_annotations:"), "no test of {name} reads what it says");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut pages: Vec<String> = vec!["docs/alerting.md".to_owned()];
    pages.extend(ALERTS.map(|(name, _)| format!("docs/runbooks/{name}.md")));
    for page in pages {
        let text = read(&page);
        let folder = root().join(&page).parent().expect("a folder").to_owned();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            let there = target.is_empty() || target.contains("://") || folder.join(target).exists();
            assert!(there, "{page} links to {target}");
        }
        for word in text.split('`').filter(|word| word.starts_with("deploy/")) {
            assert!(root().join(word).exists(), "{page} names {word}");
        }
    }
}

#[test]
fn the_dashboard_asks_the_chosen_source_for_the_chosen_hosts() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut asked = 0;
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is taken");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}");
        for target in panel["targets"].as_array().expect("targets") {
            asked += 1;
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let query = target["expr"].as_str().expect("a query");
            assert!(query.contains(r#"instance=~"$instance""#), "{title}: {query}");
        }
    }
    assert!(asked > 20, "only {asked} queries");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
}
