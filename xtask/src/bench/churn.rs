//! Rounds of load A: every subject in turn, and the next round in another order, so that what
//! else goes on in the machine falls on all alike.

use anyhow::Result;
use serde::Serialize;

use super::{
    load::Loads,
    session::{Kit, ProbeStats, Session, Usage},
    stats::{Spread, to_f64},
    subject::Subject,
    tool::Output,
};

/// One run of the load with one subject.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    /// Connections a second.
    pub per_second: f64,
    /// Transitions that the load made.
    pub events: u64,
    /// What the subject used from the load's beginning until it was at rest.
    pub usage: Usage,
    /// Events lost, as the subject tells, and missed by its probe, as the kernel does.
    pub lost: f64,
}

/// All runs with one subject; `None` for a round in which it could not run.
#[derive(Debug, Serialize)]
pub struct Series {
    /// What was measured.
    pub subject: Subject,
    /// By round.
    pub runs: Vec<Option<Run>>,
}

/// Rounds with every subject in each.
#[derive(Debug, Serialize)]
pub struct Churn {
    /// Loads that ran at a time.
    pub threads: usize,
    /// Connections that each made.
    pub connections: u64,
    /// By subject.
    pub series: Vec<Series>,
}

/// Runs all rounds. A peer that cannot run is left out of the others, and `unfit` is told.
pub(super) fn measure(
    kit: &Kit,
    loads: &mut Loads,
    subjects: &[Subject],
    (threads, connections, rounds): (usize, u64, usize),
    unfit: &mut impl FnMut(Subject, &anyhow::Error),
) -> Result<Churn> {
    let mut series: Vec<Series> =
        subjects.iter().map(|&subject| Series { subject, runs: Vec::new() }).collect();
    let mut left_out = Vec::new();
    for round in 0..rounds {
        for place in order(subjects.len(), round) {
            let subject = subjects[place];
            if left_out.contains(&subject) {
                series[place].runs.push(None);
                continue;
            }
            let run = match run(kit, loads, subject, threads, connections) {
                Ok(run) => Some(run),
                Err(error) if subject.is_peer() => {
                    super::wait::check()?;
                    unfit(subject, &error);
                    left_out.push(subject);
                    None
                }
                Err(error) => return Err(error),
            };
            if let Some(run) = run {
                eprintln!(
                    "xtask: round {} of {rounds}, {}, {}: {:.0} connections/s",
                    round + 1,
                    loads_in_words(threads),
                    subject.title(),
                    run.per_second
                );
            }
            series[place].runs.push(run);
        }
    }
    Ok(Churn { threads, connections, series })
}

/// The places of `count` subjects in a round: each round begins one further on, and every other
/// one goes backwards, so that nobody always comes after the same.
pub(super) fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| {
        let place = (place + round) % count;
        if round.is_multiple_of(2) { place } else { count - 1 - place }
    })
}

fn run(
    kit: &Kit,
    loads: &mut Loads,
    subject: Subject,
    threads: usize,
    connections: u64,
) -> Result<Run> {
    let mut session = Session::start(kit, subject, ProbeStats::Off, Output::Discard)?;
    session.await_rest()?;
    let (before, lost) = (session.usage()?, session.lost()?);
    let outcome = loads.churn(threads, connections)?;
    session.await_rest()?;
    session.check()?;
    let run = Run {
        per_second: outcome.per_second,
        events: outcome.events,
        usage: session.usage()?.since(before),
        lost: session.lost()? - lost,
    };
    session.stop();
    Ok(run)
}

/// `1 load`, `2 loads`.
pub(super) fn loads_in_words(threads: usize) -> String {
    format!("{threads} load{}", if threads == 1 { "" } else { "s" })
}

impl Churn {
    /// The runs with one subject, as far as it could run.
    pub fn runs(&self, subject: Subject) -> impl Iterator<Item = &Run> {
        self.series(subject).into_iter().flat_map(|series| series.runs.iter().flatten())
    }

    /// The ratio of a subject's pace to the bare machine's in the same round.
    pub fn ratio(&self, subject: Subject) -> Option<Spread> {
        let bare = &self.series(Subject::Bare)?.runs;
        let ratios = self.series(subject)?.runs.iter().zip(bare).filter_map(|(run, bare)| {
            let (run, bare) = (run.as_ref()?, bare.as_ref()?);
            (bare.per_second > 0.0).then(|| run.per_second / bare.per_second)
        });
        Spread::of(ratios)
    }

    /// Microseconds of CPU that a subject's programs used an event.
    pub fn cpu_per_event(&self, subject: Subject) -> Option<Spread> {
        let micros =
            self.runs(subject).map(|run| run.usage.cpu() / to_f64(run.events.max(1)) * 1e6);
        Spread::of(micros)
    }

    /// Events that a subject lost, all rounds together.
    pub fn lost(&self, subject: Subject) -> Option<f64> {
        self.runs(subject).map(|run| run.lost).reduce(|sum, lost| sum + lost)
    }

    fn series(&self, subject: Subject) -> Option<&Series> {
        self.series.iter().find(|series| series.subject == subject)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Rounds with these paces; 0 for one that could not run. Each run makes 1000 events and its
    /// programs use a millisecond of CPU.
    pub(in crate::bench) fn rounds(series: &[(Subject, &[f64])]) -> Churn {
        let run = |&per_second: &f64| {
            let usage = Usage { daemon_cpu: 0.0004, reader_cpu: 0.0006, ..Usage::default() };
            (per_second > 0.0).then_some(Run { per_second, events: 1000, usage, lost: 2.0 })
        };
        let series = series.iter().map(|(subject, paces)| Series {
            subject: *subject,
            runs: paces.iter().map(run).collect(),
        });
        Churn { threads: 1, connections: 100, series: series.collect() }
    }

    #[test]
    fn every_round_begins_elsewhere_and_leaves_nobody_out() {
        assert_eq!(order(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(order(3, 1).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(order(3, 2).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(order(3, 5).collect::<Vec<_>>(), [0, 2, 1]);
    }

    #[test]
    fn a_ratio_is_to_the_bare_run_of_the_same_round() {
        // The machine gets slower from round to round; the daemon keeps its share.
        let churn = rounds(&[
            (Subject::Bare, &[100.0, 50.0, 10.0]),
            (Subject::Daemon, &[90.0, 45.0, 9.5]),
            (Subject::BpftracePrint, &[30.0, 0.0, 0.0]),
        ]);
        let ratio = churn.ratio(Subject::Daemon).expect("a ratio");
        assert!((ratio.median - 0.9).abs() < 1e-9 && (ratio.max - 0.95).abs() < 1e-9, "{ratio:?}");
        let peer = churn.ratio(Subject::BpftracePrint).expect("one round");
        assert!((peer.median - 0.3).abs() < 1e-9, "{peer:?}");
        assert_eq!(churn.ratio(Subject::Tail), None);
    }

    #[test]
    fn losses_are_added_up_and_cpu_is_by_event() {
        let churn = rounds(&[(Subject::Tail, &[1.0, 0.0, 3.0])]);
        assert_eq!(churn.lost(Subject::Tail), Some(4.0));
        assert_eq!(churn.lost(Subject::Bare), None);
        let micros = churn.cpu_per_event(Subject::Tail).expect("runs");
        assert!((micros.median - 1.0).abs() < 1e-9, "{micros:?}");
    }
}
