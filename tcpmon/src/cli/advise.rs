//! `tcpmon advise`: what to change, and why; and what a rate of connections takes.

mod sysctl_file;

use super::{
    advice_text,
    figures::{grouped, percent},
    paper::{Ink, Paper},
    print_json,
    report::{self, SourceArgs},
    say,
};
use crate::{
    kernel::netns::HOST,
    model::{report::Report, sysctls::Sysctls, values},
    pressure::plan::{Plan, plan},
};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// As wide as it gets.
const WIDEST: usize = 120;

/// Options of `advise`.
#[derive(Args, Debug)]
pub struct AdviseArgs {
    /// Tell what so many new connections a second take; asks no daemon
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,

    /// Destinations (address and port) over which those are spread
    #[arg(long, value_name = "M", requires = "rate", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    dest_count: u32,

    /// Advise for this network namespace only: host, a name under /run/netns, a container, or an
    /// inode number
    #[arg(long, value_name = "NETNS", conflicts_with = "rate", value_parser = values::netns)]
    netns: Option<String>,

    /// Write one JSON object
    #[arg(long)]
    json: bool,

    /// Write the sysctls that are advised for the host, or for --netns, to this file, for you to
    /// install as /etc/sysctl.d/90-tcpmon.conf; nothing is changed by writing it
    #[arg(long, value_name = "PATH")]
    sysctl_file: Option<PathBuf>,

    #[command(flatten)]
    source: SourceArgs,
}

/// Prints the advice.
///
/// # Errors
///
/// Where no daemon answers who is needed, or a file cannot be written.
pub fn run(args: &AdviseArgs) -> anyhow::Result<()> {
    let mut paper = Paper::for_stdout(WIDEST);
    let (advice, document) = if let Some(rate) = args.rate {
        // The namespace that this program is in, if it may look.
        let sysctls = Sysctls::of_this_thread();
        let known = sysctls.ephemeral_ports().is_some();
        let plan = plan(rate, args.dest_count, known.then_some(&sysctls));
        planned(&plan, &mut paper);
        let document = serde_json::to_value(&plan)?;
        (plan.advice, document)
    } else {
        let mut report = args.source.report()?;
        report::only(&mut report, args.netns.as_deref())?;
        observed(&report, &mut paper);
        let document = json!({ "ts": report.ts, "host": report.host, "advice": report.advice });
        (report.advice, document)
    };
    if let Some(path) = &args.sysctl_file {
        let netns = args.netns.as_deref().unwrap_or(HOST);
        sysctl_file::write(path, &advice, netns)?;
        say(&format!("wrote {}; nothing is in force until you install it", path.display()));
        let others = Vec::from_iter(sysctl_file::others(&advice, netns)).join(", ");
        if !others.is_empty() {
            say(&format!(
                "left out the sysctls of {others}: each has its own; name one with --netns"
            ));
        }
    }
    if !args.json {
        return paper.print();
    }
    print_json(&document)
}

fn observed(report: &Report, paper: &mut Paper) {
    let verdict = if report.advice.is_empty() {
        paper.ink(Ink::Good, "There is nothing to change: no destination is short of ports.")
    } else {
        paper.ink(Ink::Bold, "What to change, the most useful first")
    };
    paper.line(&verdict);
    if !report.advice.is_empty() {
        paper.gap();
        advice_text::write(&report.advice, paper);
    }
}

fn planned(plan: &Plan, paper: &mut Paper) {
    let destinations = match plan.dest_count {
        1 => "one destination".to_owned(),
        count => format!("{count} destinations"),
    };
    paper.paragraph(
        0,
        &format!(
            "{} new connections a second to {destinations}, each closed by this end first:",
            grouped(whole(plan.rate))
        ),
    );
    paper.gap();
    let held = if plan.reuses { "for a second (tcp_tw_reuse)" } else { "for 60 s of TIME_WAIT" };
    paper.entry(
        "  Needed:  ",
        &format!("{} ports towards each, held {held}", grouped(whole(plan.ports_needed))),
    );
    let whose = if plan.of_this_machine { "here" } else { "by the kernel's defaults" };
    paper.entry("  Offered: ", &format!("{} {whose}", grouped(plan.ports_offered.into())));
    paper.entry(
        "  Carried: ",
        &format!("{} connections a second for ever", grouped(whole(plan.rate_carried))),
    );
    let verdict = if plan.fits {
        let used = percent(plan.utilization_ratio);
        paper.ink(Ink::Good, &format!("It fits: {used} of the ports will be taken."))
    } else {
        let text = format!(
            "It does not fit. As things are it takes {} source addresses, or {} destinations.",
            plan.sources_needed, plan.dest_needed
        );
        paper.ink(Ink::Bad, &text)
    };
    paper.gap();
    paper.line(&verdict);
    if let Some(most) = plan.table_too_small() {
        let text = format!(
            "{} sockets will be in TIME_WAIT, and tcp_max_tw_buckets is {most}: the connections \
             beyond end without it.",
            grouped(plan.time_wait_sockets)
        );
        paper.hanging("The time-wait table is too small: ", 2, Ink::Bad, &text);
    }
    if !plan.advice.is_empty() {
        paper.gap();
        advice_text::write(&plan.advice, paper);
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure to read")]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

/// Reads a rate.
fn rate(value: &str) -> Result<f64, String> {
    let rate = value.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.filter(|rate| *rate <= 1e9).ok_or_else(|| "expected a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rate: f64, dest_count: u32) -> String {
        let mut paper = Paper::new(80, false);
        planned(&plan(rate, dest_count, None), &mut paper);
        paper.into_text()
    }

    #[test]
    fn a_plan_that_fits() {
        insta::assert_snapshot!(text(100.0, 1));
    }

    #[test]
    fn a_plan_that_does_not_fit() {
        insta::assert_snapshot!(text(2_000.0, 2));
    }
}
