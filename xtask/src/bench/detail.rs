//! Two passes apart from the rounds, since each would disturb what those measure: the kernel's
//! own account of the BPF programs, and a count of what the tools really write.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    load::Loads,
    proc::Measuring,
    session::{Kit, ProbeStats, Session},
    stats::to_f64,
    subject::Subject,
    tool::{Output, told_loss},
};

/// Time in a subject's BPF programs under load A, one load at a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProbeTime {
    /// Whose programs.
    pub subject: Subject,
    /// Nanoseconds an event: all its programs' time over the transitions that there were, those of
    /// other programs included. The kernel's measuring adds some of its own.
    pub ns_per_event: f64,
    /// Those of them on timers: they run for every timer of the system, and mostly only find that
    /// it is not a time-wait socket's. `None` of a peer, which has no such.
    pub timers_ns_per_event: Option<f64>,
    /// Runs of the programs, an event.
    pub runs_per_event: f64,
}

impl ProbeTime {
    /// Nanoseconds an event of the programs on transitions alone.
    pub(super) fn own_ns_per_event(&self) -> f64 {
        self.ns_per_event - self.timers_ns_per_event.unwrap_or(0.0)
    }
}

/// What a subject wrote under load A, when its output was read and counted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Seen {
    /// Who wrote.
    pub subject: Subject,
    /// Transitions that the load made.
    pub made: u64,
    /// Events that the subject told. Only a tail's can be told from those of others; a peer's
    /// include whatever else the machine did.
    pub seen: u64,
    /// Events that it said it lost, and those that its probe missed.
    pub lost: u64,
}

/// Measures the BPF programs of one subject: the load in the middle of so many.
pub(super) fn probe_time(
    kit: &Kit,
    loads: &mut Loads,
    subject: Subject,
    (connections, rounds): (u64, usize),
) -> Result<ProbeTime> {
    let mut session = Session::start(kit, subject, ProbeStats::Off, Output::Discard)?;
    session.await_rest()?;
    let measuring = Measuring::begin().context("cannot measure BPF programs (bpf(2))")?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        let (before, counted) = (session.programs()?, session.counted()?);
        let on_timers = session.time_on_timers()?;
        loads.churn(1, connections)?;
        session.await_rest()?;
        let (after, counted) = (session.programs()?, session.counted()?.zip(counted));
        let on_timers = session.time_on_timers()?.zip(on_timers);
        let runs = to_f64(after.runs.saturating_sub(before.runs));
        // A peer has one program, which runs once a transition.
        let events = counted.map_or(runs, |(after, before)| after - before).max(1.0);
        let run_time = after.run_time.saturating_sub(before.run_time).as_secs_f64();
        times.push(ProbeTime {
            subject,
            ns_per_event: run_time * 1e9 / events,
            timers_ns_per_event: on_timers
                .filter(|_| subject != Subject::Sampled)
                .map(|(after, before)| (after - before) * 1e9 / events),
            runs_per_event: runs / events,
        });
    }
    drop(measuring);
    session.stop();
    times.sort_by(|a, b| a.ns_per_event.total_cmp(&b.ns_per_event));
    times.get(times.len() / 2).copied().context("nothing was measured")
}

/// Counts what one subject tells.
pub(super) fn seen(
    kit: &Kit,
    loads: &mut Loads,
    subject: Subject,
    connections: u64,
) -> Result<Seen> {
    let netns = loads.netns().context("the lab has no namespace")?;
    let tally = Arc::new(Tally::new(subject, netns));
    let counter = Arc::clone(&tally);
    let output = Output::Lines(Box::new(move |line| counter.hear(line)));
    let mut session = Session::start(kit, subject, ProbeStats::Off, output)?;
    session.await_rest()?;
    let (counted, told_lost) = (session.counted()?, session.lost()?);
    let outcome = loads.churn(1, connections)?;
    session.await_rest()?;
    let counted = session.counted()?.zip(counted).map(|(after, before)| after - before);
    let mut lost = session.lost()? - told_lost;
    // Some write what they have gathered only when they end.
    session.stop();
    let mut seen = tally.events.load(Ordering::Relaxed);
    if !subject.has_reader() {
        seen = whole(counted.unwrap_or_default());
    }
    if let Some(total) = *tally.total.lock().unwrap_or_else(PoisonError::into_inner) {
        seen = total;
    }
    lost = lost.max(to_f64(tally.lost.load(Ordering::Relaxed)));
    Ok(Seen { subject, made: outcome.events, seen, lost: whole(lost) })
}

/// A count that came as a number of the metrics' kind.
fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was a count, and the conversion saturates"
    )]
    let count = number.round() as u64;
    count
}

/// What a tail's line that tells how a time-wait socket ended has near its end.
const ENDING: &str = "\"reason\":\"";
/// So near, in bytes.
const ENDING_WITHIN: usize = 24;

/// Where `"netns"` stands in a tail's line, after a time of 27 characters.
const NETNS_AT: usize = "{\"ts\":\"2026-11-22T08:00:00.123456Z\",".len();

/// Counts lines.
struct Tally {
    /// What a line contains that is an event.
    mark: String,
    events: AtomicU64,
    lost: AtomicU64,
    /// What a tool that only counts says at the end.
    total: Mutex<Option<u64>>,
}

impl Tally {
    fn new(subject: Subject, netns: u64) -> Self {
        let mark = match subject.tail() {
            Some(_) => format!("\"netns\":{netns},"),
            None => "->".to_owned(),
        };
        Self {
            mark,
            events: AtomicU64::default(),
            lost: AtomicU64::default(),
            total: Mutex::default(),
        }
    }

    /// Counts a line. The usual case comes first and searches nothing, since searches are compiled
    /// with this, without optimisation: a counter that is slower than the tool would make it lose
    /// events.
    fn hear(&self, line: &[u8]) {
        let Ok(text) = std::str::from_utf8(line) else { return };
        let is_usual =
            line.get(NETNS_AT..).is_some_and(|rest| rest.starts_with(self.mark.as_bytes()));
        if is_usual || text.contains(self.mark.as_str()) {
            // The end of a time-wait socket is none of the load's doing, and no peer tells it.
            let end = text.get(text.len().saturating_sub(ENDING_WITHIN)..).unwrap_or(text);
            if !text.starts_with("SKADDR") && !end.contains(ENDING) {
                self.events.fetch_add(1, Ordering::Relaxed);
            }
        } else if let Some(lost) = told_loss_or_gap(text) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        } else if let Some(total) =
            text.strip_prefix("@n: ").and_then(|total| total.trim().parse().ok())
        {
            *self.total.lock().unwrap_or_else(PoisonError::into_inner) = Some(total);
        }
    }
}

/// What a line says was lost: in a gap line of a tail's, or in the words of a peer. Most lines
/// that come here are neither.
fn told_loss_or_gap(line: &str) -> Option<u64> {
    if line.starts_with('{') { gap(line) } else { told_loss(line) }
}

/// The count in a gap line, `{"lost":N,"where":"ring"}`.
fn gap(line: &str) -> Option<u64> {
    let is_gap = line.starts_with("{\"lost\":");
    is_gap.then(|| serde_json::from_str::<serde_json::Value>(line).ok())??.get("lost")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(subject: Subject, lines: &[&str]) -> (u64, u64, Option<u64>) {
        let tally = Tally::new(subject, 4242);
        for line in lines {
            tally.hear(line.as_bytes());
        }
        let total = *tally.total.lock().expect("not poisoned");
        (tally.events.load(Ordering::Relaxed), tally.lost.load(Ordering::Relaxed), total)
    }

    #[test]
    fn a_tails_lines_count_if_they_are_of_the_loads_namespace() {
        let lines = [
            "{\"ts\":\"x\",\"netns\":4242,\"old\":\"close\"}\n",
            "{\"ts\":\"x\",\"netns\":42421,\"old\":\"close\"}\n",
            "{\"ts\":\"2026-11-22T08:00:00.123456Z\",\"netns\":4242,\"old\":\"close\"}\n",
            "{\"ts\":\"2026-11-22T08:00:00.123456Z\",\"netns\":4242,\"reason\":\"reused\"}\n",
            "{\"ts\":\"x\",\"netns\":4242,\"old\":\"time_wait\",\"reason\":\"killed\"}\n",
            "{\"lost\":7,\"where\":\"ring\"}\n",
        ];
        assert_eq!(tally(Subject::Tail, &lines), (2, 7, None));
    }

    #[test]
    fn a_peers_headers_and_losses_are_no_events() {
        let lines = [
            "SKADDR           PID     OLDSTATE    -> NEWSTATE    MS\n",
            "ffff888167910000 25882   x 127.0.0.1 864 CLOSE_WAIT  -> LAST_ACK    42.232\n",
            "\n",
            "Lost 3 events\n",
        ];
        assert_eq!(tally(Subject::LibbpfTcpstates, &lines), (1, 3, None));
        let lines = ["Attaching 1 probe...\n", "\n", "@n: 1044\n"];
        assert_eq!(tally(Subject::BpftraceCount, &lines), (0, 0, Some(1044)));
    }

    #[test]
    fn counts_survive_being_floats() {
        assert_eq!((whole(1_500_002.0), whole(-1.0)), (1_500_002, 0));
    }
}
