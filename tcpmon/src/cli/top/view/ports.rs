//! Ports by destination, and the way from a destination to its owners and their sockets.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::Line,
    widgets::{Block, Cell, Paragraph, Row},
};

use super::{
    super::{
        super::{
            columns::printable,
            figures::{grouped, percent},
            ports_text::{bar, cut, end, fullness, owners_within, parts, route, shorten_middle},
        },
        drill::Drill,
        state::State,
    },
    CHOSEN, counted, severity, tables, transitions,
};
use crate::model::report::PortsRow;

/// As wide as that, the bar is long.
const WIDE: u16 = 120;
/// Characters of the bars: narrow, wide, and of a destination alone.
const BARS: [usize; 3] = [10, 24, 40];
/// Characters of an outlook.
const OUTLOOK: usize = 14;
/// Names of owners are cut there.
const NAME: usize = 40;

/// Draws the destinations, or the one that was drilled into.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, area: Rect) {
    match &state.drilled {
        None => draw_destinations(frame, state, area),
        Some(drill) => match &drill.owner {
            None => draw_destination(frame, state, drill, area),
            Some(owner) => transitions::draw_sockets(frame, state, drill, owner, area),
        },
    }
}

fn draw_destinations(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let shown = state.ports();
    // Its rows, their heads, and two borders.
    let area = tables::draw_worst(frame, state, area, shown.len() + 3);
    let is_wide = area.width >= WIDE;
    let bar_width = if is_wide { BARS[1] } else { BARS[0] };
    let ends: Vec<String> = shown.iter().map(|row| end(&row.dst, Some(row.dport))).collect();
    let longest = ends.iter().map(|end| end.chars().count()).max().unwrap_or(0);
    // The port is behind, so what is too long is cut in its middle.
    let end_width = longest.clamp("DESTINATION".len(), usize::from(area.width / 4).max(11));
    let netns = shown.iter().map(|row| printable(&row.netns).chars().count()).max().unwrap_or(0);
    let netns_width = netns.clamp("NETNS".len(), usize::from(area.width / 5).max(6));
    let used_width = if is_wide { 13 } else { 9 };
    // Two borders, and a blank before each column but the first.
    let others = 2 + 5 + end_width + bar_width + 2 + used_width + OUTLOOK + netns_width;
    let owners_width = usize::from(area.width).saturating_sub(others);
    let rows = shown.iter().zip(&ends).map(|(row, end)| {
        let used = if is_wide {
            format!("{}/{}", grouped(row.blocking()), grouped(row.capacity))
        } else {
            percent(row.utilization_ratio)
        };
        Row::new(vec![
            Cell::from(shorten_middle(end, end_width)),
            Cell::from(format!("[{}]", bar(row, bar_width))).style(bar_style(row)),
            Cell::from(used),
            Cell::from(outlook(row)),
            Cell::from(owners_within(&row.owners, owners_width).replace('\u{a0}', " ")),
            Cell::from(cut(&row.netns, netns_width)),
        ])
    });
    let fixed = |width: usize| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX));
    let widths = [
        fixed(end_width),
        fixed(bar_width + 2),
        fixed(used_width),
        fixed(OUTLOOK),
        Constraint::Fill(1),
        fixed(netns_width),
    ];
    let all = state.report.as_ref().map_or(0, |report| report.ports.len());
    let title = counted(shown.len(), all, "destination");
    let head = ["DESTINATION", "PORTS", "USED", "OUTLOOK", "OWNERS", "NETNS"];
    let table = tables::table(rows.collect(), widths, head, title);
    tables::show(frame, state, &table, area);
}

fn draw_destination(frame: &mut Frame<'_>, state: &State, drill: &Drill, area: Rect) {
    let row = &drill.row;
    let used = grouped(row.blocking());
    let figures = format!(
        "{used} of {}, {}; {}",
        grouped(row.capacity),
        percent(row.utilization_ratio),
        outlook(row)
    );
    let bar = BARS[2].min(usize::from(area.width.saturating_sub(40)));
    let mut lines = vec![
        Line::styled(format!("[{}] {figures}", self::bar(row, bar)), bar_style(row)),
        Line::raw(parts(row)),
    ];
    let chosen = drill.chosen.min(row.owners.len().saturating_sub(1));
    for (place, owner) in row.owners.iter().enumerate() {
        let text = format!("{:>9}  {:<NAME$}", grouped(owner.ports), cut(&owner.service, NAME));
        lines.push(Line::styled(text, if place == chosen { CHOSEN } else { Style::new() }));
    }
    if row.owners.is_empty() {
        lines.push(Line::raw("           owner unknown"));
    }
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height / 2 + 1);
    let [above, below] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(1)]).areas(area);
    // The chosen owner is to be seen, however many there are.
    let room = usize::from(height.saturating_sub(2));
    let skipped = (chosen + 3).saturating_sub(room);
    let text = Paragraph::new(lines).scroll((u16::try_from(skipped).unwrap_or(u16::MAX), 0));
    let mut title = title(row);
    if drill.find(state.report.as_ref()).is_none() {
        // The daemon's report has the busiest only.
        title.push_str(", as it was: it is not in the report any more");
    }
    frame.render_widget(text.block(Block::bordered().title(title)), above);
    transitions::draw(frame, state, below);
}

/// `10.0.0.1 -> 10.0.0.2:5432 in host`.
pub(super) fn title(row: &PortsRow) -> String {
    format!("{} in {}", route(&row.src, &row.dst, Some(row.dport)), printable(&row.netns))
}

fn bar_style(row: &PortsRow) -> Style {
    fullness(row).map_or_else(Style::new, |how| severity(Some(how)))
}

/// In few words: there is a column of them.
fn outlook(row: &PortsRow) -> String {
    match (row.eta_s, row.settles_at_ratio) {
        _ if row.utilization_ratio >= 1.0 => "none left".to_owned(),
        (Some(seconds), _) if seconds < 1.0 => "out now".to_owned(),
        (Some(seconds), _) => format!("out in {}", roughly(seconds)),
        (None, Some(ratio)) => format!("to {}", percent(ratio)),
        (None, None) => "lasts".to_owned(),
    }
}

/// A time in one unit: more of it would be of no use, and there is no room.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a number")]
fn roughly(seconds: f64) -> String {
    match seconds.max(0.0) as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlook_fits_its_column() {
        for (ratio, eta_s, settles_at_ratio, text) in [
            (1.0, Some(0.0), None, "none left"),
            (0.9, Some(0.5), None, "out now"),
            (0.9, Some(9.7), None, "out in 9 s"),
            (0.9, Some(312.0), None, "out in 5 min"),
            (0.1, Some(7_199.0), None, "out in 119 min"),
            (0.1, Some(86_399.0), None, "out in 23 h"),
            (0.1, Some(864_000.0), None, "out in 10 d"),
            (0.1, None, Some(0.34), "to 34 %"),
            (0.1, None, None, "lasts"),
        ] {
            let row = PortsRow {
                utilization_ratio: ratio,
                eta_s,
                settles_at_ratio,
                ..PortsRow::default()
            };
            assert_eq!(outlook(&row), text);
            assert!(text.len() <= OUTLOOK);
        }
    }
}
