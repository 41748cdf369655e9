//! A connection as a recipe sees it: two ends, and how each of them came and went.

use tcpmon_common::TcpState;

use crate::lab::puppet::Connection;
use crate::lab::socket::{Ending, Substate};

/// One of the two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

impl End {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A connection, seen from both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) client: Connection,
    pub(super) server: Connection,
    /// Which server process.
    pub(super) at: usize,
    /// Which of its forked workers, if any.
    pub(super) worker: Option<usize>,
}

impl Pair {
    pub(super) fn of(client: Connection, server: Connection) -> Self {
        Self { client, server, at: 0, worker: None }
    }

    pub(super) fn end(&self, end: End) -> Connection {
        match end {
            End::Client => self.client,
            End::Server => self.server,
        }
    }
}

/// How one end of a connection came and went.
pub(super) struct Life<'a> {
    pub(super) open: &'a [TcpState],
    pub(super) close: &'a [TcpState],
    pub(super) time_wait: Option<Substate>,
    /// How it left the time-wait table, if it did.
    pub(super) end: Option<Ending>,
    /// It found that table full.
    pub(super) overflow: bool,
}

impl<'a> Life<'a> {
    pub(super) fn new(open: &'a [TcpState], close: &'a [TcpState]) -> Self {
        Self { open, close, time_wait: None, end: None, overflow: false }
    }

    pub(super) fn then_time_wait(self, substate: Substate) -> Self {
        Self { time_wait: Some(substate), ..self }
    }

    pub(super) fn ended(self, how: Ending) -> Self {
        Self { end: Some(how), ..self }
    }
}
