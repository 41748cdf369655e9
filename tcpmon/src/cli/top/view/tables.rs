//! The panes that are tables: TIME_WAIT by owner, sockets by state, alerts.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, Cell, Paragraph, Row, Table, TableState},
};

use super::{
    super::{
        super::{
            columns::printable,
            figures::grouped,
            paper::Paper,
            ports_text::{end, owners, route, whole_commands},
        },
        state::State,
    },
    BOLD, CHOSEN, counted, severity,
};
use crate::model::report::{AlertRow, Severity};

/// A table as all of them look.
pub(super) fn table<'a, const COLUMNS: usize>(
    rows: Vec<Row<'a>>,
    widths: [Constraint; COLUMNS],
    head: [&'static str; COLUMNS],
    title: String,
) -> Table<'a> {
    Table::new(rows, widths)
        .header(Row::new(head).style(BOLD))
        .row_highlight_style(CHOSEN)
        .block(Block::bordered().title(title))
}

/// Draws it, with the row that is chosen.
pub(super) fn show(frame: &mut Frame<'_>, state: &State, table: &Table<'_>, area: Rect) {
    let mut chosen = TableState::default().with_selected(state.selected);
    frame.render_stateful_widget(table, area, &mut chosen);
}

/// Draws who leaves TIME_WAIT.
pub(super) fn draw_owners(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let shown = state.owners();
    let rows = shown.iter().map(|row| {
        let to = if row.dst.is_empty() { "-".to_owned() } else { end(&row.dst, row.dport) };
        Row::new(vec![
            Cell::from(printable(&row.service)),
            Cell::from(row.sockets.map_or_else(|| "-".to_owned(), grouped)),
            Cell::from(format!("{:.1}", row.entered_per_s)),
            Cell::from(grouped(row.entered_total)),
            Cell::from(to),
            Cell::from(printable(&row.netns)),
        ])
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(11),
        Constraint::Fill(2),
        Constraint::Fill(1),
    ];
    let head = ["SERVICE", "NOW", "A SECOND", "IN ALL", "TO", "NETNS"];
    let all = state.report.as_ref().map_or(0, |report| report.time_wait.len());
    let title = format!("Who leaves TIME_WAIT: {}", counted(shown.len(), all, "row"));
    let table = table(rows.collect(), widths, head, title);
    show(frame, state, &table, area);
}

/// Draws how many sockets are in which state.
pub(super) fn draw_states(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let rows = state.states().into_iter().map(|row| {
        Row::new(vec![
            Cell::from(printable(&row.state).to_uppercase()),
            Cell::from(format!("{:>11}", grouped(row.sockets))),
            Cell::from(printable(&row.family)),
            Cell::from(printable(&row.netns)),
        ])
    });
    let widths = [
        Constraint::Length(14),
        Constraint::Length(11),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    let head = ["STATE", "    SOCKETS", "FAMILY", "NETNS"];
    let table = table(rows.collect(), widths, head, "Sockets by state".to_owned());
    show(frame, state, &table, area);
}

/// Draws alerts, from the chosen one on: their texts have no fixed height.
pub(super) fn draw_alerts(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let shown = state.alerts();
    let width = usize::from(area.width.saturating_sub(2));
    let mut lines = Vec::new();
    for alert in shown.iter().skip(state.selected) {
        lines.extend(alert_lines(alert, width, usize::MAX));
        lines.push(Line::raw(""));
    }
    let all = state.report.as_ref().map_or(0, |report| report.alerts.len());
    if all == 0 {
        lines.push(Line::styled("No alert fires.", Style::new().fg(Color::Green)));
    }
    let mut title = counted(shown.len(), all, "alert");
    if state.selected > 0 {
        title = format!("{title}, from the {}. on", state.selected + 1);
    }
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

fn alert_title(alert: &AlertRow) -> String {
    let title = format!(
        "{:<9} {} in {}",
        alert.severity.name().to_uppercase(),
        printable(&alert.alert),
        printable(&alert.netns)
    );
    if alert.dst.is_empty() {
        return title;
    }
    format!("{title}  {}", route(&alert.src, &alert.dst, alert.dport))
}

/// Draws the worst alert below a table of so many lines, where there is room for it: what is wrong
/// and what to do stand on the first picture then. Returns where the table goes.
pub(super) fn draw_worst(frame: &mut Frame<'_>, state: &State, area: Rect, table: usize) -> Rect {
    let alerts = state.alerts();
    let Some(worst) = alerts.first().filter(|alert| alert.severity > Severity::Info) else {
        return area;
    };
    let room = usize::from(area.height).saturating_sub(table + 2);
    let lines = alert_lines(worst, area.width.saturating_sub(2).into(), room);
    if lines.len() > room {
        return area;
    }
    let table = u16::try_from(table).unwrap_or(u16::MAX);
    let [above, below] =
        Layout::vertical([Constraint::Length(table), Constraint::Fill(1)]).areas(area);
    let title =
        if alerts.len() == 1 { "The alert; 4 is its pane" } else { "The worst alert; 4 shows all" };
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), below);
    above
}

/// An alert's title and text, with as many pieces of advice as there is room for.
fn alert_lines(alert: &AlertRow, width: usize, room: usize) -> Vec<Line<'static>> {
    let style = severity(Some(alert.severity)).add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(alert_title(alert), style)];
    let raw = |text: String| -> Vec<Line<'static>> {
        text.lines().map(|line| Line::raw(line.to_owned())).collect()
    };
    lines.extend(raw(alert_text(alert, width)));
    for advice in &alert.advice {
        let mut paper = Paper::new(width, false);
        paper.entry("  -> ", &whole_commands(&printable(advice)));
        let advice = raw(paper.into_text());
        if lines.len().saturating_add(advice.len()) > room {
            break;
        }
        lines.extend(advice);
    }
    lines
}

/// What is wrong and whose it is; wrapped as `report` does it.
fn alert_text(alert: &AlertRow, width: usize) -> String {
    let mut paper = Paper::new(width, false);
    paper.paragraph(2, &printable(&alert.summary));
    if !alert.owners.is_empty() {
        paper.paragraph(2, &format!("held by {}", owners(&alert.owners)));
    }
    paper.into_text()
}
