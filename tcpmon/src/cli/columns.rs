//! The human view of a stream: the columns of bcc's `tcpstates`, so that habits carry over.
//!
//! A live stream cannot know how wide its addresses will be. Address columns start as wide as
//! IPv4 needs and widen, in few steps and never back, when a longer address comes; the header is
//! then written again, so that what is on the screen is aligned with the header above it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tcpmon_common::TcpState;

use crate::model::address::Text;
use crate::model::event::{Event, Gap, Line, LossPlace};
use crate::model::time_wait::{Passage, Substate};

/// Widths of an address column: all IPv4; IPv4-mapped and short IPv6; all IPv6.
const ADDRESS_WIDTHS: [usize; 3] = [15, 25, 39];

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";

/// Whether to write colours: to a terminal that can show them, unless the user said no
/// (`NO_COLOR`, set to anything but nothing; no-color.org).
#[must_use]
pub fn colour_wanted(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty) && term != Some(OsStr::new("dumb"))
}

/// Writes events as aligned columns.
#[derive(Debug)]
pub struct Columns {
    time_zone: TimeZone,
    colour: bool,
    local_width: usize,
    remote_width: usize,
    /// The last second written, and its `HH:MM:SS`.
    second: Option<(u64, String)>,
}

impl Columns {
    /// A view with times in `time_zone`; `wide` when only IPv6 is to be shown, so that the columns
    /// need not grow.
    #[must_use]
    pub fn new(time_zone: TimeZone, colour: bool, wide: bool) -> Self {
        let width = ADDRESS_WIDTHS[if wide { 2 } else { 0 }];
        Self { time_zone, colour, local_width: width, remote_width: width, second: None }
    }

    /// Appends the header and a line end. Write it once at the start; [`Columns::line`] repeats it
    /// where a column has grown.
    pub fn header(&self, out: &mut String) {
        let (bold, reset) = if self.colour { (BOLD, RESET) } else { ("", "") };
        let (local, remote) = (self.local_width, self.remote_width);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{bold}{:<12} {:>7} {:<15} {:<local$} {:>5} {:<remote$} {:>5} {:<11} -> {:<11} {:>12}{reset}",
            "TIME", "PID", "COMM", "LADDR", "LPORT", "RADDR", "RPORT", "OLDSTATE", "NEWSTATE", "MS",
        );
    }

    /// Appends `line` and a line end.
    pub fn line(&mut self, line: &Line, out: &mut String) {
        match line {
            Line::Event(event) => self.event(event, out),
            Line::Gap(gap) => self.gap(*gap, out),
        }
    }

    fn event(&mut self, event: &Event, out: &mut String) {
        let (saddr, daddr) = (Text::new(event.saddr), Text::new(event.daddr));
        let (saddr, daddr) = (ascii(saddr.as_bytes()), ascii(daddr.as_bytes()));
        let local = fitting(self.local_width, saddr.len());
        let remote = fitting(self.remote_width, daddr.len());
        if (local, remote) != (self.local_width, self.remote_width) {
            (self.local_width, self.remote_width) = (local, remote);
            self.header(out);
        }
        let colour = self.colour;
        let comm = event.comm.as_ref().map_or(Cow::Borrowed("-"), |comm| {
            Cow::Owned(printable(&comm.to_string_lossy()).into_owned())
        });
        let millis = event.ts_ns / 1_000_000 % 1_000;
        let time = self.time(event.ts_ns / 1_000_000_000);
        let _ = write!(out, "{time}.{millis:03} {:>7} {comm:<15}", OrDash(event.pid));
        let _ = write!(out, " {saddr:<local$} {:>5}", OrDash(port(event.sport)));
        let _ = write!(out, " {daddr:<remote$} {:>5}", OrDash(port(event.dport)));
        let new = event.new;
        let (tint, reset) = match tint(new).filter(|_| colour) {
            Some(tint) => (tint, RESET),
            None => ("", ""),
        };
        let _ = write!(out, " {:<11} -> {tint}{:<11}{reset}", upper(event.old), upper(new));
        match event.duration_us {
            Some(us) => {
                let _ = write!(out, " {:>8}.{:03}", us / 1_000, us % 1_000);
            }
            None => {
                let _ = write!(out, " {:>12}", "-");
            }
        }
        if event.port_exhausted {
            let (red, reset) = if colour { (RED, RESET) } else { ("", "") };
            let _ = write!(out, " {red}PORTS EXHAUSTED{reset}");
        }
        match event.passage {
            Some(Passage::Entered(Substate::FinWait2)) => out.push_str(" as FIN_WAIT2"),
            Some(Passage::Left(reason)) => {
                out.push(' ');
                out.push_str(reason.name());
            }
            Some(Passage::Entered(Substate::TimeWait)) | None => {}
        }
        out.push('\n');
    }

    fn gap(&self, gap: Gap, out: &mut String) {
        let (red, reset) = if self.colour { (RED, RESET) } else { ("", "") };
        let events = if gap.lost == 1 { "event" } else { "events" };
        let place = match gap.place {
            LossPlace::Ring => "ring: the kernel's buffer was full",
            LossPlace::Subscriber => "subscriber: this reader is too slow",
        };
        let _ = writeln!(out, "{red}-- {} {events} lost ({place}) --{reset}", gap.lost);
    }

    /// `HH:MM:SS` of that second since the epoch, in the view's time zone.
    fn time(&mut self, second: u64) -> &str {
        if self.second.as_ref().is_none_or(|(known, _)| *known != second) {
            let timestamp = i64::try_from(second)
                .ok()
                .and_then(|second| Timestamp::from_second(second).ok())
                .unwrap_or_default();
            let time = self.time_zone.to_offset(timestamp).to_datetime(timestamp).time();
            let text = format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
            self.second = Some((second, text));
        }
        self.second.as_ref().map_or("", |(_, text)| text)
    }
}

/// The width, from `present` on, that `needed` characters fit into.
fn fitting(present: usize, needed: usize) -> usize {
    if needed <= present {
        return present;
    }
    ADDRESS_WIDTHS.into_iter().find(|&width| needed <= width).unwrap_or(needed)
}

/// The kernel's word for a state, without its prefix `TCP_`.
#[must_use]
pub const fn upper(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTABLISHED",
        TcpState::SynSent => "SYN_SENT",
        TcpState::SynRecv => "SYN_RECV",
        TcpState::FinWait1 => "FIN_WAIT1",
        TcpState::FinWait2 => "FIN_WAIT2",
        TcpState::TimeWait => "TIME_WAIT",
        TcpState::Close => "CLOSE",
        TcpState::CloseWait => "CLOSE_WAIT",
        TcpState::LastAck => "LAST_ACK",
        TcpState::Listen => "LISTEN",
        TcpState::Closing => "CLOSING",
        // Longer than the column; the state tracepoint never reports these two.
        TcpState::NewSynRecv => "NEW_SYN_RECV",
        TcpState::BoundInactive => "BOUND_INACTIVE",
    }
}

/// Colours for the states an eye looks for: what works, what holds ports, what leaks.
const fn tint(state: TcpState) -> Option<&'static str> {
    match state {
        TcpState::Established => Some("\x1b[32m"),
        TcpState::TimeWait => Some("\x1b[33m"),
        TcpState::CloseWait => Some("\x1b[35m"),
        TcpState::Close => Some("\x1b[2m"),
        _ => None,
    }
}

/// A socket without a port has none to show.
const fn port(port: u16) -> Option<u16> {
    if port == 0 { None } else { Some(port) }
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// `text` without what a terminal would obey or not show: control characters, and those that
/// change the direction of text or have no width, each become `?`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let unsafe_here = |character: char| {
        character.is_control()
            || matches!(character,
                '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if text.contains(unsafe_here) {
        Cow::Owned(text.replace(unsafe_here, "?"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A number, or `-` where there is none.
struct OrDash<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for OrDash<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(formatter),
            None => formatter.pad("-"),
        }
    }
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
