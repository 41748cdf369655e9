//! What the program wants to cost at most, held against what it cost. Nothing fails for it: a
//! busy machine is no defect, and a person reads the table.

use serde::Serialize;

use super::{
    churn::loads_in_words,
    detail::ProbeTime,
    look::Looker,
    proc::Memory,
    report::Report,
    stats::Spread,
    subject::Subject,
    table::{Form, Table},
};

/// One figure and its goal.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What is measured, with its unit.
    pub what: String,
    /// What came out; `None` if it was not measured in this run.
    pub measured: Option<f64>,
    /// The limit that is to be kept.
    pub limit: f64,
    /// The limit that would be better still.
    pub aim: Option<f64>,
    /// On which side of the limit is good.
    pub side: Side,
    /// Digits behind the point that say something.
    #[serde(skip)]
    digits: usize,
}

/// On which side of its limit a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// At the limit or above.
    AtLeast,
    /// At the limit or below.
    AtMost,
    /// Below the limit.
    Below,
}

impl Side {
    fn holds(self, figure: f64, limit: f64) -> bool {
        match self {
            Self::AtLeast => figure >= limit,
            Self::AtMost => figure <= limit,
            Self::Below => figure < limit,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
            Self::Below => "below",
        }
    }
}

impl Goal {
    fn new(
        what: impl Into<String>,
        measured: Option<f64>,
        side: Side,
        limit: f64,
        aim: Option<f64>,
        digits: usize,
    ) -> Self {
        Self { what: what.into(), measured, limit, aim, side, digits }
    }

    /// Whether it is met.
    fn verdict(&self) -> &'static str {
        let holds = |limit| self.measured.map(|figure| self.side.holds(figure, limit));
        match (holds(self.limit), self.aim.and_then(holds)) {
            (None, _) => "not measured",
            (Some(false), _) => "NO",
            (Some(true), Some(true)) => "yes, and the aim",
            (Some(true), _) => "yes",
        }
    }
}

/// All goals, in the order of the tables.
pub(super) fn goals(report: &Report) -> Vec<Goal> {
    use Side::{AtLeast, AtMost, Below};
    let mut goals = Vec::new();
    let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
    for churn in &report.churn {
        let loads = loads_in_words(churn.threads);
        let ratio = |subject| median(churn.ratio(subject));
        let what = |who: &str| format!("pace with {who}, {loads}, ratio to bare");
        goals.extend([
            Goal::new(what("daemon"), ratio(Subject::Daemon), AtLeast, 0.95, Some(0.97), 3),
            Goal::new(what("daemon + tail"), ratio(Subject::Tail), AtLeast, 0.90, Some(0.93), 3),
        ]);
        let lost = churn.lost(Subject::Tail);
        let what = format!("events lost by daemon + tail, {loads}, all rounds");
        goals.push(Goal::new(what, lost, AtMost, 0.0, None, 0));
    }
    if let Some(seen) = report.seen.iter().find(|seen| seen.subject == Subject::Tail) {
        let missing = super::stats::to_f64(seen.made.abs_diff(seen.seen));
        let what = "events made but not told by tail, or the other way round";
        goals.push(Goal::new(what, Some(missing), AtMost, 0.0, None, 0));
    }
    // Of the program on transitions, as those of the peers are. What the ledger of TIME_WAIT takes on
    // timers is apart: it is no peer's work, and `--time-wait sampled` does without.
    let probe = |subject| {
        let time = report.probe_time.iter().find(|time| time.subject == subject);
        time.map(ProbeTime::own_ns_per_event)
    };
    let on_timers =
        report.probe_time.iter().filter_map(|time| time.timers_ns_per_event).max_by(f64::total_cmp);
    let cpu = report.churn.iter().find_map(|churn| churn.cpu_per_event(Subject::Tail));
    let runs = report.churn.iter().flat_map(|churn| {
        [Subject::Daemon, Subject::Tail].into_iter().flat_map(|subject| churn.runs(subject))
    });
    let memories: Vec<_> = runs.map(|run| run.usage.daemon_memory).collect();
    let most = |of: fn(&Memory) -> u64| {
        memories.iter().map(of).max().map(|bytes| super::stats::to_f64(bytes) / 1e6)
    };
    let (resident, peak) = (most(|memory| memory.resident), most(|memory| memory.peak));
    let idle = |subject| {
        let idle = report.idle.iter().find(|idle| idle.subject == subject);
        idle.map(|idle| idle.daemon_share * 100.0)
    };
    let look = |to| median(report.look.as_ref().and_then(|look| look.ratio(Looker::Tcpmon, to)));
    let latency = report.latency.map(|latency| latency.max);
    goals.extend([
        Goal::new(
            "BPF on transitions, ns an event, daemon",
            probe(Subject::Daemon),
            AtMost,
            200.0,
            Some(150.0),
            0,
        ),
        Goal::new(
            "BPF on transitions, ns an event, with tail",
            probe(Subject::Tail),
            AtMost,
            260.0,
            Some(200.0),
            0,
        ),
        Goal::new("BPF on timers, ns an event, the most", on_timers, AtMost, 75.0, None, 0),
        Goal::new("CPU of daemon + tail, µs an event", median(cpu), Below, 2.0, None, 2),
        Goal::new("daemon's resident memory after a load, MB", resident, Below, 40.0, None, 1),
        Goal::new("the same at its peak, start included, MB", peak, Below, 40.0, None, 1),
        Goal::new("idle daemon, % of a CPU", idle(Subject::Daemon), Below, 0.1, None, 3),
        Goal::new("idle daemon with a tail, % of a CPU", idle(Subject::Tail), Below, 0.1, None, 3),
        Goal::new("first event after silence, worst, ms", latency, AtMost, 50.0, None, 2),
        Goal::new(
            "probes on others' timers, 10,000 a second, % of a CPU",
            report.timers.first().map(|cost| cost.share * 100.0),
            Below,
            1.0,
            None,
            3,
        ),
        Goal::new(
            "CPU of a snapshot, ratio to ss -Htan",
            look(Looker::Ss),
            AtMost,
            0.30,
            Some(0.25),
            3,
        ),
        Goal::new("the same to a netlink dump", look(Looker::Netlink), AtMost, 1.0, None, 3),
    ]);
    goals
}

/// The goals beside what was measured.
pub(super) fn render(goals: &[Goal], form: Form) -> String {
    let mut table = Table::new("Goals", &["figure", "measured", "goal", "aim", "met"]);
    for goal in goals {
        let figure = |figure: f64| format!("{figure:.*}", goal.digits);
        let plain = |limit: f64| format!("{limit}");
        table.row(vec![
            goal.what.clone(),
            goal.measured.map_or_else(|| "–".to_owned(), figure),
            format!("{} {}", goal.side.words(), plain(goal.limit)),
            goal.aim.map_or_else(String::new, plain),
            goal.verdict().to_owned(),
        ]);
    }
    table.render(form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{churn::tests::rounds, look::tests::looks};

    #[test]
    fn a_verdict_knows_its_side() {
        use Side::{AtLeast, AtMost, Below};
        for (measured, side, limit, aim, verdict) in [
            (Some(0.96), AtLeast, 0.95, Some(0.97), "yes"),
            (Some(0.98), AtLeast, 0.95, Some(0.97), "yes, and the aim"),
            (Some(0.94), AtLeast, 0.95, Some(0.97), "NO"),
            (Some(200.0), AtMost, 200.0, Some(150.0), "yes"),
            (Some(2.0), Below, 2.0, None, "NO"),
            (Some(f64::NAN), AtMost, 1.0, None, "NO"),
            (None, AtMost, 0.0, None, "not measured"),
        ] {
            let goal = Goal::new("x", measured, side, limit, aim, 2);
            assert_eq!(goal.verdict(), verdict, "{goal:?}");
        }
    }

    #[test]
    fn goals_take_their_figures_from_the_report() {
        let churn = rounds(&[
            (Subject::Bare, &[100.0, 100.0, 100.0]),
            (Subject::Daemon, &[96.0, 98.0, 94.0]),
            (Subject::Tail, &[80.0, 91.0, 92.0]),
        ]);
        let look = looks(&[
            (Looker::Ss, &[1000.0]),
            (Looker::Netlink, &[250.0]),
            (Looker::Tcpmon, &[275.0]),
        ]);
        let probe_time = vec![ProbeTime {
            subject: Subject::Daemon,
            ns_per_event: 214.0,
            timers_ns_per_event: Some(54.0),
            runs_per_event: 2.2,
        }];
        let report =
            Report { churn: vec![churn], look: Some(look), probe_time, ..Report::default() };
        let goals = goals(&report);
        let measured = |what: &str| {
            let goal = goals.iter().find(|goal| goal.what.contains(what)).expect("that goal");
            (goal.measured, goal.verdict())
        };
        assert_eq!(measured("with daemon, 1 load,"), (Some(0.96), "yes"));
        assert_eq!(measured("with daemon + tail, 1 load,"), (Some(0.91), "yes"));
        assert_eq!(measured("events lost by"), (Some(6.0), "NO"));
        assert_eq!(measured("CPU of daemon + tail").1, "yes");
        assert_eq!(measured("on transitions, ns an event, daemon"), (Some(160.0), "yes"));
        assert_eq!(measured("on timers, ns an event"), (Some(54.0), "yes"));
        assert_eq!(measured("idle daemon,"), (None, "not measured"));
        assert_eq!(measured("ratio to ss").1, "yes");
        assert_eq!(measured("to a netlink dump").1, "NO");
        assert!(render(&goals, Form::Text).contains("at least 0.95"));
    }
}
