//! `cargo xtask bench`: what tcpmon costs, beside the bare machine and beside its peers on the
//! same work.
//!
//! Whatever is compared runs in turn within one round, and each ratio is to the bare run of the
//! same round: a machine's pace wanders more from minute to minute than tcpmon costs. Speed is
//! told here and asserted nowhere.
//!
//! Load A, in the lab's namespace: connections opened and closed as fast as it goes. Load B: a
//! look at many time-wait sockets ([`look`]).

mod bpf;
pub mod churn;
pub mod detail;
pub mod diag;
mod floor;
pub mod goals;
pub mod idle;
mod load;
pub mod look;
pub(crate) mod machine;
pub(crate) mod metrics;
pub mod proc;
pub mod report;
pub mod session;
pub mod stats;
pub mod subject;
pub(crate) mod table;
pub mod timers;
pub(crate) mod tool;
pub(crate) mod wait;

use std::{
    env,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use self::{
    load::Loads, machine::Unfit, report::Report, session::Kit, subject::Subject, table::Form,
};
use crate::{
    build,
    process::{find_program, is_root},
};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds; each runs every subject once [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Connections of a load, ten events each [default: 150000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    connections: Option<u64>,
    /// Time-wait sockets that the part `look` looks at [default: 200000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    sockets: Option<u64>,
    /// See whether all works: one round of 5000 connections, and a short look at the rest
    #[arg(long)]
    quick: bool,
    /// Measure only these, and the bare machine
    #[arg(long, value_name = "SUBJECT", value_delimiter = ',')]
    only: Vec<Subject>,
    /// Measure only this
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    parts: Vec<Part>,
    /// Loads at a time in the part `saturated` [default: as many as there are CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    saturate: Option<u16>,
    /// Write Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Write JSON, every single run included
    #[arg(long)]
    json: bool,
    /// Measure this program instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Load A, one load at a time
    Churn,
    /// Load A, every CPU busy with a load of its own
    Saturated,
    /// The kernel's own measure of the BPF programs
    Probes,
    /// Whether everything that happened is told
    Told,
    /// What the probes on timers cost others' timers
    Timers,
    /// CPU while nothing happens
    Idle,
    /// From the first event after silence to its line
    Latency,
    /// Load B, one look at many time-wait sockets
    Look,
}

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    rounds: usize,
    connections: u64,
    sockets: u64,
    idle: Duration,
    latencies: usize,
}

impl Extent {
    fn of(args: &Args) -> Self {
        let usual = if args.quick {
            Self {
                rounds: 1,
                connections: 5_000,
                sockets: 5_000,
                idle: Duration::from_secs(3),
                latencies: 5,
            }
        } else {
            Self {
                rounds: 5,
                connections: 150_000,
                sockets: 200_000,
                idle: Duration::from_secs(20),
                latencies: 20,
            }
        };
        Self {
            rounds: args.rounds.map_or(usual.rounds, usize::from),
            connections: args.connections.unwrap_or(usual.connections),
            sockets: args.sockets.unwrap_or(usual.sockets),
            ..usual
        }
    }
}

/// Builds the program, measures, and writes the tables.
pub fn main(args: &Args) -> Result<()> {
    let binary = build::given_or_built(args.binary.as_deref())?;
    if !is_root() {
        return become_root(&binary);
    }
    wait::watch_signals()?;
    let report = measure(args, binary)?;
    let out = if args.json {
        report.json()? + "\n"
    } else {
        report.render(if args.markdown { Form::Markdown } else { Form::Text })
    };
    io::stdout().write_all(out.as_bytes()).context("cannot write to standard output")
}

/// Runs this again as root, with the program that has just been built as its user.
pub(crate) fn become_root(binary: &Path) -> Result<()> {
    if find_program("sudo").is_none() {
        bail!("this loads probes and makes namespaces: run it as root");
    }
    let own = env::current_exe().context("own path")?;
    let mut command = Command::new("sudo");
    command.arg("--").arg(own).args(env::args_os().skip(1));
    if !env::args_os().any(|word| word.to_string_lossy().starts_with("--binary")) {
        command.arg("--binary").arg(binary);
    }
    Err(command.exec()).context("cannot start sudo")
}

fn measure(args: &Args, binary: PathBuf) -> Result<Report> {
    let extent = Extent::of(args);
    let kit = Kit::new(binary)?;
    let mut report = Report { machine: machine::describe(kit.binary())?, ..Report::default() };
    report.notes = machine::warnings(args.quick);
    let mut subjects = machine::subjects(&args.only, &mut report.notes);
    let wants = |part| args.parts.is_empty() || args.parts.contains(&part);
    let saturate = args.saturate.map_or(report.machine.cpus, usize::from);
    let single = [Part::Churn, Part::Probes, Part::Told].into_iter().any(wants);
    let most = if wants(Part::Saturated) { saturate } else { usize::from(single) };
    let mut loads = Loads::open(most)?;
    let mut unfit = Unfit::default();
    for (part, threads) in [(Part::Churn, 1), (Part::Saturated, saturate)] {
        if !wants(part) {
            continue;
        }
        let work = (threads, extent.connections, extent.rounds);
        let mut tell = |subject, error: &anyhow::Error| unfit.tell(subject, error);
        report.churn.push(churn::measure(&kit, &mut loads, &subjects, work, &mut tell)?);
        subjects.retain(|subject| !unfit.has(*subject));
    }
    subjects.retain(|subject| !subject.is_idle());
    for &subject in &subjects {
        if wants(Part::Probes) && !unfit.has(subject) {
            eprintln!("xtask: the kernel measures: {}", subject.title());
            let work = (extent.connections, extent.rounds);
            let done = detail::probe_time(&kit, &mut loads, subject, work);
            report.probe_time.extend(unfit.forgive(subject, done)?);
        }
        let tells = subject != Subject::FilteredTail;
        if wants(Part::Told) && tells && !unfit.has(subject) {
            eprintln!("xtask: what is told is counted: {}", subject.title());
            let done = detail::seen(&kit, &mut loads, subject, extent.connections);
            report.seen.extend(unfit.forgive(subject, done)?);
        }
    }
    subjects.retain(|subject| !unfit.has(*subject));
    // Their namespaces' last time-wait sockets go now, not while nothing is to happen.
    drop(loads);
    if wants(Part::Look) {
        report.look = Some(look::measure(&kit, extent.sockets, extent.rounds)?);
    }
    if wants(Part::Timers) {
        eprintln!("xtask: others' timers, for {} s at each rate", extent.idle.as_secs() / 2);
        report.timers = timers::measure(&kit, extent.idle / 2)?;
    }
    if wants(Part::Idle) {
        eprintln!("xtask: nothing happens for {} s, once for each", extent.idle.as_secs());
        let mut tell = |subject, error: &anyhow::Error| unfit.tell(subject, error);
        report.idle = idle::measure(&kit, &subjects, extent.idle, &mut tell)?;
    }
    // It is the usual daemon's.
    let is_usual = |subject: &Subject| subject.has_daemon() && subject.daemon().is_empty();
    if wants(Part::Latency) && subjects.iter().any(is_usual) {
        eprintln!("xtask: {} first events after silence", extent.latencies);
        report.latency = idle::latency(&kit, extent.latencies)?;
    }
    report.notes.extend(unfit.notes);
    Ok(report)
}
