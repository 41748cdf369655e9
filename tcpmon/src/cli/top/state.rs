//! What `top` knows: fed with reports and streams, moved by keys ([`super::keys`]), drawn by
//! [`super::view`]. No terminal and no clock in here.

use std::{collections::VecDeque, time::Duration};

use jiff::tz::TimeZone;

use super::{
    drill::Drill,
    history::{Curve, POINTS},
    sockets::Sockets,
    stream::{Streamed, Wanted},
};
use crate::model::{event::Line, report::Report};

/// Transitions that are kept.
pub(super) const LINES: usize = 500;

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    /// Ports by destination.
    #[default]
    Ports,
    /// TIME_WAIT by owner.
    TimeWait,
    /// Sockets by state.
    Sockets,
    /// Alerts and advice.
    Alerts,
    /// Transitions as they happen.
    Live,
}

impl Tab {
    /// In the order of their numbers.
    pub(super) const ALL: [Self; 5] =
        [Self::Ports, Self::TimeWait, Self::Sockets, Self::Alerts, Self::Live];

    /// What it is called.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ports => "1 Ports",
            Self::TimeWait => "2 TIME_WAIT",
            Self::Sockets => "3 Sockets",
            Self::Alerts => "4 Alerts",
            Self::Live => "5 Live",
        }
    }
}

/// By what rows are in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// The fullest, or the most, first.
    #[default]
    Most,
    /// Who runs out soonest, or grows fastest, first.
    Fastest,
    /// By name.
    Name,
}

impl Sort {
    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Most => "most first",
            Self::Fastest => "fastest first",
            Self::Name => "by name",
        }
    }
}

/// What comes from the daemon.
#[derive(Debug)]
pub(super) enum Message {
    /// A report.
    Report(Box<Report>),
    /// There is none: why, in one line.
    Gone(String),
    /// From the stream that was wanted as the number of that.
    Stream(u64, Streamed),
}

/// The stream of transitions, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// What is wanted now.
    pub(super) wanted: Wanted,
    /// The daemon has said that it has begun.
    pub(super) is_open: bool,
    /// Why it is not.
    pub(super) trouble: Option<String>,
    /// The latest lines, and of which query they are.
    pub(super) lines: VecDeque<Line>,
    of: String,
    /// Lines that came while the picture was held still.
    pub(super) passed: u64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) zone: TimeZone,
    /// Between two reports.
    pub(super) interval: Duration,
    pub(super) report: Option<Report>,
    /// Why there is no newer report.
    pub(super) gone: Option<String>,
    pub(super) tab: Tab,
    pub(super) sort: Sort,
    pub(super) selected: usize,
    /// Rows without these letters are left out.
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// What was drilled into; belongs to [`Tab::Ports`].
    pub(super) drilled: Option<Drill>,
    pub(super) stream: Stream,
    /// Of the owner that was drilled into.
    pub(super) sockets: Sockets,
    /// Sockets in TIME_WAIT.
    pub(super) time_wait: Curve,
    /// Connections opened a second.
    pub(super) connections: Curve,
    /// Points that came while the picture was held still.
    meanwhile: VecDeque<(u64, u64)>,
}

impl State {
    /// Knows nothing yet. Times are shown in `zone`; a report comes each `interval`.
    pub(super) fn new(zone: TimeZone, interval: Duration) -> Self {
        Self {
            zone,
            interval,
            report: None,
            gone: None,
            tab: Tab::default(),
            sort: Sort::default(),
            selected: 0,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            drilled: None,
            stream: Stream::default(),
            sockets: Sockets::default(),
            time_wait: Curve::default(),
            connections: Curve::default(),
            meanwhile: VecDeque::new(),
        }
    }

    /// Takes what the daemon says.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Gone(why) => self.gone = Some(why),
            Message::Stream(generation, said) => {
                // What was queued when another stream was wanted is of no use any more.
                if generation == self.stream.wanted.generation {
                    self.take_streamed(said);
                }
            }
            Message::Report(report) => {
                self.gone = None;
                let points = (time_wait(&report), opened_per_second(&report));
                if self.paused {
                    push(&mut self.meanwhile, points, POINTS);
                    return;
                }
                self.add(points);
                // The row that was chosen stays chosen, wherever it is now.
                let chosen = self.row_names().into_iter().nth(self.selected);
                if let Some(drill) = &mut self.drilled {
                    drill.renew(&report);
                }
                self.report = Some(*report);
                let names = self.row_names();
                let place = chosen.and_then(|name| names.iter().position(|it| *it == name));
                self.selected = place.unwrap_or(self.selected).min(names.len().saturating_sub(1));
            }
        }
    }

    fn take_streamed(&mut self, said: Streamed) {
        match said {
            Streamed::Begun => {
                self.stream.is_open = true;
                self.stream.trouble = None;
            }
            Streamed::Broken(why) => {
                self.stream.is_open = false;
                self.stream.trouble = Some(why);
            }
            Streamed::Lines(lines) if self.paused => self.stream.passed += lines.len() as u64,
            Streamed::Lines(lines) => {
                for line in lines {
                    if let Line::Event(event) = &line {
                        match self.drilled.as_ref().filter(|_| self.tab == Tab::Ports) {
                            Some(drill) if !drill.concerns(event) => continue,
                            Some(drill) if drill.owner.is_some() => {
                                self.sockets.take(event.clone());
                            }
                            _ => {}
                        }
                    }
                    push(&mut self.stream.lines, line, LINES);
                }
            }
        }
    }

    /// Which stream the present picture shows; `None`: it shows none.
    fn query(&self) -> Option<String> {
        match self.tab {
            Tab::Live => Some(String::new()),
            Tab::Ports => self.drilled.as_ref().map(Drill::query),
            Tab::TimeWait | Tab::Sockets | Tab::Alerts => None,
        }
    }

    /// To be called whenever something else may be looked at: which stream is wanted from now on,
    /// if that has changed.
    pub(super) fn newly_wanted(&mut self) -> Option<Wanted> {
        let query = self.query();
        let stream = &mut self.stream;
        if query == stream.wanted.query {
            return None;
        }
        if let Some(query) = &query {
            // A picture that is held still is still there when one comes back to it.
            if !self.paused || stream.of != *query {
                stream.lines.clear();
                stream.passed = 0;
                self.sockets.clear();
            }
            stream.of.clone_from(query);
        }
        stream.is_open = false;
        stream.trouble = None;
        stream.wanted = Wanted { generation: stream.wanted.generation + 1, query };
        Some(stream.wanted.clone())
    }

    /// Holds the picture still, or lets it go on.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        if !paused {
            self.stream.passed = 0;
            for points in std::mem::take(&mut self.meanwhile) {
                self.add(points);
            }
            if self.tab == Tab::Live {
                self.selected = 0;
            }
        }
    }

    fn add(&mut self, (time_wait, connections): (u64, u64)) {
        self.time_wait.push(time_wait);
        self.connections.push(connections);
    }

    /// Events that were lost on the way to streams, as the daemon counts them. The gaps in a
    /// stream are among these, so they are not added.
    pub(super) fn lost(&self) -> u64 {
        let loss = self.report.as_ref().map(|report| report.loss).unwrap_or_default();
        loss.ring.saturating_add(loss.subscriber)
    }
}

/// Sockets in TIME_WAIT: by the ledgers, else by the snapshot.
fn time_wait(report: &Report) -> u64 {
    let sum = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
    if report.namespaces.iter().any(|row| row.time_wait.is_some()) {
        return sum(&mut report.namespaces.iter().filter_map(|row| row.time_wait));
    }
    let rows = report.sockets.iter().filter(|row| row.state == "time_wait");
    sum(&mut rows.map(|row| row.sockets))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a curve")]
fn opened_per_second(report: &Report) -> u64 {
    let active = report.connections.iter().filter(|row| row.role == "active");
    active.map(|row| row.per_s).sum::<f64>().max(0.0).round() as u64
}

fn push<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(value);
}
