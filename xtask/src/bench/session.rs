//! A subject at work: its programs started, ready to see events, and ended together.

use std::{
    fs::{self, DirBuilder},
    net::TcpListener,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    floor::Floor,
    metrics::{self, Metrics},
    proc::{Measuring, Memory, ProgramStats},
    stats::to_f64,
    subject::Subject,
    tool::{Output, Tool},
    wait,
};

/// How long a program may take until it sees events: bcc compiles for seconds.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// What all sessions share: the program, and a folder for sockets that goes with this.
pub(crate) struct Kit {
    binary: PathBuf,
    folder: PathBuf,
}

/// How a session's daemon is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeStats {
    /// The kernel measures the probes, as it does by default.
    On,
    /// It does not, so that measuring is no part of what is measured.
    Off,
}

/// What a session used, in CPU seconds and bytes; 0 for a part that it has not got.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// CPU seconds of the daemon.
    pub daemon_cpu: f64,
    /// CPU seconds of the tail or the peer.
    pub reader_cpu: f64,
    /// Memory of the daemon.
    pub daemon_memory: Memory,
    /// Memory of the tail or the peer.
    pub reader_memory: Memory,
}

/// The programs of a subject.
pub(crate) struct Session {
    /// A tail or a peer. Before the daemon, so that it ends first.
    reader: Option<Tool>,
    daemon: Option<Tool>,
    /// Programs that do nothing, while the session lasts.
    floor: Option<Floor>,
    socket: PathBuf,
}

impl Kit {
    /// For the program `binary`.
    pub(crate) fn new(binary: PathBuf) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tcpmon-bench-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let kit = Self { binary, folder };
        // What this machine's daemon is told must not be told to the one that is measured.
        fs::write(kit.configuration(), "").context("cannot write an empty configuration")?;
        Ok(kit)
    }

    /// The program that is measured.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("tcpmon.toml")
    }

    /// A path for a socket that no session had before.
    fn socket(&self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        self.folder.join(format!("{}.sock", NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

impl Session {
    /// Starts the programs of `subject` and waits until they see every event. `output` is for
    /// what the tail or the peer writes; the daemon writes nothing.
    pub(super) fn start(
        kit: &Kit,
        subject: Subject,
        stats: ProbeStats,
        output: Output,
    ) -> Result<Self> {
        let mut session = Self { reader: None, daemon: None, floor: None, socket: kit.socket() };
        if subject == Subject::Floor {
            session.floor = Some(Floor::attach()?);
        }
        if subject.has_daemon() {
            session.start_daemon(kit, stats, subject.daemon())?;
        }
        if let Some(filter) = subject.tail() {
            session.start_tail(kit, filter, output)?;
        } else if subject.is_peer() {
            let mut command =
                subject.command().with_context(|| format!("no {} here", subject.title()))?;
            session.reader = Some(Tool::start("its program", &mut command, output)?);
            session.await_attached()?;
        }
        Ok(session)
    }

    /// Starts a daemon with further arguments, and nothing else.
    pub(crate) fn start_daemon_alone(
        kit: &Kit,
        stats: ProbeStats,
        further: &[&str],
    ) -> Result<Self> {
        let mut session = Self { reader: None, daemon: None, floor: None, socket: kit.socket() };
        session.start_daemon(kit, stats, further)?;
        Ok(session)
    }

    /// Where its daemon is asked.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon's process id.
    pub(crate) fn daemon(&self) -> Option<u32> {
        self.daemon.as_ref().map(Tool::pid)
    }

    /// Starts the daemon and waits until it is ready.
    fn start_daemon(&mut self, kit: &Kit, stats: ProbeStats, further: &[&str]) -> Result<()> {
        let mut command = Command::new(&kit.binary);
        command.arg("daemon").arg("--config").arg(kit.configuration());
        command.arg("--socket").arg(&self.socket);
        command.args(["--web.listen-address", "127.0.0.1:0", "--log-level", "warn"]);
        let measured = if stats == ProbeStats::On { "true" } else { "false" };
        command.args(["--probe-stats", measured]).args(further);
        let daemon =
            self.daemon.insert(Tool::start("tcpmon daemon", &mut command, Output::Discard)?);
        let socket = &self.socket;
        wait::until("tcpmon daemon to be ready", READY_LIMIT, || {
            daemon.check()?;
            Ok(metrics::is_ready(socket))
        })
    }

    /// Starts a tail of the session's daemon, and waits until the daemon knows of it.
    pub(crate) fn start_tail(&mut self, kit: &Kit, filter: &[&str], output: Output) -> Result<()> {
        let mut command = Command::new(&kit.binary);
        command.args(["tail", "--json"]).args(filter).arg("--socket").arg(&self.socket);
        let tail = self.reader.insert(Tool::start("tcpmon tail", &mut command, output)?);
        let socket = &self.socket;
        wait::until("tcpmon tail to subscribe", READY_LIMIT, || {
            tail.check()?;
            Ok(Metrics::ask(socket)?.sum("tcpmon_subscribers") > 0.0)
        })
    }

    /// Waits until a peer's program runs on an event that is made for it: peers do not say when
    /// they are attached where nobody reads what they print.
    fn await_attached(&mut self) -> Result<()> {
        let Some(peer) = self.reader.as_mut() else { return Ok(()) };
        let _measuring = Measuring::begin().context("cannot measure BPF programs (bpf(2))")?;
        wait::until("its probe to be attached", READY_LIMIT, || {
            peer.check()?;
            // Two transitions, and no time-wait socket: a listener comes and goes.
            drop(TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on 127.0.0.1")?);
            Ok(peer.programs()?.runs > 0)
        })
    }

    /// Fails if any of its programs has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.tools().try_for_each(Tool::check)
    }

    /// Waits until everything that has happened has been worked off.
    pub(crate) fn await_rest(&mut self) -> Result<()> {
        self.tools().try_for_each(Tool::await_rest)
    }

    /// What it has used since its programs began.
    pub(super) fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        if let Some(daemon) = &self.daemon {
            usage.daemon_cpu = daemon.cpu_time()?.as_secs_f64();
            usage.daemon_memory = daemon.memory()?;
        }
        if let Some(reader) = &self.reader {
            usage.reader_cpu = reader.cpu_time()?.as_secs_f64();
            usage.reader_memory = reader.memory()?;
        }
        Ok(usage)
    }

    /// The kernel's account of the probes.
    pub(super) fn programs(&self) -> Result<ProgramStats> {
        match (&self.daemon, &self.reader) {
            (Some(prober), _) | (None, Some(prober)) => prober.programs(),
            (None, None) => Ok(ProgramStats::default()),
        }
    }

    /// Events lost so far, as its programs tell, and those that its probe missed.
    pub(super) fn lost(&self) -> Result<f64> {
        let told = match (&self.daemon, &self.reader) {
            (Some(_), _) => Metrics::ask(&self.socket)?.sum("tcpmon_events_lost_total"),
            (None, Some(peer)) => to_f64(peer.told_lost()),
            (None, None) => 0.0,
        };
        Ok(told + to_f64(self.programs()?.misses))
    }

    /// Events that the daemon has counted so far; `None` without a daemon.
    pub(super) fn counted(&self) -> Result<Option<f64>> {
        self.of_daemon(|metrics| metrics.sum("tcpmon_events_total"))
    }

    /// Seconds that the daemon's probes on timers have run so far; `None` without a daemon.
    pub(super) fn time_on_timers(&self) -> Result<Option<f64>> {
        self.of_daemon(|metrics| metrics.sum_of("tcpmon_probe_run_seconds_total", "timer_"))
    }

    /// What the daemon's metrics tell; `None` without a daemon.
    fn of_daemon(&self, figure: impl FnOnce(&Metrics) -> f64) -> Result<Option<f64>> {
        let ask = || Metrics::ask(&self.socket).map(|metrics| figure(&metrics));
        self.daemon.as_ref().map(|_| ask()).transpose()
    }

    /// Ends its programs, the reader first.
    pub(crate) fn stop(self) {
        let Self { reader, daemon, .. } = self;
        reader.into_iter().chain(daemon).for_each(Tool::stop);
    }

    fn tools(&mut self) -> impl Iterator<Item = &mut Tool> {
        self.daemon.iter_mut().chain(&mut self.reader)
    }
}

impl Usage {
    /// What was used between two looks; memory as at the later one.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            daemon_cpu: self.daemon_cpu - before.daemon_cpu,
            reader_cpu: self.reader_cpu - before.reader_cpu,
            ..self
        }
    }

    /// CPU seconds of all parts.
    pub(super) fn cpu(self) -> f64 {
        self.daemon_cpu + self.reader_cpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_cpu_from_the_first_look_and_memory_at_the_last() {
        let memory = Memory { resident: 1, peak: 2 };
        let before = Usage { daemon_cpu: 1.0, reader_cpu: 2.0, ..Usage::default() };
        let after = Usage {
            daemon_cpu: 1.5,
            reader_cpu: 2.25,
            daemon_memory: memory,
            reader_memory: Memory::default(),
        };
        let usage = after.since(before);
        assert!((usage.cpu() - 0.75).abs() < 1e-9, "{usage:?}");
        assert_eq!(usage.daemon_memory, memory);
    }

    #[test]
    fn the_folder_goes_with_the_kit() {
        let kit = Kit::new("/nonexistent/tcpmon".into()).expect("a folder");
        let folder = kit.folder.clone();
        assert!(folder.is_dir());
        assert_ne!(kit.socket(), kit.socket());
        drop(kit);
        assert!(!folder.exists());
    }
}
