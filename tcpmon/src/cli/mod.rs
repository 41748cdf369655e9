//! The commands, and what they share: configuration, filters, columns.

mod advice_text;
pub mod advise;
pub mod alert_args;
pub mod check;
pub mod client;
pub mod columns;
pub mod config;
pub mod daemon;
pub mod example_config;
pub mod examples;
pub mod explain;
pub mod figures;
pub mod filter_args;
pub mod generate;
mod log;
pub mod paper;
mod ports_text;
pub mod report;
pub mod tail;
pub mod top;

use crate::kernel::probes;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

/// The work was done.
const DONE: u8 = 0;
/// The work failed.
const FAILED: u8 = 1;
/// The arguments or the configuration are wrong.
const MISUSED: u8 = 2;

/// Where the daemon's socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tcpmon/tcpmon.sock";
/// Where the configuration is unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/tcpmon/tcpmon.toml";

/// Every TCP state transition, whose it is, and who runs out of ports
///
/// tcpmon tells which process or container, towards which destination, holds the local ports of a
/// machine, how long they will last, and what to change. The daemon watches every TCP socket by
/// its state transitions, TIME_WAIT included, and serves what it sees as metrics, events and a web
/// page; the other commands ask it.
#[derive(Debug, Parser)]
#[command(name = "tcpmon", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the probes, keep the counters, serve metrics and events
    ///
    /// Runs until it is told to end (SIGINT, SIGTERM), and needs root or CAP_BPF and CAP_PERFMON:
    /// `tcpmon check` tells. Each option is a key of the configuration file too; options win.
    Daemon(daemon::DaemonArgs),
    /// Show TCP state transitions as they happen
    ///
    /// One line for each transition, in the columns of bcc's tcpstates: the socket's owner, its
    /// addresses, old and new state, and the time it spent in the old one. Comes from the daemon,
    /// for which you are root or in the group tcpmon; without one, from probes of its own.
    Tail(tail::TailArgs),
    /// Tell whether tcpmon can run here, and if not, why
    ///
    /// Looks at the kernel, its type information, capabilities, lockdown, and loads each probe and
    /// lets go of it again. Exits with 0 only if the daemon would start here.
    Check(check::CheckArgs),
    /// Explain a TCP state: who enters it, how, and what to do about many of them
    ///
    /// Without a state: the state diagram, and how a connection begins and ends, step by step.
    /// Needs neither a daemon nor privileges; with a daemon it adds this machine's own figures.
    Explain(explain::ExplainArgs),
    /// One look, now: is anything wrong, where the ports go, who leaves TIME_WAIT
    ///
    /// Asks the daemon, and prints in this order: alerts; ports in use by destination against
    /// capacity, with their owners; who leaves TIME_WAIT; sockets by state; connect() calls that
    /// found no port; what to change.
    Report(report::ReportArgs),
    /// Full-screen live view: port pressure, TIME_WAIT by owner, alerts, transitions
    ///
    /// Asks the daemon once a second. From a destination, Enter leads to its owners and to its
    /// transitions as they happen; `?` shows all keys. Draws only what has changed, so it is fit for
    /// a slow line; a daemon that is gone is told, and found again.
    Top(top::TopArgs),
    /// What to change and why; with --rate, what so many new connections a second take
    ///
    /// From what the daemon observes and the sysctls in force: each piece of advice has the reason,
    /// the command, the effect in numbers, the risk, and when not to follow it. `--rate` plans
    /// without a daemon. No sysctl is changed: commands are printed, for you to run.
    Advise(advise::AdviseArgs),
    /// Write man pages or shell completions
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
    /// Print a configuration file with every key of the daemon, explained
    #[command(hide = true)]
    ExampleConfig,
}

/// The one definition of all commands.
fn command() -> clap::Command {
    examples::with_examples(Arguments::command())
}

/// Wrong arguments or configuration, found after they were read: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// Runs the command on the command line.
pub fn main() -> ExitCode {
    let matches =
        match config::merge(command(), std::env::args_os().collect(), Path::new(DEFAULT_CONFIG)) {
            Ok(matches) => matches,
            Err(error) => {
                // Nobody can be told that nobody can be told.
                let _ = error.print();
                return ExitCode::from(error.exit_code());
            }
        };
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let done = match arguments.command {
        Command::Daemon(args) => daemon::run(args).map(|()| ExitCode::from(DONE)),
        Command::Tail(args) => tail::run(args).map(|()| ExitCode::from(DONE)),
        Command::Check(args) => check::run(args, probes::try_each),
        Command::Explain(args) => explain::run(&args).map(|()| ExitCode::from(DONE)),
        Command::Report(args) => report::run(&args),
        Command::Top(args) => top::run(&args).map(|()| ExitCode::from(DONE)),
        Command::Advise(args) => advise::run(&args).map(|()| ExitCode::from(DONE)),
        Command::Generate(args) => generate::run(&args, command()).map(|()| ExitCode::from(DONE)),
        Command::ExampleConfig => example_config().map(|()| ExitCode::from(DONE)),
    };
    match done {
        Ok(code) => code,
        // The reader has seen enough: `tcpmon tail | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(DONE),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(if error.is::<Misuse>() { MISUSED } else { FAILED })
        }
    }
}

fn example_config() -> anyhow::Result<()> {
    let command = Arguments::command();
    let text = command.find_subcommand("daemon").map(example_config::text).unwrap_or_default();
    io::stdout().lock().write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

/// The daemon's options, from the command line and the configuration file as they are now.
fn daemon_args() -> anyhow::Result<daemon::DaemonArgs> {
    daemon_args_of(std::env::args_os().collect())
}

/// The same for another command line.
fn daemon_args_of(argv: Vec<std::ffi::OsString>) -> anyhow::Result<daemon::DaemonArgs> {
    let matches = config::merge(Arguments::command(), argv, Path::new(DEFAULT_CONFIG))?;
    match Arguments::from_arg_matches(&matches)?.command {
        Command::Daemon(args) => Ok(args),
        _ => anyhow::bail!("the command line is not the daemon's"),
    }
}

/// Writes one JSON document, on a line.
fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(document)? + "\n";
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(OutputError)?;
    Ok(())
}

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(#[from] io::Error);

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<OutputError>()
        .is_some_and(|OutputError(cause)| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes one line to standard error; where that cannot be written, nobody can be told.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "tcpmon: {line}");
}
