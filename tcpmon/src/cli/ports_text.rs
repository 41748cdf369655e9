//! Ports and their destinations in words and bars: one home, so that `report` and `top` cannot
//! show the same thing by different marks.

use std::{borrow::Cow, iter::repeat_n};

use super::{columns::printable, figures::grouped};
use crate::{
    model::report::{OwnerPorts, PortsRow, Severity},
    pressure::thresholds::Thresholds,
};

/// Held by a socket that lives.
const LIVE: char = '#';
/// Held by a socket in TIME_WAIT.
const TIME_WAIT: char = '=';
/// Held by one in TIME_WAIT that connect() may take over.
const REUSABLE: char = '-';
/// Held by none.
const FREE: char = '.';

/// Owners named for a destination.
const OWNERS: usize = 4;
/// No name is cut to less.
const SHORTEST: usize = 6;
/// What stands for what does not fit.
const DOTS: &str = "..";
/// How the commands begin that advice may end with.
const COMMANDS: [&str; 2] = ["sysctl ", "ip "];
/// Names are cut there in tables.
pub(super) const NAME: usize = 32;

/// What the marks of [`bar`] mean, in one line.
pub(super) fn legend() -> String {
    format!(
        "{LIVE} live   {TIME_WAIT} TIME_WAIT   {REUSABLE} TIME_WAIT that connect() may take over   \
         {FREE} free"
    )
}

/// A bar of that many characters; whatever there is any of has one at least.
pub(super) fn bar(row: &PortsRow, width: usize) -> String {
    let mut text = String::with_capacity(width);
    for (count, mark) in
        [(row.live, LIVE), (row.time_wait, TIME_WAIT), (row.time_wait_reusable, REUSABLE)]
    {
        let share = u128::from(count) * width as u128 / u128::from(row.capacity.max(1));
        let share = usize::try_from(share).unwrap_or(width).max(usize::from(count > 0));
        text.extend(repeat_n(mark, share.min(width - text.len())));
    }
    // Rounding must not make room where there is none.
    let all = row.blocking().saturating_add(row.time_wait_reusable);
    if let (true, Some(last)) = (all >= row.capacity, text.chars().last()) {
        text.extend(repeat_n(last, width - text.len()));
    }
    text.extend(repeat_n(FREE, width - text.len()));
    text
}

/// How many ports each mark stands for.
pub(super) fn parts(row: &PortsRow) -> String {
    format!(
        "{LIVE} live {}   {TIME_WAIT} TIME_WAIT {}   {REUSABLE} to be taken over {}",
        grouped(row.live),
        grouped(row.time_wait),
        grouped(row.time_wait_reusable)
    )
}

/// How bad it is that so many ports are taken; `None` where it is not. By the thresholds of the
/// alerts, as they are unless the daemon was told others.
pub(super) fn fullness(row: &PortsRow) -> Option<Severity> {
    let Thresholds { ports_critical, ports_warning, .. } = Thresholds::DEFAULT;
    match row.utilization_ratio {
        ratio if ratio >= ports_critical.raise => Some(Severity::Critical),
        ratio if ratio >= ports_warning.raise => Some(Severity::Warning),
        _ => None,
    }
}

/// `10.0.0.2:5432`, `[2001:db8::1]:443`; `any` where there is no port.
pub(super) fn end(address: &str, port: Option<u16>) -> String {
    let address = printable(address);
    let port = port.map_or_else(|| "any".to_owned(), |port| port.to_string());
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// `10.0.0.1 -> 10.0.0.2:5432`.
pub(super) fn route(src: &str, dst: &str, dport: Option<u16>) -> String {
    let end = end(dst, dport);
    if src.is_empty() { end } else { format!("{} -> {end}", printable(src)) }
}

/// Who holds ports: the first few by name, the others by number.
pub(super) fn owners(owners: &[OwnerPorts]) -> String {
    if owners.is_empty() {
        return "owner unknown".to_owned();
    }
    let mut words: Vec<String> = owners
        .iter()
        .take(OWNERS)
        .map(|owner| format!("{}\u{a0}{}", cut(&owner.service, NAME), grouped(owner.ports)))
        .collect();
    let rest = &owners[owners.len().min(OWNERS)..];
    if !rest.is_empty() {
        let sum = rest.iter().fold(0, |sum: u64, owner| sum.saturating_add(owner.ports));
        words.push(format!("{}\u{a0}others\u{a0}{}", rest.len(), grouped(sum)));
    }
    words.join(", ")
}

/// As [`owners`], in that many characters: a number is whole, or it would be another one.
pub(super) fn owners_within(all: &[OwnerPorts], width: usize) -> String {
    let text = owners(all);
    let Some(first) = all.first().filter(|_| text.chars().count() > width) else { return text };
    let number = format!(" {}", grouped(first.ports));
    let more =
        if all.len() > 1 { format!("{number}, {} more", all.len() - 1) } else { String::new() };
    let behind = if more.is_empty() || more.len() + SHORTEST > width { number } else { more };
    let room = width.saturating_sub(behind.len()).max(SHORTEST);
    let name = printable(&first.service);
    if name.chars().count() <= room {
        return format!("{name}{behind}");
    }
    let kept: String = name.chars().take(room - DOTS.len()).collect();
    format!("{kept}{DOTS}{behind}")
}

/// Advice, with no line end within a command that stands at its end: it is to be copied.
pub(super) fn whole_commands(advice: &str) -> String {
    match advice.split_once(": ") {
        Some((what, command)) if COMMANDS.iter().any(|name| command.starts_with(name)) => {
            format!("{what}: {}", command.replace(' ', "\u{a0}"))
        }
        _ => advice.to_owned(),
    }
}

/// A name for a table: harmless, and no longer than that.
pub(super) fn cut(name: &str, limit: usize) -> Cow<'_, str> {
    match printable(name) {
        Cow::Borrowed(name) => shorten(name, limit),
        Cow::Owned(name) => Cow::Owned(shorten(&name, limit).into_owned()),
    }
}

/// `text`, with dots in place of what does not fit.
fn shorten(text: &str, width: usize) -> Cow<'_, str> {
    if text.chars().count() <= width {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().take(width.saturating_sub(3)).collect();
    Cow::Owned(kept + "...")
}

/// `text`, with dots in its middle in place of what does not fit: of an end, the port is behind.
pub(super) fn shorten_middle(text: &str, width: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= width || width <= DOTS.len() {
        return Cow::Borrowed(text);
    }
    let behind = (width - DOTS.len()) / 2;
    let before = width - DOTS.len() - behind;
    let head = text.chars().take(before);
    Cow::Owned(head.chain(DOTS.chars()).chain(text.chars().skip(length - behind)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(live: u64, time_wait: u64, time_wait_reusable: u64, capacity: u64) -> PortsRow {
        PortsRow { capacity, live, time_wait, time_wait_reusable, ..PortsRow::default() }
    }

    #[test]
    fn marks_are_those_of_the_legend() {
        assert_eq!(bar(&row(2, 3, 1, 10), 10), "##===-....");
        assert_eq!(
            legend(),
            "# live   = TIME_WAIT   - TIME_WAIT that connect() may take over   . free"
        );
    }

    #[test]
    fn a_bar_is_as_wide_as_it_is_said() {
        for (live, time_wait, reusable, capacity) in
            [(0, 0, 0, 0), (5, 5, 5, 10), (100, 0, 0, 10), (3, 3, 3, 10), (u64::MAX / 4, 1, 1, 1)]
        {
            for width in [0, 1, 2, 10] {
                assert_eq!(bar(&row(live, time_wait, reusable, capacity), width).len(), width);
            }
        }
    }

    #[test]
    fn owners_that_do_not_fit_keep_their_numbers() {
        let owner = |service: &str, ports| OwnerPorts { service: service.into(), ports };
        let all = [owner("worker.service", 27_900), owner("api", 332)];
        for (width, text) in [
            (40, "worker.service\u{a0}27,900, api\u{a0}332"),
            (30, "worker.service\u{a0}27,900, api\u{a0}332"),
            (29, "worker.service 27,900, 1 more"),
            (28, "worker.serv.. 27,900, 1 more"),
            (20, "worker.serv.. 27,900"),
            (13, "work.. 27,900"),
            (3, "work.. 27,900"),
        ] {
            assert_eq!(owners_within(&all, width), text, "{width}");
        }
        assert_eq!(owners_within(&all[1..], 6), "api 332");
        assert_eq!(owners_within(&[], 6), "owner unknown");
    }

    #[test]
    fn a_command_is_one_word() {
        for (advice, text) in [
            ("Widen: sysctl -w a=\"1 2\"", "Widen: sysctl\u{a0}-w\u{a0}a=\"1\u{a0}2\""),
            (
                "Keep connections open: pooling, keep-alive",
                "Keep connections open: pooling, keep-alive",
            ),
            ("Close", "Close"),
        ] {
            assert_eq!(whole_commands(advice), text);
        }
    }

    #[test]
    fn an_address_with_colons_is_kept_apart_from_its_port() {
        for (src, dst, dport, text) in [
            ("", "10.0.0.2", Some(80), "10.0.0.2:80"),
            ("10.0.0.1", "10.0.0.2", None, "10.0.0.1 -> 10.0.0.2:any"),
            ("2001:db8::1", "2001:db8::2", Some(443), "2001:db8::1 -> [2001:db8::2]:443"),
        ] {
            assert_eq!(route(src, dst, dport), text);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_in_its_middle() {
        let end = "[2001:db8:0:1234::2]:443";
        for (width, text) in
            [(24, end), (20, "[2001:db8..4::2]:443"), (12, "[2001..]:443"), (2, end)]
        {
            assert_eq!(shorten_middle(end, width), text);
        }
    }
}
