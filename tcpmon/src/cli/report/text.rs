//! The report as text, in the order in which it is read: is anything wrong, where the ports go,
//! who leaves TIME_WAIT, which sockets there are, what failed, what to do.
//!
//! Every name in it is foreign: a process may call itself what it likes. What a terminal would
//! obey does not get there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use tcpmon_common::TcpState;

use crate::cli::advice_text;
use crate::cli::{
    columns::{printable, upper},
    figures::{grouped, percent, span},
    paper::{Ink, Paper},
    ports_text::{NAME, bar, cut, fullness, legend, owners, route, whole_commands},
};
use crate::model::report::{AlertRow, PortsRow, Report, Severity, TimeWaitRow};

/// From that width on, names are cut at [`NAME`].
const WIDE: usize = 120;
/// Names are cut there in tables on a narrow terminal.
const SHORT_NAME: usize = 20;
/// A destination is one line where so much of it is left for its owners.
const OWNERS_WIDTH: usize = 28;
/// Characters of its bar then, and of the longer one where it has several lines.
const BAR: usize = 14;
const LONG_BAR: usize = 24;
/// Rows of a table; `--json` has all.
const ROWS: usize = 20;

/// Writes all of it.
pub(super) fn write(report: &Report, zone: &TimeZone, paper: &mut Paper) {
    head(report, zone, paper);
    alerts(report, paper);
    ports(report, paper);
    time_wait(report, paper);
    sockets(report, paper);
    failures(report, paper);
    advice(report, paper);
    notes(report, paper);
}

fn head(report: &Report, zone: &TimeZone, paper: &mut Paper) {
    let time = report.ts.parse::<Timestamp>().map_or_else(
        |_| printable(&report.ts).into_owned(),
        |ts| ts.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
    );
    let host = printable(&report.host);
    paper.paragraph(0, &format!("{host}, {time}; watched for {}", span(report.uptime_s)));
}

fn alerts(report: &Report, paper: &mut Paper) {
    paper.gap();
    if report.alerts.is_empty() {
        let verdict = paper.ink(Ink::Good, "Nothing is wrong: no alert fires.");
        paper.line(&verdict);
        return;
    }
    let count = |severity| report.alerts.iter().filter(|alert| alert.severity == severity).count();
    let counts: Vec<String> = [Severity::Critical, Severity::Warning, Severity::Info]
        .into_iter()
        .filter(|severity| count(*severity) > 0)
        .map(|severity| format!("{} {}", count(severity), severity.name()))
        .collect();
    let noun = if report.alerts.len() == 1 { "alert fires" } else { "alerts fire" };
    let verdict = format!("{} {noun}: {}.", report.alerts.len(), counts.join(", "));
    let verdict = paper.ink(ink(report.worst().unwrap_or_default()), &verdict);
    paper.line(&verdict);
    let mut before: Option<&AlertRow> = None;
    for alert in &report.alerts {
        paper.gap();
        one_alert(alert, before, &report.ts, paper);
        before = Some(alert);
    }
}

/// What the alert `before` said already is not said again.
fn one_alert(alert: &AlertRow, before: Option<&AlertRow>, now: &str, paper: &mut Paper) {
    let mut about = printable(&alert.alert).into_owned();
    if !alert.dst.is_empty() {
        about = format!("{about}  {}", route(&alert.src, &alert.dst, alert.dport));
    }
    about = format!("{about} in {}", printable(&alert.netns));
    if let Some(lasted) = between(&alert.since, now) {
        about = format!("{about}, for {}", span(lasted).replace(' ', "\u{a0}"));
    }
    let label = format!("{:<9} ", alert.severity.name().to_uppercase());
    paper.hanging(&label, 10, ink(alert.severity), &about);
    paper.paragraph(10, &printable(&alert.summary));
    let same = before
        .filter(|it| (&it.netns, &it.dst, it.dport) == (&alert.netns, &alert.dst, alert.dport));
    if !alert.owners.is_empty() && same.is_none_or(|it| it.owners != alert.owners) {
        // Towards a destination it is ports that they hold.
        let what = if alert.dst.is_empty() { "Sockets of" } else { "Ports held by" };
        paper.paragraph(10, &format!("{what} {}.", owners(&alert.owners)));
    }
    let said = same.map_or(&[][..], |it| &it.advice);
    for advice in alert.advice.iter().filter(|it| !said.contains(it)) {
        paper.entry("          -> ", &whole_commands(&printable(advice)));
    }
}

const fn ink(severity: Severity) -> Ink {
    match severity {
        Severity::Info => Ink::Plain,
        Severity::Warning => Ink::Warn,
        Severity::Critical => Ink::Bad,
    }
}

fn ports(report: &Report, paper: &mut Paper) {
    paper.heading("Ports in use, by destination");
    if report.ports.is_empty() {
        paper.paragraph(2, "None that connect() chose.");
        return;
    }
    let shown = &report.ports[..report.ports.len().min(ROWS)];
    let legend = paper.ink(Ink::Faint, &legend());
    paper.line(&format!("  {legend}"));
    if !wide_ports(shown, paper) {
        for row in shown {
            let title = route(&row.src, &row.dst, Some(row.dport));
            paper.entry("  ", &format!("{title} in {}", printable(&row.netns)));
            let bar = paper.ink(bar_ink(row), &bar(row, LONG_BAR));
            paper.line(&format!("    [{bar}] {}", used(row)));
            paper.entry("    ", &format!("{}; {}", outlook(row), owners(&row.owners)));
        }
    }
    rest(report.ports.len(), paper);
}

/// One line for each destination; writes nothing, and says so, where that does not fit.
fn wide_ports(rows: &[PortsRow], paper: &mut Paper) -> bool {
    let titles: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let netns = cut(&row.netns, NAME).into_owned();
            [route(&row.src, &row.dst, Some(row.dport)), netns, used(row), outlook(row)]
        })
        .collect();
    let heads = ["DESTINATION", "NETNS", "USED / CAPACITY", "OUTLOOK"];
    let width = |column: usize| {
        let longest = titles.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        longest.max(heads[column].len())
    };
    let (route, netns, used, outlook) = (width(0), width(1), width(2), width(3));
    let column = 2 + route + 2 + netns + 2 + BAR + 2 + 2 + used + 2 + outlook + 2;
    if column + OWNERS_WIDTH > paper.width() {
        return false;
    }
    let bar_width = BAR + 2;
    let head = format!(
        "  {:<route$}  {:<netns$}  {:<bar_width$}  {:<used$}  {:<outlook$}  OWNERS",
        heads[0], heads[1], "", heads[2], heads[3]
    );
    let head = paper.ink(Ink::Faint, &head);
    paper.line(&head);
    for (row, text) in rows.iter().zip(&titles) {
        let label = format!("  {:<route$}  {:<netns$}  ", text[0], text[1]);
        let numbers = format!("  {:<used$}  {:<outlook$}  ", text[2], text[3]);
        let bar = paper.ink(bar_ink(row), &bar(row, BAR));
        let label = format!("{label}[{bar}]{numbers}");
        paper.hanging(&label, column, Ink::Plain, &owners(&row.owners));
    }
    true
}

fn used(row: &PortsRow) -> String {
    let (blocked, capacity) = (grouped(row.blocking()), grouped(row.capacity));
    format!("{blocked} / {capacity}, {}", percent(row.utilization_ratio))
}

fn outlook(row: &PortsRow) -> String {
    match (row.eta_s, row.settles_at_ratio) {
        _ if row.utilization_ratio >= 1.0 => "none is left".to_owned(),
        (Some(eta), _) if eta < 1.0 => "running out now".to_owned(),
        (Some(eta), _) => format!("run out in {}", span(eta)),
        (None, Some(ratio)) => format!("settles at {}", percent(ratio)),
        (None, None) => "not at this rate".to_owned(),
    }
}

fn bar_ink(row: &PortsRow) -> Ink {
    fullness(row).map_or(Ink::Plain, ink)
}

fn time_wait(report: &Report, paper: &mut Paper) {
    paper.heading("Who leaves TIME_WAIT");
    if report.time_wait.is_empty() {
        paper.paragraph(2, "Nobody.");
        return;
    }
    let shown = &report.time_wait[..report.time_wait.len().min(ROWS)];
    let limit = if paper.width() < WIDE { SHORT_NAME } else { NAME };
    let service = longest(shown.iter().map(|row| &*row.service), "SERVICE", limit);
    let netns = longest(shown.iter().map(|row| &*row.netns), "NETNS", limit);
    let head = format!(
        "  {:<service$}  {:<netns$}  {:>9}  {:>8}  {:>11}  TO",
        "SERVICE", "NETNS", "NOW", "A SECOND", "IN ALL"
    );
    let head = paper.ink(Ink::Faint, &head);
    paper.line(&head);
    for row in shown {
        let now = row.sockets.map_or_else(|| "-".to_owned(), grouped);
        let label = format!(
            "  {:<service$}  {:<netns$}  {now:>9}  {:>8.1}  {:>11}  ",
            cut(&row.service, limit),
            cut(&row.netns, limit),
            row.entered_per_s,
            grouped(row.entered_total),
        );
        paper.hanging(&label, 4, Ink::Plain, &destination(row));
    }
    rest(report.time_wait.len(), paper);
}

fn destination(row: &TimeWaitRow) -> String {
    if row.dst.is_empty() { "-".to_owned() } else { route("", &row.dst, row.dport) }
}

fn longest<'a>(names: impl Iterator<Item = &'a str>, head: &str, limit: usize) -> usize {
    names.map(|name| cut(name, limit).chars().count()).max().unwrap_or(0).max(head.len())
}

fn sockets(report: &Report, paper: &mut Paper) {
    paper.heading("Sockets by state");
    let mut by_netns: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for row in &report.sockets {
        let sum = by_netns.entry(&row.netns).or_default().entry(&row.state).or_default();
        *sum = sum.saturating_add(row.sockets);
    }
    for row in &report.namespaces {
        if let (Some(count), false) = (row.time_wait, by_netns.contains_key(&*row.netns)) {
            by_netns.entry(&row.netns).or_default().insert(TcpState::TimeWait.name(), count);
        }
    }
    let netns = longest(by_netns.keys().copied(), "", NAME);
    for (name, states) in &by_netns {
        let mut states: Vec<_> = states.iter().filter(|(_, count)| **count > 0).collect();
        states.sort_by(|a, b| b.1.cmp(a.1));
        let words: Vec<String> = states
            .into_iter()
            .map(|(state, count)| format!("{} {}", state_word(state), grouped(*count)))
            .collect();
        let words = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
        paper.entry(&format!("  {:<netns$}  ", cut(name, NAME)), &words);
    }
    if by_netns.is_empty() {
        paper.paragraph(2, "Not known: no snapshot was taken.");
    }
    for row in &report.namespaces {
        if let Some(overflow) = row.overflow_total.filter(|count| *count > 0) {
            let netns = printable(&row.netns);
            let overflow = grouped(overflow);
            paper.paragraph(
                2,
                &format!("{overflow} sockets found the TIME_WAIT table of {netns} full."),
            );
        }
    }
}

fn state_word(name: &str) -> Cow<'_, str> {
    TcpState::from_name(name).map_or_else(|| printable(name), |state| upper(state).into())
}

fn failures(report: &Report, paper: &mut Paper) {
    paper.heading("connect() calls that found no free local port");
    if report.failures.is_empty() {
        paper.paragraph(2, "None.");
        return;
    }
    for row in report.failures.iter().take(ROWS) {
        let text = format!(
            "{} to {} in {}",
            printable(&row.service),
            route("", &row.dst, Some(row.dport)),
            printable(&row.netns)
        );
        paper.entry(&format!("  {:>9}  ", grouped(row.total)), &text);
    }
    rest(report.failures.len(), paper);
}

fn advice(report: &Report, paper: &mut Paper) {
    paper.heading("What to change");
    advice_text::write(&report.advice, paper);
}

fn notes(report: &Report, paper: &mut Paper) {
    let mut notes: Vec<Cow<'_, str>> = report.notes.iter().map(|note| printable(note)).collect();
    let lost = report.loss.ring.saturating_add(report.loss.subscriber);
    if lost > 0 {
        let text = format!(
            "{} events were lost to streams ({} by the ring, {} by slow readers); no total is \
             affected.",
            grouped(lost),
            grouped(report.loss.ring),
            grouped(report.loss.subscriber)
        );
        notes.push(text.into());
    }
    if !notes.is_empty() {
        paper.heading("To know");
        for note in notes {
            paper.entry("  - ", &note);
        }
    }
}

fn rest(rows: usize, paper: &mut Paper) {
    if rows > ROWS {
        paper.paragraph(2, &format!("... and {} more: --json has all.", rows - ROWS));
    }
}

/// Seconds from one RFC 3339 time to another.
fn between(since: &str, now: &str) -> Option<f64> {
    let (since, now) = (since.parse::<Timestamp>().ok()?, now.parse::<Timestamp>().ok()?);
    Some(now.duration_since(since).as_secs_f64().max(0.0))
}
