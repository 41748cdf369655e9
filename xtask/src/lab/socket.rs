//! One socket of a recipe, its whole life included.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tcpmon_common::TcpState;

use super::edge::Edge;

/// What a socket was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It called `connect()`.
    Active,
    /// A listener accepted it.
    Passive,
    /// It listened.
    Listener,
}

/// How a socket went into the time-wait table: the substate it had there at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Substate {
    /// Before the peer's FIN (what a `close()` that goes first nearly always does); promoted to `TIME_WAIT` when it came.
    FinWait2,
    /// After the peer's FIN.
    TimeWait,
}

/// How a socket left the time-wait table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its time was over.
    Expired,
    /// A `connect()` took its port over (`tcp_tw_reuse`; `TWRecycled` in /proc/net/netstat).
    Reused,
    /// Anything else: a reset, a new incarnation of the connection, `ss -K`, the end of its
    /// namespace.
    Killed,
}

/// A process of the lab.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process {
    /// As in the pid namespace of whoever runs the lab.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`), at most 15 bytes.
    pub comm: String,
}

/// One socket and its whole life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// What it was for.
    pub role: Role,
    /// `ipv4` or `ipv6`: the socket's own family, whatever its addresses are mapped from.
    pub family: String,
    /// Inode of its network namespace.
    pub netns: u64,
    /// Its own end. Port 0: it never had one (a `connect()` that found no free port).
    pub local: SocketAddr,
    /// The other end; `None` for a listener.
    pub remote: Option<SocketAddr>,
    /// The process that made it, or that made the listener it came from.
    pub owner: Process,
    /// Where another process than the owner accepted it: that one.
    pub accepted_by: Option<Process>,
    /// Its changes of state, in order, as the tracepoint shows them.
    pub transitions: Vec<Edge>,
    /// How it went into the time-wait table; `None`: it did not. When it did, it was the last
    /// transition that brought it there, and it is in substate `TIME_WAIT` when the recipe ends,
    /// unless it has left the table by then.
    pub time_wait: Option<Substate>,
    /// How it left the time-wait table; `None`: it is still there when the recipe ends, or never
    /// was. One whose namespace is removed leaves it soon after the recipe's end: the kernel
    /// clears namespaces away in the background (`cleanup_net()`, `net/core/net_namespace.c`).
    pub time_wait_end: Option<Ending>,
    /// The time-wait table was full (`tcp_max_tw_buckets`): its last transition is what
    /// `TCPTimeWaitOverflow` counts.
    pub time_wait_overflow: bool,
    /// Its `connect()` failed with `EADDRNOTAVAIL`.
    pub port_exhausted: bool,
}

impl Socket {
    /// Its changes of state as they really were, the time-wait table's part included: what tcpmon
    /// shows. The tracepoint's last edge `x>close` becomes `x>time_wait` where the socket went
    /// into the table, and its leaving the table is `time_wait>close`.
    pub fn shown(&self) -> Vec<Edge> {
        let mut shown = self.transitions.clone();
        if self.time_wait.is_some()
            && let Some(last) = shown.last_mut()
        {
            last.new = TcpState::TimeWait;
        }
        if self.time_wait_end.is_some() {
            shown.push(Edge { old: TcpState::TimeWait, new: TcpState::Close });
        }
        shown
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::lab::edge::{ACTIVE_OPEN, CLOSE_FIRST, FAILED_OPEN, edges};

    /// A socket of no importance with this life.
    pub(in crate::lab) fn socket(
        states: &[TcpState],
        time_wait: Option<Substate>,
        time_wait_end: Option<Ending>,
    ) -> Socket {
        Socket {
            role: Role::Active,
            family: "ipv4".into(),
            netns: 1,
            local: ([127, 0, 0, 1], 1).into(),
            remote: None,
            owner: Process { pid: 1, comm: "a".into() },
            accepted_by: None,
            transitions: edges(states),
            time_wait,
            time_wait_end,
            time_wait_overflow: false,
            port_exhausted: false,
        }
    }

    #[test]
    fn the_time_wait_tables_part_of_a_life_is_shown() {
        let first = [ACTIVE_OPEN, CLOSE_FIRST].concat();
        let shown = |states, entered, ended| -> Vec<String> {
            socket(states, entered, ended).shown()[2..].iter().map(Edge::to_string).collect()
        };
        let (entered, ended) = (Some(Substate::FinWait2), Some(Ending::Killed));
        let begun = ["established>fin_wait1", "fin_wait1>fin_wait2"];
        assert_eq!(shown(&first, None, None), [&begun[..], &["fin_wait2>close"]].concat());
        assert_eq!(shown(&first, entered, None), [&begun[..], &["fin_wait2>time_wait"]].concat());
        assert_eq!(
            shown(&first, entered, ended),
            [&begun[..], &["fin_wait2>time_wait", "time_wait>close"]].concat()
        );
        assert_eq!(shown(FAILED_OPEN, None, None), [""; 0]);
    }
}
