//! Drawing what `top` knows. ratatui sends the terminal only what has changed since the last
//! picture. Names are somebody else's, so each goes through [`printable`].

mod help;
mod ports;
mod tables;
mod transitions;

use jiff::Timestamp;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Sparkline, Tabs, Wrap},
};

use super::{
    super::{
        columns::printable,
        figures::{grouped, span},
    },
    history::{Curve, POINTS},
    state::{State, Tab},
};
use crate::model::report::Severity;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
const BAD: Style = Style::new().fg(Color::Red);

/// Rows below which the curves are left out, and below which they are flat.
const LOW: [u16; 2] = [12, 20];

/// Draws it all, with colours or without.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, colour: bool) {
    draw_all(frame, state);
    if !colour {
        // Bold and reversed stay: without colours they are what is left to tell rows by.
        for cell in &mut frame.buffer_mut().content {
            (cell.fg, cell.bg) = (Color::Reset, Color::Reset);
        }
    }
}

fn draw_all(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    let curves = match area.height {
        height if height < LOW[0] => 0,
        height if height < LOW[1] => 2,
        _ => 4,
    };
    let width = usize::from(area.width).max(1);
    let trouble = state.gone.as_ref().map_or(0, |why| why.chars().count().div_ceil(width).min(3));
    let [head, curves, tabs, body, trouble, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(curves),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(u16::try_from(trouble).unwrap_or(1)),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(headline(state), head);
    draw_curves(frame, state, curves);
    let chosen = Tab::ALL.iter().position(|tab| *tab == state.tab).unwrap_or(0);
    frame.render_widget(
        Tabs::new(Tab::ALL.map(Tab::title)).select(chosen).divider("|").highlight_style(CHOSEN),
        tabs,
    );
    if state.help {
        help::draw(frame, body);
    } else {
        match state.tab {
            Tab::Ports => ports::draw(frame, state, body),
            Tab::TimeWait => tables::draw_owners(frame, state, body),
            Tab::Sockets => tables::draw_states(frame, state, body),
            Tab::Alerts => tables::draw_alerts(frame, state, body),
            Tab::Live => transitions::draw(frame, state, body),
        }
    }
    if let Some(why) = &state.gone {
        let why = Paragraph::new(why.as_str()).style(BAD.add_modifier(Modifier::BOLD));
        frame.render_widget(why.wrap(Wrap { trim: true }), trouble);
    }
    frame.render_widget(footline(state), foot);
}

fn headline(state: &State) -> Line<'static> {
    let Some(report) = &state.report else { return Line::raw("tcpmon top") };
    let time = report.ts.parse::<Timestamp>().map_or_else(
        |_| printable(&report.ts).into_owned(),
        |ts| ts.to_zoned(state.zone.clone()).strftime("%H:%M:%S").to_string(),
    );
    let mut words = vec![Span::raw(format!("{}, {time}  ", printable(&report.host)))];
    let worst = report.worst();
    let verdict = match (report.alerts.len(), worst) {
        (_, None) => "no alert fires".to_owned(),
        (1, Some(worst)) => format!("1 alert: {}", worst.name()),
        (count, Some(worst)) => format!("{count} alerts, worst: {}", worst.name()),
    };
    words.push(Span::styled(verdict, severity(worst).add_modifier(Modifier::BOLD)));
    let lost = state.lost();
    if lost > 0 {
        words.push(Span::styled(format!("  {} events lost to streams", grouped(lost)), BAD));
    }
    Line::from(words)
}

fn footline(state: &State) -> Line<'static> {
    if state.typing {
        return Line::raw(format!(
            "/{}_   Enter keeps it, Esc forgets it",
            printable(&state.filter)
        ));
    }
    let mut words = Vec::new();
    if state.paused {
        words.push(Span::styled("HELD STILL, p goes on", BOLD));
    }
    if !state.filter.is_empty() {
        words.push(Span::styled(format!("/{}", printable(&state.filter)), BOLD));
    }
    let way = match (state.tab, &state.drilled) {
        (Tab::Ports, None) => Some("Enter owners"),
        (Tab::Ports, Some(drill)) if drill.owner.is_none() => Some("Enter sockets   Esc back"),
        (Tab::Ports, Some(_)) => Some("Esc back"),
        _ => None,
    };
    let order = format!("s {}", state.sort.name());
    let faint = Style::new().fg(Color::DarkGray);
    words.extend(
        ["? keys", "q end"]
            .into_iter()
            .chain(way)
            .map(str::to_owned)
            .chain([order])
            .map(|hint| Span::styled(hint, faint)),
    );
    words.into_iter().flat_map(|word| [word, Span::raw("   ")]).collect()
}

fn draw_curves(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
    let [left, right] = halves.areas(area);
    let curve = |frame: &mut Frame<'_>, area: Rect, name: &str, curve: &Curve, colour: Color| {
        let [above, below] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let (latest, peak) = (grouped(curve.latest()), grouped(curve.peak()));
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let minutes = span(state.interval.as_secs_f64() * POINTS as f64);
        let title = format!("{name} {latest}, peak {peak} in {minutes}");
        frame.render_widget(Line::styled(title, BOLD), above);
        let columns = curve.columns(area.width.into());
        frame.render_widget(
            Sparkline::default().data(columns).max(curve.peak().max(1)).style(colour),
            below,
        );
    };
    curve(frame, left, "TIME_WAIT", &state.time_wait, Color::Yellow);
    curve(frame, right, "opened/s", &state.connections, Color::Cyan);
}

fn severity(worst: Option<Severity>) -> Style {
    Style::new().fg(match worst {
        Some(Severity::Critical) => Color::Red,
        Some(Severity::Warning) => Color::Yellow,
        Some(Severity::Info) => Color::Cyan,
        None => Color::Green,
    })
}

/// `1 of 4 destinations` where a filter leaves some out.
fn counted(shown: usize, all: usize, what: &str) -> String {
    let plural = if all == 1 { "" } else { "s" };
    if shown == all {
        format!("{all} {what}{plural}")
    } else {
        format!("{shown} of {all} {what}{plural}")
    }
}
