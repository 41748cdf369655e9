//! The lines of a stream, as a script reads them.

use std::net::IpAddr;

use serde::Deserialize;

/// One transition, by the names that users rely on.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) ts: String,
    pub(crate) netns: u64,
    pub(crate) family: String,
    pub(crate) saddr: IpAddr,
    pub(crate) sport: u16,
    pub(crate) daddr: IpAddr,
    pub(crate) dport: u16,
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) duration_us: Option<u64>,
    pub(crate) role: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) comm: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) cookie: u64,
    pub(crate) port_exhausted: bool,
    /// On the way into `time_wait`: as what.
    pub(crate) substate: Option<String>,
    /// On the way out of it: why.
    pub(crate) reason: Option<String>,
}

/// A line of a stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Event(Box<Event>),
    Gap {
        lost: u64,
        #[serde(rename = "where")]
        place: String,
    },
}

impl Event {
    /// `syn_sent>established`.
    pub(crate) fn edge(&self) -> String {
        format!("{}>{}", self.old, self.new)
    }
}

/// Reads a line of a stream.
pub(crate) fn parse(line: &str) -> Line {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The event in a line that must not be a gap.
pub(crate) fn event(line: &str) -> Event {
    match parse(line) {
        Line::Event(event) => *event,
        Line::Gap { .. } => panic!("a gap: {line}"),
    }
}
