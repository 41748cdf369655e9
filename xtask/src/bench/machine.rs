//! What is here to be measured, and on what machine: what a reader must know of the figures.

use std::{env, fs, path::Path, process::Command, thread};

use anyhow::Result;
use clap::ValueEnum as _;

use super::{metrics, report::Machine, subject::Subject, wait};
use crate::process::capture;

/// Where a daemon of this machine, if it has one, listens.
const USUAL_SOCKET: &str = "/run/tcpmon/tcpmon.sock";

/// Peers that do not run on this machine, and why.
#[derive(Default)]
pub(super) struct Unfit {
    subjects: Vec<Subject>,
    pub(super) notes: Vec<String>,
}

impl Unfit {
    /// Whether it is one of them.
    pub(super) fn has(&self, subject: Subject) -> bool {
        self.subjects.contains(&subject)
    }

    /// Makes a note of one more.
    pub(super) fn tell(&mut self, subject: Subject, error: &anyhow::Error) {
        let note = format!("{} does not run here: {error:#}", subject.title());
        eprintln!("xtask: {note}");
        self.subjects.push(subject);
        self.notes.push(note);
    }

    /// A result; none where it is a peer that failed.
    pub(super) fn forgive<T>(&mut self, subject: Subject, done: Result<T>) -> Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) if subject.is_peer() => {
                wait::check()?;
                self.tell(subject, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What is compared: the bare machine first, then what was asked for, as far as it is here.
pub(super) fn subjects(only: &[Subject], notes: &mut Vec<String>) -> Vec<Subject> {
    let wanted = |subject: &Subject| subject.is_bare() || only.is_empty() || only.contains(subject);
    let is_here = |subject: &Subject| match subject.package() {
        Some(package) if subject.program().is_none() => {
            notes.push(format!(
                "{} is not installed: Debian's package {package} has it",
                subject.title()
            ));
            false
        }
        _ => true,
    };
    Subject::value_variants().iter().copied().filter(wanted).filter(is_here).collect()
}

/// What on this machine makes the figures worth less.
pub(super) fn warnings(quick: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if quick {
        notes.push("--quick shows whether the bench works; its figures mean little".to_owned());
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().and_then(|load| load.parse::<f64>().ok());
    if let Some(load) = load.filter(|load| *load > 0.5) {
        notes.push(format!("the machine was busy at the start, with a load average of {load:.2}"));
    }
    if metrics::is_ready(Path::new(USUAL_SOCKET)) {
        notes.push("a tcpmon daemon runs here already: every row has its probes too".to_owned());
    }
    let stats = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
    if stats.trim() == "1" {
        notes.push("kernel.bpf_stats_enabled is 1: every row has what measuring costs".to_owned());
    }
    notes
}

/// Where and how it is measured.
pub(crate) fn describe(binary: &Path) -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(|| env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned());
    let words: Vec<String> = env::args().skip(1).collect();
    Ok(Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpus: thread::available_parallelism().map_or(1, usize::from),
        model,
        date: capture(Command::new("date").args(["-u", "+%F %R UTC"]))?.trim().to_owned(),
        command: format!("cargo xtask {}", words.join(" ")),
        program: capture(Command::new(binary).arg("--version"))?.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_peer_that_fails_is_noted_and_tcpmon_must_not_fail() {
        let mut unfit = Unfit::default();
        let peer = Subject::BccTcpstates;
        let done: Option<()> =
            unfit.forgive(peer, Err(anyhow!("no kernel headers"))).expect("forgiven");
        assert!(done.is_none() && unfit.has(peer) && unfit.notes[0].contains("no kernel headers"));
        assert!(unfit.forgive::<()>(Subject::Tail, Err(anyhow!("it broke"))).is_err());
        assert_eq!(unfit.forgive(Subject::Tail, Ok(1)).expect("done"), Some(1));
    }

    #[test]
    fn the_bare_machine_is_always_first() {
        let mut notes = Vec::new();
        let only = [Subject::Tail, Subject::BccTcpstates];
        let here = subjects(&only, &mut notes);
        assert_eq!(here[..3], [Subject::Bare, Subject::BareAgain, Subject::Tail]);
        // The peer is either here or noted with its package.
        assert_eq!(here.contains(&Subject::BccTcpstates), notes.is_empty(), "{notes:?}");
        assert!(notes.iter().all(|note| note.contains("bpfcc-tools")), "{notes:?}");
    }
}
