//! Events as JSON lines, written without the formatting machinery, and read back.
//!
//! The daemon writes one line for each event and subscriber's format, at up to hundreds of
//! thousands of events a second, so the writer knows the one shape that it writes. Reading is
//! what `tcpmon tail` does with the stream when it shows columns; members that it does not know
//! are passed over, so that a newer daemon can be watched.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::BufMut;
use jiff::Timestamp;
use serde::Deserialize;
use tcpmon_common::TcpState;
use thiserror::Error;

use super::address;
use super::comm::Comm;
use super::event::{Event, Gap, Line, LossPlace, Role};
use super::time_wait::{Passage, Reason, Substate};

/// Length of `2026-11-22T08:00:00.`, the part of a timestamp that changes once a second.
const SECOND_LEN: usize = 20;

/// Writes events as JSON objects.
///
/// It remembers the text of the last second it wrote, so keep one for each stream.
#[derive(Clone, Debug, Default)]
pub struct JsonWriter {
    second: Option<u64>,
    second_text: [u8; SECOND_LEN],
}

impl JsonWriter {
    /// A writer that has not written yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `line` as one JSON object, without a line end.
    pub fn line(&mut self, line: &Line, out: &mut impl BufMut) {
        match line {
            Line::Event(event) => self.event(event, out),
            Line::Gap(gap) => gap_object(*gap, out),
        }
    }

    /// Appends `event` as one JSON object, without a line end.
    pub fn event(&mut self, event: &Event, out: &mut impl BufMut) {
        out.put_slice(b"{\"ts\":\"");
        self.timestamp(event.ts_ns, out);
        out.put_slice(b"\",\"netns\":");
        number(event.netns, out);
        out.put_slice(b",\"family\":\"");
        out.put_slice(event.family().name().as_bytes());
        out.put_slice(b"\",\"saddr\":\"");
        out.put_slice(address::Text::new(event.saddr).as_bytes());
        out.put_slice(b"\",\"sport\":");
        number(event.sport, out);
        out.put_slice(b",\"daddr\":\"");
        out.put_slice(address::Text::new(event.daddr).as_bytes());
        out.put_slice(b"\",\"dport\":");
        number(event.dport, out);
        out.put_slice(b",\"old\":\"");
        out.put_slice(event.old.name().as_bytes());
        out.put_slice(b"\",\"new\":\"");
        out.put_slice(event.new.name().as_bytes());
        out.put_slice(b"\",\"duration_us\":");
        match event.duration_us {
            Some(duration) => number(duration, out),
            None => out.put_slice(b"null"),
        }
        out.put_slice(match event.role {
            Some(Role::Active) => b",\"role\":\"active\",\"pid\":",
            Some(Role::Passive) => b",\"role\":\"passive\",\"pid\":",
            None => b",\"role\":null,\"pid\":",
        });
        match event.pid {
            Some(pid) => number(pid, out),
            None => out.put_slice(b"null"),
        }
        out.put_slice(b",\"comm\":");
        match &event.comm {
            Some(comm) => string(comm.as_bytes(), out),
            None => out.put_slice(b"null"),
        }
        out.put_slice(b",\"service\":");
        match &event.service {
            Some(service) => string(service.as_bytes(), out),
            None => out.put_slice(b"null"),
        }
        out.put_slice(b",\"cookie\":");
        number(event.cookie, out);
        out.put_slice(if event.port_exhausted {
            b",\"port_exhausted\":true"
        } else {
            b",\"port_exhausted\":false"
        });
        match event.passage {
            Some(Passage::Entered(substate)) => member(b"substate", substate.name(), out),
            Some(Passage::Left(reason)) => member(b"reason", reason.name(), out),
            None => {}
        }
        out.put_u8(b'}');
    }

    /// `2026-11-22T08:00:00.123456Z`: RFC 3339, UTC, whole microseconds.
    fn timestamp(&mut self, ts_ns: u64, out: &mut impl BufMut) {
        let second = ts_ns / 1_000_000_000;
        if self.second != Some(second) {
            self.second_text = second_text(second);
            self.second = Some(second);
        }
        out.put_slice(&self.second_text);
        let mut rest = ts_ns % 1_000_000_000 / 1_000;
        let mut text = *b"000000Z";
        for digit in text[..6].iter_mut().rev() {
            // A remainder below ten.
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        out.put_slice(&text);
    }
}

/// Appends `{"lost":N,"where":"ring"}`, without a line end.
pub fn gap_object(gap: Gap, out: &mut impl BufMut) {
    out.put_slice(b"{\"lost\":");
    number(gap.lost, out);
    out.put_slice(b",\"where\":\"");
    out.put_slice(gap.place.name().as_bytes());
    out.put_slice(b"\"}");
}

/// `,"NAME":"VALUE"`, both without anything to escape.
fn member(name: &[u8], value: &str, out: &mut impl BufMut) {
    out.put_slice(b",\"");
    out.put_slice(name);
    out.put_slice(b"\":\"");
    out.put_slice(value.as_bytes());
    out.put_u8(b'"');
}

fn second_text(second: u64) -> [u8; SECOND_LEN] {
    let mut text = *b"1970-01-01T00:00:00.";
    // The nanoseconds of a u64 end in the year 2554, well inside what jiff takes.
    let timestamp =
        i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    if let Some(timestamp) = timestamp {
        let written = timestamp.to_string();
        let len = written.len().min(SECOND_LEN - 1);
        text[..len].copy_from_slice(&written.as_bytes()[..len]);
    }
    text
}

fn number(value: impl itoa::Integer, out: &mut impl BufMut) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `bytes` as a JSON string; what is not UTF-8 becomes U+FFFD.
///
/// All control characters are escaped, not only those that JSON asks for: a line may be shown on
/// a terminal, and a process chooses its own name.
pub fn string(bytes: &[u8], out: &mut impl BufMut) {
    out.put_u8(b'"');
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.put_slice(bytes);
    } else {
        escaped(&String::from_utf8_lossy(bytes), out);
    }
    out.put_u8(b'"');
}

fn escaped(text: &str, out: &mut impl BufMut) {
    for character in text.chars() {
        match character {
            '"' => out.put_slice(b"\\\""),
            '\\' => out.put_slice(b"\\\\"),
            // Control characters end at U+009F: four digits are enough.
            control if control.is_control() => {
                out.put_slice(format!("\\u{:04x}", u32::from(control)).as_bytes());
            }
            other => out.put_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Why a line is neither an event nor a gap.
#[derive(Debug, Error)]
pub enum LineError {
    /// It is not JSON, or a member is of the wrong kind.
    #[error("the daemon sent a line that is not an event: {0}")]
    Json(#[from] serde_json::Error),
    /// A member is missing or has a value that this version does not know.
    #[error(
        "the daemon sent an event with {member} {value:?}, which this version does not know; \
         use the daemon's version of tcpmon"
    )]
    Member {
        /// Name of the member.
        member: &'static str,
        /// What it holds; empty where it is missing.
        value: String,
    },
}

/// Both kinds of line at once: which one it is shows by the members it has.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, default)]
    ts: Cow<'a, str>,
    #[serde(default)]
    netns: u32,
    #[serde(borrow, default)]
    saddr: Cow<'a, str>,
    #[serde(default)]
    sport: u16,
    #[serde(borrow, default)]
    daddr: Cow<'a, str>,
    #[serde(default)]
    dport: u16,
    #[serde(borrow, default)]
    old: Cow<'a, str>,
    #[serde(borrow, default)]
    new: Cow<'a, str>,
    duration_us: Option<u64>,
    role: Option<String>,
    pid: Option<u32>,
    comm: Option<String>,
    service: Option<String>,
    #[serde(default)]
    cookie: u64,
    #[serde(default)]
    port_exhausted: bool,
    substate: Option<String>,
    reason: Option<String>,
    lost: Option<u64>,
    #[serde(borrow, default, rename = "where")]
    place: Cow<'a, str>,
}

/// Reads a line that [`JsonWriter`] wrote, of this version or a later one.
///
/// # Errors
/// The line is not JSON, lacks a member, or has a value that is not known here.
pub fn parse_line(line: &[u8]) -> Result<Line, LineError> {
    let raw: Raw<'_> = serde_json::from_slice(line)?;
    if let Some(lost) = raw.lost {
        let place = known("where", &raw.place, LossPlace::from_name)?;
        return Ok(Line::Gap(Gap { lost, place }));
    }
    let address = |text: &str| text.parse::<IpAddr>().ok();
    Ok(Line::Event(Event {
        ts_ns: known("ts", &raw.ts, |text| {
            let timestamp: Timestamp = text.parse().ok()?;
            u64::try_from(timestamp.as_nanosecond()).ok()
        })?,
        cookie: raw.cookie,
        duration_us: raw.duration_us,
        service: raw.service.map(Into::into),
        saddr: known("saddr", &raw.saddr, address)?,
        daddr: known("daddr", &raw.daddr, address)?,
        comm: raw.comm.map(|comm| Comm::truncated_str(&comm)),
        pid: raw.pid,
        netns: raw.netns,
        sport: raw.sport,
        dport: raw.dport,
        old: known("old", &raw.old, TcpState::from_name)?,
        new: known("new", &raw.new, TcpState::from_name)?,
        role: raw.role.map(|role| known("role", &role, Role::from_name)).transpose()?,
        port_exhausted: raw.port_exhausted,
        passage: passage(raw.substate.as_deref(), raw.reason.as_deref())?,
    }))
}

fn passage(substate: Option<&str>, reason: Option<&str>) -> Result<Option<Passage>, LineError> {
    Ok(match (substate, reason) {
        (Some(name), _) => Some(Passage::Entered(known("substate", name, Substate::from_name)?)),
        (None, Some(name)) => Some(Passage::Left(known("reason", name, Reason::from_name)?)),
        (None, None) => None,
    })
}

fn known<T>(
    member: &'static str,
    value: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, LineError> {
    parse(value).ok_or_else(|| LineError::Member { member, value: value.to_owned() })
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
