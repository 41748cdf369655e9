//! `cargo xtask soak`: hours of a daemon under a load that never ends, and a verdict on what only
//! hours show: memory that creeps, descriptors that stay open, a ledger that goes astray.
//!
//! A daemon of its own, on a socket of its own and a port of the system's choice, watches
//! connections at a steady rate, namespaces that come and go with a few recipes in each, a
//! `tcpmon tail` that reads all there is and a subscriber that never reads. The figures are looked
//! at from outside (/proc, the kernel's counters) beside what the daemon says of itself.

mod load;
mod report;
mod sample;
mod streams;
mod verdict;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use self::{
    load::Load,
    report::Report,
    sample::{Eye, Sample},
    streams::{Reading, Sleeper},
    verdict::Accounts,
};
use crate::{
    bench::{
        become_root, machine,
        session::{Kit, ProbeStats, Session},
        table::Form,
        wait,
    },
    build,
    process::is_root,
};

/// Shorter than this nothing has been seen.
const SHORTEST: Duration = Duration::from_secs(5);
/// How often it is looked whether everything still runs.
const LOOK: Duration = Duration::from_millis(500);
/// How long a ledger that seems off may take to be looked at again: a round of the survey and the
/// one that confirms it.
const SETTLE: Duration = Duration::from_secs(3);

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long: a number with s, m or h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    duration: Duration,
    /// How often the figures are looked at
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    every: Duration,
    /// Connections a second of the steady load
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Write the table as Markdown
    #[arg(long)]
    markdown: bool,
    /// Watch this program instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// What a soak is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program.
    pub binary: PathBuf,
    /// The program that plays the lab's processes, as in [`crate::lab::Options`].
    pub lab: Option<PathBuf>,
    /// How long.
    pub duration: Duration,
    /// How often it is looked at.
    pub every: Duration,
    /// Connections a second.
    pub rate: u32,
}

/// Builds the program, soaks it, and prints the table and the verdict.
pub fn main(args: &Args) -> Result<()> {
    let binary = build::given_or_built(args.binary.as_deref())?;
    if !is_root() {
        return become_root(&binary);
    }
    wait::watch_signals()?;
    let plan =
        Plan { binary, lab: None, duration: args.duration, every: args.every, rate: args.rate };
    let report = soak(&plan)?;
    let form = if args.markdown { Form::Markdown } else { Form::Text };
    io::stdout()
        .write_all(report.render(form).as_bytes())
        .context("cannot write to standard output")?;
    match report.verdict().faults.len() {
        0 => Ok(()),
        faults => bail!("{faults} figures are not as they must be: see the verdict"),
    }
}

/// Carries out a plan, as root, on the main thread or one that outlives what is started.
pub fn soak(plan: &Plan) -> Result<Report> {
    if plan.duration < SHORTEST {
        bail!("a soak takes at least {} s: raise --duration", SHORTEST.as_secs());
    }
    let kit = Kit::new(plan.binary.clone())?;
    let machine = machine::describe(kit.binary())?;
    let mut session = Session::start_daemon_alone(&kit, ProbeStats::On, &[])?;
    let mut load = Load::start(plan)?;
    let reading = Reading::default();
    session.start_tail(&kit, &[], reading.output())?;
    let sleeper = Sleeper::fall_asleep(session.socket(), load.namespace().inode)?;
    let eye = Eye::of(&session, load.namespace())?;

    let begun = Instant::now();
    eprintln!("xtask: {}", report::head());
    let mut samples: Vec<Sample> = Vec::new();
    let look = |samples: &mut Vec<Sample>, load: &Load| -> Result<()> {
        let sample = eye.look(begun.elapsed(), load.told())?;
        eprintln!("xtask: {}", report::line(&sample, samples.last()));
        samples.push(sample);
        Ok(())
    };
    look(&mut samples, &load)?;
    while begun.elapsed() < plan.duration {
        let next = (begun.elapsed() + plan.every).min(plan.duration);
        while begun.elapsed() < next {
            wait::pause(LOOK.min(next.saturating_sub(begun.elapsed())))?;
            session.check()?;
        }
        look(&mut samples, &load)?;
    }
    let told = load.stop()?;
    session.await_rest()?;
    // A ledger that seems off is believed to be only when it has been looked at twice.
    let settled = Instant::now() + SETTLE;
    while eye.drift()? > 0.0 && Instant::now() < settled {
        wait::pause(LOOK)?;
    }
    look(&mut samples, &load)?;
    let sleeper = sleeper.awake(|| load.mark())?;
    session.await_rest()?;
    let accounts = Accounts { tail: reading.account(), sleeper, load: told };
    let counted = eye.look(begun.elapsed(), load.told())?;
    session.check().context("the daemon or its tail")?;
    session.stop();
    drop(load);
    Ok(Report { machine, plan: plan.clone(), samples, counted, accounts })
}

/// Reads `90s`, `10m`, `1h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no time: write a number with s, m or h, as in 90s");
    let unit = text.chars().next_back().ok_or_else(refuse)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(refuse()),
    };
    let seconds = number.checked_mul(seconds).filter(|&seconds| (1..1 << 32).contains(&seconds));
    seconds.map(Duration::from_secs).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in
            [("5s", Some(5)), ("10m", Some(600)), ("2h", Some(7200)), ("0s", None), ("7", None)]
        {
            assert_eq!(parse_time(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
        for text in ["", "s", "h1", "1.5h", "-1s", "99999999999999999999s", "5 s", "5µ"] {
            let told = parse_time(text).expect_err(text);
            assert!(told.contains("number with s, m or h"), "{told}");
        }
    }
}
