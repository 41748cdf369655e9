//! Everything that was measured, and its tables.

use serde::Serialize;

use super::{
    churn::{Churn, Run, loads_in_words},
    detail::{ProbeTime, Seen},
    goals::{self, Goal},
    idle::Idle,
    look::Look,
    proc::Memory,
    stats::{Spread, to_f64},
    subject::Subject,
    table::{Form, Table, thousands},
    timers::{self, TimerCost},
};

/// Where and how it was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// The CPU's name.
    pub model: String,
    /// UTC, at the beginning.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// What `tcpmon --version` says.
    pub program: String,
}

/// All figures of one bench; what was not measured is empty.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Where and how.
    pub machine: Machine,
    /// Rounds of load A, by number of loads at a time.
    pub churn: Vec<Churn>,
    /// Time in BPF programs.
    pub probe_time: Vec<ProbeTime>,
    /// Events told.
    pub seen: Vec<Seen>,
    /// CPU at rest.
    pub idle: Vec<Idle>,
    /// From an event after silence to its line, in milliseconds.
    pub latency: Option<Spread>,
    /// Load B.
    pub look: Option<Look>,
    /// The filter on timers.
    pub timers: Vec<TimerCost>,
    /// What a reader must know to judge the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// As tables.
    pub(super) fn render(&self, form: Form) -> String {
        let mut parts = vec![self.heading(form)];
        parts.extend(self.churn.iter().map(|churn| churn_table(churn).render(form)));
        parts.push(self.detail_table().render(form));
        parts.extend(self.look.iter().map(|look| look.render(form)));
        parts.push(timers::table(&self.timers).render(form));
        parts.push(self.idle_table().render(form));
        parts.push(goals::render(&goals::goals(self), form));
        parts.push(self.closing());
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    /// As JSON, every run included.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            report: &'a Report,
            goals: Vec<Goal>,
        }
        serde_json::to_string_pretty(&Whole { report: self, goals: goals::goals(self) })
    }

    fn heading(&self, form: Form) -> String {
        let machine = &self.machine;
        let command = match form {
            Form::Text => machine.command.clone(),
            Form::Markdown => format!("`{}`", machine.command),
        };
        format!(
            "{}, Linux {}, {} CPUs ({}), {}: {command}\n",
            machine.program, machine.kernel, machine.cpus, machine.model, machine.date,
        )
    }

    /// Per subject, what was measured apart from the rounds.
    fn detail_table(&self) -> Table {
        let title = "Load A, apart from the rounds: the kernel's measure of the probes, with what \
                     measuring adds; and what was told, its output read and counted";
        let head = [
            "attached",
            "BPF ns/event",
            "of it on transitions",
            "on timers",
            "runs/event",
            "made",
            "told",
            "lost",
        ];
        let mut table = Table::new(title, &head);
        let mut subjects: Vec<Subject> = self.probe_time.iter().map(|time| time.subject).collect();
        for seen in &self.seen {
            if !subjects.contains(&seen.subject) {
                subjects.push(seen.subject);
            }
        }
        for subject in subjects {
            let time = self.probe_time.iter().find(|time| time.subject == subject);
            let seen = self.seen.iter().find(|seen| seen.subject == subject);
            let count = |count: Option<u64>| figure(count.map(to_f64).map(thousands));
            table.row(vec![
                subject.title().to_owned(),
                figure(time.map(|time| thousands(time.ns_per_event))),
                figure(time.map(|time| thousands(time.own_ns_per_event()))),
                figure(time.and_then(|time| time.timers_ns_per_event).map(thousands)),
                figure(time.map(|time| format!("{:.2}", time.runs_per_event))),
                count(seen.map(|seen| seen.made)),
                count(seen.map(|seen| seen.seen)),
                count(seen.map(|seen| seen.lost)),
            ]);
        }
        table
    }

    fn idle_table(&self) -> Table {
        let head =
            ["attached", "daemon, % of a CPU", "tail or peer, % of a CPU", "events meanwhile"];
        let mut table = Table::new("Nothing happens", &head);
        for idle in &self.idle {
            let percent = |share: f64| format!("{:.3}", share * 100.0);
            let (daemon, reader) = (idle.subject.has_daemon(), idle.subject.has_reader());
            table.row(vec![
                idle.subject.title().to_owned(),
                figure(daemon.then(|| percent(idle.daemon_share))),
                figure(reader.then(|| percent(idle.reader_share))),
                figure(idle.events.map(thousands)),
            ]);
        }
        table
    }

    fn closing(&self) -> String {
        let mut lines = Vec::new();
        if let Some(Spread { median, min, max }) = self.latency {
            lines.push(format!(
                "First event after silence, from its own time to its line from tail --json: \
                 median {median:.2} ms, {min:.2} to {max:.2} ms."
            ));
        }
        lines.extend(self.notes.iter().map(|note| format!("Note: {note}.")));
        lines.into_iter().map(|line| line + "\n").collect::<Vec<_>>().join("\n")
    }
}

fn churn_table(churn: &Churn) -> Table {
    let rounds = churn.series.iter().map(|series| series.runs.len()).max().unwrap_or_default();
    let title = format!(
        "Load A, {} at a time of {} connections each; medians of {rounds}; where there are two \
         figures: the daemon's + the tail's",
        loads_in_words(churn.threads),
        thousands(to_f64(churn.connections)),
    );
    let mut table = Table::new(
        title,
        &[
            "attached",
            "connections/s",
            "ratio to bare",
            "min to max",
            "CPU s",
            "CPU µs/event",
            "resident MiB",
            "peak MiB",
            "lost",
        ],
    );
    for series in &churn.series {
        let subject = series.subject;
        let median = |of: fn(&Run) -> f64| {
            Spread::of(churn.runs(subject).map(of)).map(|spread| spread.median)
        };
        let ratio = churn.ratio(subject);
        let most = |of: fn(&Memory) -> u64| {
            let greatest = |memory: fn(&Run) -> Memory| {
                churn
                    .runs(subject)
                    .map(|run| of(&memory(run)))
                    .max()
                    .map(|bytes| to_f64(bytes) / f64::from(1 << 20))
            };
            parts(
                subject,
                greatest(|run| run.usage.daemon_memory),
                greatest(|run| run.usage.reader_memory),
                1,
            )
        };
        let measured = (!subject.is_idle()).then_some(());
        table.row(vec![
            subject.title().to_owned(),
            figure(median(|run| run.per_second).map(thousands)),
            figure(ratio.map(|ratio| format!("{:.3}", ratio.median))),
            figure(ratio.map(|ratio| format!("{:.3} to {:.3}", ratio.min, ratio.max))),
            parts(
                subject,
                median(|run| run.usage.daemon_cpu),
                median(|run| run.usage.reader_cpu),
                3,
            ),
            figure(
                measured
                    .and_then(|()| churn.cpu_per_event(subject))
                    .map(|micros| format!("{:.3}", micros.median)),
            ),
            most(|memory| memory.resident),
            most(|memory| memory.peak),
            figure(measured.and_then(|()| churn.lost(subject)).map(thousands)),
        ]);
    }
    table
}

/// The daemon's part and the reader's, as far as the subject has them.
fn parts(subject: Subject, daemon: Option<f64>, reader: Option<f64>, digits: usize) -> String {
    let has_reader = subject.has_reader();
    let daemon = daemon.filter(|_| subject.has_daemon());
    let reader = reader.filter(|_| has_reader);
    let there: Vec<String> =
        [daemon, reader].into_iter().flatten().map(|part| format!("{part:.digits$}")).collect();
    figure((!there.is_empty()).then(|| there.join(" + ")))
}

/// A figure, or a dash where there is none.
fn figure(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::churn::tests::rounds;

    #[test]
    fn a_row_tells_each_part_that_its_subject_has() {
        for (subject, text) in [
            (Subject::Bare, "–"),
            (Subject::Daemon, "1.50"),
            (Subject::Tail, "1.50 + 2.25"),
            (Subject::BpftraceCount, "2.25"),
        ] {
            assert_eq!(parts(subject, Some(1.5), Some(2.25), 2), text);
        }
        assert_eq!(parts(Subject::Tail, None, None, 2), "–");
    }

    #[test]
    fn the_whole_is_written_in_both_forms_and_as_json() {
        let report = Report {
            churn: vec![rounds(&[(Subject::Bare, &[50_000.0]), (Subject::Tail, &[45_000.0])])],
            latency: Spread::of([1.0, 2.0, 9.0]),
            notes: vec!["bcc tcpstates is not installed".into()],
            ..Report::default()
        };
        let text = report.render(Form::Text);
        for part in
            ["50,000", "0.900 to 0.900", "median 2.00 ms", "Note: bcc", "Goals", "0.000 + 0.001"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("Nothing happens"), "{text}");
        assert!(report.render(Form::Markdown).contains("| nothing "));
        let json: serde_json::Value =
            serde_json::from_str(&report.json().expect("JSON")).expect("JSON");
        assert_eq!(json["churn"][0]["series"][1]["subject"], "tail");
        assert!(json["goals"].as_array().is_some_and(|goals| !goals.is_empty()));
    }
}
