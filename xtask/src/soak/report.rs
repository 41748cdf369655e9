//! The soak as text: a line as it goes, the table and the verdict at its end.

use std::fmt::Write as _;

use super::{
    Plan,
    sample::Sample,
    verdict::{Accounts, Verdict, judge, mib},
};
use crate::bench::{
    report::Machine,
    stats::to_f64,
    table::{Form, Table, thousands},
};

/// Rows of the table at most: of more looks every so-manieth is shown, the first and the last in
/// any case.
const ROWS: usize = 24;

const HEAD: [&str; 15] = [
    "at",
    "MiB",
    "peak",
    "fds",
    "threads",
    "CPU %",
    "events",
    "lost ring",
    "lost queue",
    "missed",
    "drift",
    "ledger",
    "kernel",
    "series",
    "netns",
];

/// What came of a soak.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where and how.
    pub machine: Machine,
    /// What was to be done.
    pub plan: Plan,
    /// The looks: at the beginning, all along, and at rest after the load.
    pub samples: Vec<Sample>,
    /// A look after the subscriber that slept has been read.
    pub counted: Sample,
    /// What the streams told, and what the load did.
    pub accounts: Accounts,
}

impl Report {
    /// Whether it was well.
    pub fn verdict(&self) -> Verdict {
        judge(&self.samples, &self.counted, &self.accounts)
    }

    /// Table and verdict.
    pub(crate) fn render(&self, form: Form) -> String {
        let machine = &self.machine;
        let command = match form {
            Form::Text => machine.command.clone(),
            Form::Markdown => format!("`{}`", machine.command),
        };
        let mut out = format!(
            "{}, Linux {}, {} CPUs ({}), {}: {command}\n\n",
            machine.program, machine.kernel, machine.cpus, machine.model, machine.date
        );
        let title = format!("{} connections a second", thousands(self.plan.rate.into()));
        let mut table = Table::new(title, &HEAD);
        let each = self.samples.len().div_ceil(ROWS).max(1);
        let last = self.samples.len().saturating_sub(1);
        let mut before = None;
        for (index, sample) in self.samples.iter().enumerate() {
            if index % each == 0 || index == last {
                table.row(cells(sample, before));
                before = Some(sample);
            }
        }
        out += &table.render(form);
        let verdict = self.verdict();
        let word = if verdict.faults.is_empty() { "good" } else { "bad" };
        let _infallible = write!(out, "\nVerdict: {word}.\n\n");
        for (mark, lines) in [("BAD", &verdict.faults), ("ok", &verdict.good)] {
            for line in lines {
                let _infallible = writeln!(out, "- {mark}: {line}");
            }
        }
        out
    }
}

/// Names of the columns of [`line`].
pub(super) fn head() -> String {
    HEAD.iter().fold(String::new(), |line, name| line + &format!("{name:>10}"))
}

/// One look, as it is taken.
pub(super) fn line(sample: &Sample, before: Option<&Sample>) -> String {
    cells(sample, before).iter().fold(String::new(), |line, cell| line + &format!("{cell:>10}"))
}

/// The share of a CPU is that since the look before.
fn cells(sample: &Sample, before: Option<&Sample>) -> Vec<String> {
    let seconds = sample.at.as_secs();
    let at = format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let share = before.map_or_else(String::new, |before| {
        let time = sample.at.saturating_sub(before.at).as_secs_f64();
        let used = sample.cpu.saturating_sub(before.cpu).as_secs_f64();
        format!("{:.2}", 100.0 * used / time.max(1e-3))
    });
    vec![
        at,
        mib(sample.memory.resident).to_string(),
        mib(sample.memory.peak).to_string(),
        sample.descriptors.to_string(),
        sample.threads.to_string(),
        share,
        thousands(sample.events),
        thousands(sample.lost_ring),
        thousands(sample.lost_subscriber),
        thousands(sample.recursion_misses),
        thousands(sample.drift),
        thousands(sample.ledger),
        thousands(to_f64(sample.kernel)),
        sample.series.to_string(),
        sample.load.namespaces.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_share_of_a_cpu_is_that_since_the_look_before() {
        let at = |seconds, millis| Sample {
            at: Duration::from_secs(seconds),
            cpu: Duration::from_millis(millis),
            ..Sample::default()
        };
        let row = cells(&at(3720, 500), Some(&at(3660, 200)));
        assert_eq!((&*row[0], &*row[5]), ("1:02:00", "0.50"));
        assert_eq!(cells(&at(0, 0), None).len(), HEAD.len());
    }

    #[test]
    fn a_long_soak_has_a_short_table() {
        let samples: Vec<Sample> = (0..1000)
            .map(|minute| Sample { at: Duration::from_mins(minute), ..Sample::default() })
            .collect();
        let report = Report {
            machine: Machine::default(),
            plan: Plan {
                binary: "tcpmon".into(),
                lab: None,
                duration: Duration::from_mins(1000),
                every: Duration::from_mins(1),
                rate: 500,
            },
            counted: samples[999].clone(),
            samples,
            accounts: Accounts::default(),
        };
        let text = report.render(Form::Markdown);
        assert!(text.contains("| 16:39:00 |") && text.contains("Verdict: bad."), "{text}");
        assert!(text.lines().count() < ROWS + 20, "{text}");
    }
}
