//! Transitions as they happen, and the sockets that they tell of.

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    text::Line as TextLine,
    widgets::{Block, Cell, Paragraph, Row},
};
use tcpmon_common::TcpState;

use super::{
    super::{
        super::{
            columns::{printable, upper},
            figures::{grouped, span},
            ports_text::{cut, end, shorten_middle},
        },
        drill::Drill,
        state::{Sort, State, Stream},
    },
    BAD, BOLD, ports, tables,
};
use crate::model::{
    event::{Event, Gap, Line, LossPlace},
    time_wait::Passage,
};

/// Characters of a time, and of a transition with its reason.
const TIME: usize = 12;
const EDGE: usize = 26;
/// As wide as that, a line has the local address too.
const WIDE: usize = 110;

/// Draws the latest transitions.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let columns = Columns::fitting(usize::from(area.width.saturating_sub(2)));
    // A border above and below, and the head.
    let room = usize::from(area.height.saturating_sub(3));
    let back = if state.drilled.is_some() { 0 } else { state.selected };
    let wanted = |text: &String| state.lets([text.as_str()]);
    let mut lines: Vec<TextLine<'_>> = state
        .stream
        .lines
        .iter()
        .rev()
        .map(|line| (columns.line(line, &state.zone), style(line)))
        .filter(|(text, _)| wanted(text))
        .skip(back)
        .take(room)
        .map(|(text, style)| TextLine::styled(text, style))
        .collect();
    lines.push(TextLine::styled(columns.head(), BOLD));
    lines.reverse();
    let block = Block::bordered().title(title("Transitions", &state.stream, state.paused));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Draws the sockets of an owner towards a destination, and their transitions.
pub(super) fn draw_sockets(
    frame: &mut Frame<'_>,
    state: &State,
    drill: &Drill,
    owner: &str,
    area: Rect,
) {
    let [above, below] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
    let is_wide = usize::from(above.width) >= WIDE;
    let mut shown: Vec<&Event> = state.sockets.latest().collect();
    if state.sort == Sort::Name {
        shown.sort_by_key(|it| (it.sport, it.cookie));
    }
    let rows = shown.into_iter().take(above.height.into()).map(|it| {
        let before = it.duration_us.map_or_else(String::new, |us| {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let seconds = us as f64 / 1e6;
            format!("{} in {}", span(seconds), upper(it.old))
        });
        let gone = it.new == TcpState::Close;
        let style = if gone { Style::new().fg(Color::DarkGray) } else { Style::new() };
        Row::new(vec![
            Cell::from(if is_wide {
                end(&it.saddr.to_string(), Some(it.sport))
            } else {
                it.sport.to_string()
            }),
            Cell::from(it.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())),
            Cell::from(it.comm.as_ref().map_or_else(
                || "-".to_owned(),
                |comm| printable(&comm.to_string_lossy()).into_owned(),
            )),
            Cell::from(upper(it.new)),
            Cell::from(time(it.ts_ns, &state.zone)),
            Cell::from(before),
        ])
        .style(style)
    });
    let widths = [
        if is_wide { Constraint::Fill(2) } else { Constraint::Length(5) },
        Constraint::Length(7),
        Constraint::Length(15),
        Constraint::Length(11),
        Constraint::Length(12),
        Constraint::Fill(2),
    ];
    let local = if is_wide { "LOCAL" } else { "PORT" };
    let head = [local, "PID", "COMM", "STATE", "SINCE", "BEFORE"];
    let (kept, dropped) = state.sockets.count();
    let title = format!(
        "{}{} socket{} of {} to {}",
        if dropped > 0 { "The latest " } else { "" },
        grouped(kept as u64),
        if kept == 1 { "" } else { "s" },
        cut(owner, 32),
        ports::title(&drill.row),
    );
    frame.render_widget(tables::table(rows.collect(), widths, head, title), above);
    if state.sockets.is_empty() {
        let inner = Block::bordered().inner(above);
        let [_, first] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(inner);
        let text = "None yet: a socket is shown from its next transition on.";
        frame.render_widget(Paragraph::new(text), first);
    }
    draw(frame, state, below);
}

fn title(what: &str, stream: &Stream, paused: bool) -> String {
    match &stream.trouble {
        Some(why) => format!("{what}: no stream, trying again: {why}"),
        None if paused => {
            format!("{what}, held still: {} have passed since", grouped(stream.passed))
        }
        None if stream.is_open => format!("{what}, as they happen"),
        None => format!("{what}: opening the stream ..."),
    }
}

fn style(line: &Line) -> Style {
    match line {
        Line::Gap(_) => BAD,
        Line::Event(event) if event.port_exhausted => BAD,
        Line::Event(_) => Style::new(),
    }
}

/// Local time, as `tail` has it.
fn time(ts_ns: u64, zone: &TimeZone) -> String {
    let timestamp = Timestamp::from_nanosecond(ts_ns.into()).unwrap_or_default();
    timestamp.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string()
}

/// Widths of what is variable in a line.
#[derive(Clone, Copy, Debug)]
struct Columns {
    service: usize,
    local: usize,
    remote: usize,
    /// Whether the local end has its address.
    is_wide: bool,
}

impl Columns {
    fn fitting(width: usize) -> Self {
        let rest = width.saturating_sub(TIME + EDGE + 4);
        if width >= WIDE {
            let service = 20;
            let end = (rest - service) / 2;
            Self { service, local: end, remote: end, is_wide: true }
        } else {
            let local = 6;
            // An IPv4 end fits.
            let remote = 21.min(rest.saturating_sub(local + 8)).max(8);
            Self {
                service: rest.saturating_sub(local + remote).max(4),
                local,
                remote,
                is_wide: false,
            }
        }
    }

    fn head(self) -> String {
        let Self { service, local, remote, .. } = self;
        let port = if self.is_wide { "LOCAL" } else { "PORT" };
        format!(
            "{:<TIME$} {:<service$} {port:<local$} {:<remote$} TRANSITION",
            "TIME", "SERVICE", "TO"
        )
    }

    fn line(self, line: &Line, zone: &TimeZone) -> String {
        match line {
            Line::Event(event) => self.event(event, zone),
            Line::Gap(Gap { lost, place }) => {
                let events = if *lost == 1 { "event" } else { "events" };
                let place = match place {
                    LossPlace::Ring => "the kernel's buffer was full",
                    LossPlace::Subscriber => "this reader was too slow",
                };
                format!("-- {} {events} lost here: {place} --", grouped(*lost))
            }
        }
    }

    fn event(self, event: &Event, zone: &TimeZone) -> String {
        let Self { service, local, remote, .. } = self;
        let name = event.service.as_deref().unwrap_or("-");
        let port = |port: u16| if port == 0 { "-".to_owned() } else { port.to_string() };
        let from = if self.is_wide && event.sport != 0 {
            end(&event.saddr.to_string(), Some(event.sport))
        } else {
            port(event.sport)
        };
        let to = if event.dport == 0 {
            "-".to_owned()
        } else {
            end(&event.daddr.to_string(), Some(event.dport))
        };
        let mut edge = format!("{} -> {}", upper(event.old), upper(event.new));
        if event.port_exhausted {
            edge.push_str(" NO PORT");
        }
        if let Some(Passage::Left(reason)) = event.passage {
            edge = format!("{edge} {}", reason.name());
        }
        format!(
            "{} {:<service$} {:<local$} {:<remote$} {edge}",
            time(event.ts_ns, zone),
            cut(name, service),
            shorten_middle(&from, local),
            shorten_middle(&to, remote),
        )
    }
}
