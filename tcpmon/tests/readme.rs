//! What the README and the pages under docs/ say, held against the program: every command runs,
//! every flag, metric, option, file and link is there.
//!
//! Commands are run as they stand, in the order of the pages, with programs of the same names put
//! before those of the system: they take the daemon, the socket and the port from the usual places
//! to private ones. Loads probes, so it needs root; `cargo xtask test` sees to it.

#[path = "readme/pages.rs"]
mod pages;
#[path = "readme/place.rs"]
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use pages::{blocks, commands, files, flags, names, read, root};
use place::{Group, Place, TCPMON, help, line_with, xtask};

const PAGES: [&str; 18] = [
    "README.md",
    "docs/who-eats-the-ports.md",
    "docs/report.md",
    "docs/tail.md",
    "docs/top.md",
    "docs/metrics.md",
    "docs/time-wait.md",
    "docs/alerting.md",
    "docs/forecast.md",
    "docs/configuration.md",
    "docs/troubleshooting.md",
    "docs/security.md",
    "docs/kubernetes.md",
    "docs/overhead.md",
    "docs/faults.md",
    "docs/soak.md",
    "docs/ARCHITECTURE.md",
    "docs/screens/README.md",
];

/// Commands that no test can run, by their beginning, and why. Those of xtask are still looked up
/// in its help.
const NOT_RUN: [(&str, &str); 14] = [
    ("cargo xtask run", "becomes a daemon at the usual places"),
    ("cargo xtask test", "would run this test again"),
    ("cargo xtask setup", "may install packages"),
    ("cargo xtask build", "compiles everything in release mode"),
    ("cargo xtask dist", "compiles everything in release mode"),
    ("cargo xtask fuzz", "takes minutes, and is a step of `cargo xtask test`"),
    ("cargo xtask manifests", "writes into deploy/"),
    ("cargo xtask screens", "writes into docs/screens/, and takes a minute and a browser"),
    ("cargo xtask bench", "takes minutes, and the machine for itself"),
    ("cargo xtask soak", "takes an hour, and is done for seconds by tests/system/soak.rs"),
    ("cargo xtask vm", "takes minutes, and is a step of `cargo xtask test`"),
    ("tcpmon top", "takes a terminal, and is driven in one by tests/system/top.rs"),
    ("sudo dnf", "Fedora's"),
    ("sudo pacman", "Arch's"),
];

/// Flags of other programs that the pages name.
const FOREIGN_FLAGS: [&str; 5] = ["--lib", "--needed", "--now", "--offline", "--unix-socket"];

/// Metrics that a daemon has only once there was a cause, and which.
const CONDITIONAL: [(&str, &str); 11] = [
    ("tcpmon_connect_port_failures_total", "a connect() found no port"),
    ("tcpmon_sockets", "snapshots are on"),
    ("tcpmon_time_wait_sockets", "there is one"),
    ("tcpmon_ephemeral_ports_used", "a connection is open"),
    ("tcpmon_ephemeral_port_utilization_ratio", "a connection is open"),
    ("tcpmon_port_exhaustion_eta_seconds", "a connection is open"),
    ("tcpmon_alert_firing", "an alert has fired"),
    ("tcpmon_alertmanager_alerts_sent_total", "there is an Alertmanager"),
    ("tcpmon_alertmanager_push_failures_total", "there is an Alertmanager"),
    ("tcpmon_alertmanager_alerts_dropped_total", "there is an Alertmanager"),
    ("tcpmon_alertmanager_queue_length", "there is an Alertmanager"),
];

fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The options of the daemon with their defaults, from its help.
fn daemon_options() -> BTreeMap<String, String> {
    let help = help(Path::new(TCPMON), "daemon");
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let described = help.split(" --").skip(1).filter_map(|option| {
        let (name, rest) = option.split_once(' ')?;
        let (default, _) = rest.split_once("[default: ")?.1.split_once(']')?;
        (name != "config").then(|| (format!("--{name}"), default.to_owned()))
    });
    described.collect()
}

#[test]
fn every_command_runs() {
    let place = Place::new();
    let bin = place.programs();
    let xtask = xtask();
    let mut done = 0;
    let mut lab: Option<String> = None;
    for (at, text) in PAGES.into_iter().flat_map(commands) {
        done += 1;
        if NOT_RUN.iter().any(|(beginning, _)| text.starts_with(beginning)) {
            if let Some(task) = text.strip_prefix("cargo xtask ") {
                let own = task.split(" -- ").next().unwrap_or(task);
                let own = own.split(" #").next().unwrap_or(own);
                let known = flags(&help(&xtask, task.split(' ').next().unwrap_or(task)));
                let unknown: Vec<_> = flags(own).difference(&known).cloned().collect();
                assert!(unknown.is_empty(), "{at}: `{text}`: xtask has no {unknown:?}");
            }
        } else if text.contains("tcpmon daemon") || text.contains("tcpmon tail --standalone") {
            let daemon = text.contains("tcpmon daemon");
            let mut shell = place.shell(&bin, &text);
            let mut running = Group::start(shell.stdout(Stdio::piped()).stderr(Stdio::piped()));
            let seen = &mut Vec::new();
            let begun = if daemon {
                line_with(running.0.stderr.take().expect("a pipe"), "observing", seen)
            } else {
                line_with(running.0.stdout.take().expect("a pipe"), "OLDSTATE", seen)
            };
            begun.unwrap_or_else(|said| panic!("{at}: `{text}`: {said}"));
        } else if text.contains("tcpmon tail") || text.contains("curl -sN") {
            assert!(place.wait_for_streams(0, || true), "the stream before {at} does not end");
            let mut shell = place.shell(&bin, &text);
            let mut running = Group::start(shell.stdout(Stdio::null()).stderr(Stdio::piped()));
            let going = || running.0.try_wait().expect("a child").is_none();
            if !place.wait_for_streams(1, going) {
                running.end();
                let mut words = String::new();
                let mut errors = running.0.stderr.take().expect("a pipe");
                errors.read_to_string(&mut words).expect("UTF-8");
                panic!("{at}: `{text}` opens no stream: {words}");
            }
        } else {
            let mut output = place.shell(&bin, &text).output().expect("sh");
            if let Some(lab) = lab.as_deref().filter(|_| text.contains("| grep"))
                && !output.status.success()
            {
                // "Meanwhile": the lab's namespaces, which have ended, took their series along.
                let again = place.shell(&bin, lab).output().expect("sh");
                assert!(again.status.success(), "`{lab}`: {}", said(&again));
                output = place.shell(&bin, &text).output().expect("sh");
            }
            assert!(output.status.success(), "{at}: `{text}`: {}", said(&output));
            assert!(!output.stdout.is_empty(), "{at}: `{text}` prints nothing");
            if text.contains("xtask lab") {
                lab = Some(text);
            }
        }
    }
    assert!(done > 20, "only {done} commands were found");
}

#[test]
fn every_flag_exists() {
    let xtask = xtask();
    let mut known: BTreeSet<String> = FOREIGN_FLAGS.map(str::to_owned).into();
    for command in ["daemon", "tail", "top", "check", "explain", "report", "advise"] {
        known.extend(flags(&help(Path::new(TCPMON), command)));
    }
    for task in ["setup", "build", "run", "test", "vm", "lab", "bench", "fuzz", "screens", "soak"] {
        known.extend(flags(&help(&xtask, task)));
    }
    for page in PAGES {
        let unknown: Vec<_> = flags(&read(page)).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{page} names flags that no program has: {unknown:?}");
    }
}

#[test]
fn every_option_of_the_daemon_is_documented_with_its_default() {
    let page = read("docs/configuration.md");
    let rows: BTreeMap<String, String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `--")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)))
        .map(|(name, default)| (format!("--{name}"), default.trim_matches('`').to_owned()))
        .collect();
    let options = daemon_options();
    assert!(options.len() > 10, "{options:?}");
    // Options without a default say so.
    let known = flags(&help(Path::new(TCPMON), "daemon"));
    let (without, rows): (BTreeMap<_, _>, _) =
        rows.into_iter().partition(|(_, default)| default == "none");
    assert!(without.keys().all(|name| known.contains(name)), "{without:?}");
    assert_eq!(rows, options);
}

#[test]
fn every_configuration_shown_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("tcpmon.sock").display().to_string();
    let file = folder.path().join("tcpmon.toml");
    let mut tried = 0;
    for page in PAGES {
        for (line, block) in blocks(&read(page), &["toml"]) {
            let text = block
                .join("\n")
                .replace("[::1]:10066", "127.0.0.1:0")
                .replace("127.0.0.1:10066", "127.0.0.1:0")
                .replace("/run/tcpmon/tcpmon.sock", &socket);
            fs::write(&file, text).expect("a file");
            let mut command = Command::new(TCPMON);
            command.arg("daemon").arg("--config").arg(&file).args(["--socket", &socket]);
            let mut daemon = Group::start(command.stderr(Stdio::piped()));
            let errors = daemon.0.stderr.take().expect("a pipe");
            line_with(errors, "observing", &mut Vec::new())
                .unwrap_or_else(|said| panic!("{page}:{line}: {said}"));
            tried += 1;
        }
    }
    assert!(tried > 1, "only {tried} were found");
}

#[test]
fn metrics_and_their_page_agree() {
    let place = Place::new();
    // The first scrape is the traffic that the second tells of.
    place.get("/metrics");
    let scrape = place.get("/metrics");
    let shown: BTreeSet<String> = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .chain(CONDITIONAL.map(|(name, _)| name.to_owned()))
        .collect();
    let page = read("docs/metrics.md");
    let documented: BTreeSet<String> =
        ["tcpmon_", "process_"].iter().flat_map(|prefix| names(&page, prefix)).collect();
    assert_eq!(documented, shown);
    for page in PAGES {
        let unknown: Vec<_> = names(&read(page), "tcpmon_")
            .into_iter()
            .filter(|name| name.ends_with("_total"))
            .collect();
        assert!(unknown.iter().all(|name| shown.contains(name)), "{page}: {unknown:?}");
    }
}

#[test]
fn an_event_has_the_members_that_its_page_shows() {
    let place = Place::new();
    let mut tail = Group::start(
        Command::new(TCPMON)
            .args(["tail", "--json", "--count", "1", "--socket", &place.socket()])
            .stdout(Stdio::piped()),
    );
    // Asking for the number of streams is traffic too, and one event is all that it wants.
    place.wait_for_streams(1, || tail.0.try_wait().expect("a child").is_none());
    place.get("/healthz");
    let mut event = String::new();
    BufReader::new(tail.0.stdout.take().expect("a pipe")).read_line(&mut event).expect("UTF-8");
    let members = |text: &str| -> Vec<String> {
        let object: Value =
            serde_json::from_str(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        object.as_object().expect("an object").keys().cloned().collect()
    };
    let examples = blocks(&read("docs/tail.md"), &["json"]);
    let [(_, example)] = &examples[..] else { panic!("one example is wanted: {examples:?}") };
    assert_eq!(members(&example.concat()), members(&event));
}

#[test]
fn links_and_files_are_there() {
    let mut there = Vec::new();
    files(&root(), &mut there);
    for page in PAGES {
        let text = read(page);
        let folder = root().join(page).parent().expect("a folder").to_owned();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                assert!(folder.join(path).exists(), "{page} links to {target}, which is not there");
            }
        }
        let source = |word: &&str| Path::new(word).extension().is_some_and(|kind| kind == "rs");
        for word in text.split('`').filter(source).filter(|word| !word.contains(' ')) {
            assert!(there.iter().any(|path| path.ends_with(word)), "{page}: no file {word}");
        }
    }
}
