//! What leaves the daemon: metrics and HTTP.
//!
//! Nothing here knows the probes or the hub: what is shown comes in as plain values, or through
//! [`http::Backend`].

pub mod alertmanager;
pub mod families;
pub mod http;
pub(crate) mod labels;
pub mod levels;
pub mod metrics;
mod page;
pub mod pressure;
pub mod recent;
mod seats;
pub mod server;
pub mod time_wait;
pub mod top;
pub mod web;

/// How a stream's lines are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// `text/event-stream`, one JSON object an event.
    EventStream,
}

impl Format {
    /// What goes before and after each JSON object.
    #[must_use]
    pub const fn frame(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::JsonLines => (b"", b"\n"),
            Self::EventStream => (b"data: ", b"\n\n"),
        }
    }

    /// The media type of such a stream.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/jsonl; charset=utf-8",
            Self::EventStream => "text/event-stream; charset=utf-8",
        }
    }
}
