//! What the pictures show: a service `api` that opens a connection to its database for each request
//! and closes it first, until no local port is left. It has a network namespace of its own, which
//! the daemon takes for its host.

use std::{
    env,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::PART_TASK;
use crate::{
    bench::{
        metrics::{self, get},
        tool::{Output, Tool},
        wait,
    },
    lab::{Lab, Options},
};

/// The range of local ports: few, so that they run out while one looks.
const RANGE: &str = "40000 40499";

/// Its processes: name, where, and what they do. `worker` and `web` are fine.
const PARTS: [(&str, &str, &[&str]); 5] = [
    ("postgres", DATABASE, &["--listen"]),
    ("redis-server", CACHE, &["--listen"]),
    ("worker", DATABASE, &["--live", "24"]),
    ("web", CACHE, &["--live", "8", "--rate", "1"]),
    ("api", DATABASE, &["--rate", "25"]),
];
/// The destination that runs out of ports, and one that does not.
const DATABASE: &str = "127.0.0.1:5432";
const CACHE: &str = "127.0.0.1:6379";

/// What must fire before a picture is taken.
const ALERTS: [&str; 2] = ["TcpPortExhausted", "TcpPortsNearlyExhausted"];
/// So much history the curves have at least: the way up, and that it stays there. The first
/// TIME_WAIT sockets expire after a minute, many at a time: all pictures are to be taken before.
const HISTORY: Duration = Duration::from_secs(38);

/// So many connections a second of others do not spoil the curves: the browser's are among them.
const QUIET: f64 = 40.0;

/// How long the daemon may take until it is ready, and the ports until they have run out.
const READY_LIMIT: Duration = Duration::from_mins(1);
const ALERT_LIMIT: Duration = Duration::from_mins(3);
/// How often it is asked.
const LOOKS: Duration = Duration::from_millis(500);

/// The scene; all of it ends when dropped.
pub(super) struct Scene {
    // In the order in which they end.
    parts: Vec<Tool>,
    daemon: Tool,
    folder: Folder,
    lab: Lab,
    begun: Instant,
}

impl Scene {
    /// Makes the namespace, and starts the daemon `binary` in it: it sees that one alone, whatever
    /// else this machine does.
    pub(super) fn open(binary: &Path) -> Result<Self> {
        let folder = Folder::new()?;
        let lab = Lab::open(Options::default()).context("the lab")?;
        lab.set_sysctl("ipv4/ip_local_port_range", RANGE).context("the lab")?;
        // What this machine's daemon is told must not be told to this one.
        let configuration = folder.path("tcpmon.toml");
        fs::write(&configuration, "").context("cannot write an empty configuration")?;
        let mut command = inside(&lab)?;
        command.arg(binary).arg("daemon").arg("--config").arg(&configuration);
        command.arg("--socket").arg(folder.path("tcpmon.sock"));
        command.args(["--namespaces", "host", "--web.listen-address", "127.0.0.1:0"]);
        command.args(["--log-level", "warn"]);
        let mut daemon = Tool::start("tcpmon daemon", &mut command, Output::Discard)?;
        let socket = folder.path("tcpmon.sock");
        wait::until("tcpmon daemon to be ready", READY_LIMIT, || {
            daemon.check()?;
            Ok(metrics::is_ready(&socket))
        })?;
        Ok(Self { parts: Vec::new(), daemon, folder, lab, begun: Instant::now() })
    }

    /// Where the daemon is asked.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path("tcpmon.sock")
    }

    /// A path for whatever goes with the scene.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// Starts its processes.
    pub(super) fn begin(&mut self) -> Result<()> {
        let own = env::current_exe().context("own path")?;
        for (name, at, words) in PARTS {
            let mut command = inside(&self.lab)?;
            command.arg(&own).args([PART_TASK, name, at]).args(words);
            self.parts.push(Tool::start(name, &mut command, Output::Discard)?);
        }
        self.begun = Instant::now();
        Ok(())
    }

    /// Fails where one of its programs has ended, or others are in the picture.
    pub(super) fn check(&mut self) -> Result<()> {
        self.parts.iter_mut().chain([&mut self.daemon]).try_for_each(Tool::check)?;
        only_ours(&get(&self.socket(), "/api/v1/report")?)
    }

    /// Waits until the ports to the database have run out, and the curves have something to show.
    pub(super) fn await_exhaustion(&mut self) -> Result<()> {
        let socket = self.socket();
        loop {
            self.check()?;
            let is_there = fire(&get(&socket, "/api/v1/alerts")?)?;
            if is_there && self.begun.elapsed() > HISTORY {
                return Ok(());
            }
            if self.begun.elapsed() > ALERT_LIMIT {
                bail!(
                    "{} do not fire after {} s, so there is nothing to take a picture of; what \
                     the daemon sees: {}",
                    ALERTS.join(" and "),
                    ALERT_LIMIT.as_secs(),
                    get(&socket, "/api/v1/report")?
                );
            }
            wait::pause(LOOKS)?;
        }
    }
}

/// Fails where another program of this machine is in the pictures: connections a second, and calls
/// that found no port, are told of every network namespace.
fn only_ours(report: &str) -> Result<()> {
    let report: Value = serde_json::from_str(report).context("the daemon's report is no JSON")?;
    let rows = report["failures"].as_array().context("the daemon's report has no failures")?;
    let opened = report["connections"].as_array().into_iter().flatten();
    let busy = opened.filter(|row| row["per_s"].as_f64().is_some_and(|rate| rate > QUIET));
    let services = rows.iter().chain(busy).filter_map(|row| row["service"].as_str());
    let ours = |service: &&str| PARTS.iter().any(|(name, ..)| name == service);
    match services.into_iter().find(|service| !ours(service)) {
        Some(other) => bail!(
            "{other} opens connections meanwhile, and would be in the pictures: make them anew \
             while this machine has nothing else to do"
        ),
        None => Ok(()),
    }
}

/// A command that runs what follows in the lab's namespace.
fn inside(lab: &Lab) -> Result<Command> {
    let netns = lab.namespaces().first().context("the lab has no namespace")?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", netns.name)).arg("--");
    Ok(command)
}

/// Whether all [`ALERTS`] are among these.
fn fire(alerts: &str) -> Result<bool> {
    let alerts: Value = serde_json::from_str(alerts).context("the daemon's alerts are no JSON")?;
    let rows = alerts.get("alerts").unwrap_or(&alerts).as_array();
    let rows = rows.context("the daemon's alerts are no list")?;
    let fires = |name: &&str| rows.iter().any(|row| row["alert"] == **name);
    Ok(ALERTS.iter().all(fires))
}

/// A folder for sockets and profiles, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = env::temp_dir().join(format!("tcpmon-screens-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_alerts_must_fire() {
        let both = r#"[{"alert": "TcpPortExhausted"}, {"alert": "TcpPortsNearlyExhausted"}]"#;
        assert!(fire(both).expect("a list"));
        assert!(fire(&format!("{{\"alerts\": {both}}}")).expect("a list"));
        assert!(!fire(r#"[{"alert": "TcpPortExhausted"}]"#).expect("a list"));
        assert!(fire("{}").is_err());
    }

    #[test]
    fn others_failures_are_not_shown() {
        let report = |service: &str| format!(r#"{{"failures": [{{"service": "{service}"}}]}}"#);
        assert!(only_ours(&report("api")).is_ok());
        let error = only_ours(&report("curl")).expect_err("a stranger").to_string();
        assert!(error.starts_with("curl opens connections"), "{error}");
        let busy = |rate| {
            let row = format!(r#"{{"service": "curl", "per_s": {rate}}}"#);
            format!(r#"{{"failures": [], "connections": [{row}]}}"#)
        };
        assert!(only_ours(&busy(900)).is_err() && only_ours(&busy(2)).is_ok());
        assert!(only_ours(r#"{"failures": []}"#).is_ok());
    }

    #[test]
    fn the_database_runs_out_and_the_cache_does_not() {
        let (first, last) = RANGE.split_once(' ').expect("a range");
        let ports = last.parse::<u32>().expect("a port") - first.parse::<u32>().expect("a port");
        let need = |at: &str| -> u32 {
            let words = PARTS.iter().filter(|part| part.1 == at).flat_map(|part| part.2.windows(2));
            let number = |word: &str| word.parse::<u32>().expect("a number");
            words
                .map(|pair| match pair {
                    ["--live", count] => number(count),
                    ["--rate", rate] => number(rate) * 60,
                    _ => 0,
                })
                .sum()
        };
        assert!(need(DATABASE) > ports && need(CACHE) < ports / 2);
    }
}
