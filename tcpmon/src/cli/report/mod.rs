//! `tcpmon report`: one look, now, from the daemon's own report, or from probes of its own.

mod text;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::Args;
use jiff::tz::TimeZone;
use log::LevelFilter;
use serde::Deserialize;
use serde_json::Value;

use super::{
    DEFAULT_SOCKET, DONE, Misuse,
    client::{self, Unreachable},
    columns::printable,
    daemon::{DEFAULT_TOP, LimitArgs},
    paper::Paper,
};
use crate::{
    daemon::{once, pipeline::Limits},
    model::{
        report::{Report, Severity},
        values,
    },
};

/// As wide as it gets: what is farther apart is not seen as one line.
const WIDEST: usize = 200;
/// A daemon that takes longer has a fault.
const PATIENCE: Duration = Duration::from_secs(10);
/// With `--exit-code`: an alert of severity warning fires.
const WARNING: u8 = 3;
/// With `--exit-code`: an alert of severity critical fires.
const CRITICAL: u8 = 4;

/// Options of `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Write the report as one JSON object
    #[arg(long)]
    json: bool,

    /// Show only this network namespace: host, a name under /run/netns, a container, or an inode
    /// number
    #[arg(long, value_name = "NETNS", value_parser = values::netns)]
    netns: Option<String>,

    /// Exit with 3 if an alert of severity warning fires, with 4 if one of severity critical does
    #[arg(long)]
    exit_code: bool,

    #[command(flatten)]
    source: SourceArgs,
}

/// Where a report comes from.
#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    /// Use probes of its own for one look, whether a daemon runs or not; needs what the daemon needs
    #[arg(long)]
    standalone: bool,

    /// Ask the daemon on this Unix socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,

    #[command(flatten)]
    limits: LimitArgs,
}

/// Prints the report.
///
/// # Errors
///
/// Where there is neither a daemon nor the right to do without, there is no such namespace, or the
/// output cannot be written.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let body = args.source.body()?;
    let mut report = read(&body)?;
    only(&mut report, args.netns.as_deref())?;
    if args.json {
        print_as_sent(&body, args.netns.as_deref())?;
    } else {
        let mut paper = Paper::for_stdout(WIDEST);
        text::write(&report, &TimeZone::system(), &mut paper);
        paper.print()?;
    }
    Ok(ExitCode::from(if args.exit_code { code(&report) } else { DONE }))
}

impl SourceArgs {
    /// The report of the daemon, or of one look without.
    pub(super) fn report(&self) -> anyhow::Result<Report> {
        read(&self.body()?)
    }

    /// The same as it is sent, so that members that are not known here are kept.
    fn body(&self) -> anyhow::Result<Bytes> {
        if self.standalone {
            return self.once();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(fetch(&self.socket)) {
            Err(error) if is_absent(&error) => {
                client::do_without(&error)?;
                self.once()
            }
            answer => answer,
        }
    }

    fn once(&self) -> anyhow::Result<Bytes> {
        // Alerts stand in the report; they are lines of a journal only where there is a daemon.
        super::log::init(LevelFilter::Error);
        let report = once::report(Limits::from(&self.limits), DEFAULT_TOP)?;
        Ok(serde_json::to_vec(&report)?.into())
    }
}

/// The daemon's report is of another version.
#[derive(Debug, thiserror::Error)]
#[error(
    "the daemon's report is of version {daemon}, this tcpmon knows {}: use the tcpmon that the \
     daemon was started from, or start the daemon anew",
    Report::VERSION
)]
pub(super) struct OtherVersion {
    daemon: u32,
}

/// Reads a report as the daemon sends it. Its version first: where that differs, a complaint about
/// some member would hide why.
pub(super) fn read(body: &[u8]) -> anyhow::Result<Report> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    const UNKNOWN: &str = "the daemon's report is none that this tcpmon knows";
    let Version { version: daemon } = serde_json::from_slice(body).context(UNKNOWN)?;
    if daemon != Report::VERSION {
        return Err(OtherVersion { daemon }.into());
    }
    serde_json::from_slice(body).context(UNKNOWN)
}

async fn fetch(socket: &Path) -> anyhow::Result<Bytes> {
    tokio::time::timeout(PATIENCE, client::fetch(socket, "/api/v1/report"))
        .await
        .map_err(|_| anyhow!("the daemon does not answer within {} s", PATIENCE.as_secs()))?
}

/// Whether the error is that there is no daemon.
fn is_absent(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Unreachable::Absent { .. }))
}

/// Asks for the report, and names the mend where there is no daemon.
pub(super) async fn ask(socket: &Path) -> anyhow::Result<Bytes> {
    fetch(socket).await.map_err(|error| {
        if is_absent(&error) {
            return anyhow!("{error}; start `tcpmon daemon`, or name its socket with --socket");
        }
        error
    })
}

/// The exit code that `--exit-code` asks for.
fn code(report: &Report) -> u8 {
    match report.worst() {
        Some(Severity::Critical) => CRITICAL,
        Some(Severity::Warning) => WARNING,
        Some(Severity::Info) | None => DONE,
    }
}

/// Keeps what belongs to that network namespace, if one is asked for.
pub(super) fn only(report: &mut Report, netns: Option<&str>) -> Result<(), Misuse> {
    if let Some(netns) = netns {
        known(report, netns)?;
        report.retain_netns(netns);
    }
    Ok(())
}

/// Whether that namespace is watched; if not, which are.
fn known(report: &Report, netns: &str) -> Result<(), Misuse> {
    let names: Vec<&str> = report.namespaces.iter().map(|row| &*row.netns).collect();
    if names.contains(&netns) {
        return Ok(());
    }
    let shown: Vec<_> = names.iter().take(8).map(|name| printable(name)).collect();
    let more = if names.len() > shown.len() { ", ..." } else { "" };
    Err(Misuse(format!(
        "there is no network namespace {netns} in the report; there are: {}{more}",
        shown.join(", ")
    )))
}

/// Writes the document with every member that the daemon gave it, known here or not.
fn print_as_sent(body: &[u8], netns: Option<&str>) -> anyhow::Result<()> {
    let mut document: Value = serde_json::from_slice(body)?;
    if let (Some(netns), Some(members)) = (netns, document.as_object_mut()) {
        for rows in members.values_mut().filter_map(Value::as_array_mut) {
            rows.retain(|row| row.get("netns").is_none_or(|name| name == netns));
        }
    }
    super::print_json(&document)
}

#[cfg(test)]
mod tests;
