//! The commands, and what they share: configuration, filters, columns.

pub mod check;
pub mod client;
pub mod columns;
pub mod config;
pub mod daemon;
pub mod filter_args;
mod log;
pub mod tail;

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
#[derive(Debug, Parser)]
#[command(name = "tcpmon", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the probes, keep the counters, serve metrics and events
    Daemon(daemon::DaemonArgs),
    /// Show TCP state transitions as they happen
    Tail(tail::TailArgs),
    /// Tell whether tcpmon can run here, and if not, why
    Check(check::CheckArgs),
}

/// Wrong arguments or configuration, found after they were read: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// Runs the command on the command line.
pub fn main() -> ExitCode {
    let matches = match config::merge(
        Arguments::command(),
        std::env::args_os().collect(),
        Path::new(DEFAULT_CONFIG),
    ) {
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
