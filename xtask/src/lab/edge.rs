//! Ways through the states of TCP, as the kernel's tracepoint reports them.

use std::fmt;

use serde::{Deserialize, Serialize};
use tcpmon_common::TcpState;
use tcpmon_common::TcpState::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
};

/// Active open (RFC 9293, 3.5): the side that calls `connect()`.
pub(super) const ACTIVE_OPEN: &[TcpState] = &[Close, SynSent, Established];
/// Passive open. The child socket is born in the listener's state
/// (`inet_csk_clone_lock()`, `net/ipv4/inet_connection_sock.c`) and goes from there.
pub(super) const PASSIVE_OPEN: &[TcpState] = &[Listen, SynRecv, Established];
/// Simultaneous open (RFC 9293, figure 7): both sides call `connect()`, the SYNs cross.
pub(super) const CROSSED_OPEN: &[TcpState] = &[Close, SynSent, SynRecv, Established];
/// The side that closes first. The kernel closes the full socket when it puts a time-wait socket
/// in its place (`tcp_time_wait()`, `net/ipv4/tcp_minisocks.c`), hence no `TIME_WAIT` here.
pub(super) const CLOSE_FIRST: &[TcpState] = &[FinWait1, FinWait2, Close];
/// The side whose peer closes first.
pub(super) const CLOSE_SECOND: &[TcpState] = &[CloseWait, LastAck, Close];
/// Both sides close, the FINs cross (RFC 9293, figure 13).
pub(super) const CROSSED_CLOSE: &[TcpState] = &[FinWait1, Closing, Close];
/// A reset, sent or received, in ESTABLISHED.
pub(super) const RESET: &[TcpState] = &[Close];
/// A `connect()` that fails, for want of a listener or of a local port.
pub(super) const FAILED_OPEN: &[TcpState] = &[Close, SynSent, Close];
/// A listening socket.
pub(super) const LISTENER: &[TcpState] = &[Close, Listen, Close];

/// One change of state, as the tracepoint `sock:inet_sock_set_state` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// The state that was left.
    #[serde(with = "state_name")]
    pub old: TcpState,
    /// The state that was entered.
    #[serde(with = "state_name")]
    pub new: TcpState,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{}", self.old.name(), self.new.name())
    }
}

/// The edges of a way through states.
pub fn edges(states: &[TcpState]) -> Vec<Edge> {
    states.windows(2).map(|pair| Edge { old: pair[0], new: pair[1] }).collect()
}

/// States as their lower-case names.
mod state_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tcpmon_common::TcpState;

    // serde calls it with a reference.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
    pub(super) fn serialize<S: Serializer>(state: &TcpState, to: S) -> Result<S::Ok, S::Error> {
        state.name().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TcpState, D::Error> {
        let name = String::deserialize(from)?;
        TcpState::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("no TCP state is called {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_join_the_states() {
        let told: Vec<String> =
            edges(&[ACTIVE_OPEN, CLOSE_FIRST].concat()).iter().map(Edge::to_string).collect();
        assert_eq!(
            told,
            [
                "close>syn_sent",
                "syn_sent>established",
                "established>fin_wait1",
                "fin_wait1>fin_wait2",
                "fin_wait2>close"
            ]
        );
    }

    #[test]
    fn an_edge_is_written_and_read_by_the_names_of_its_states() {
        let edge = Edge { old: Listen, new: SynRecv };
        let json = serde_json::to_string(&edge).expect("serializable");
        assert_eq!(json, r#"{"old":"listen","new":"syn_recv"}"#);
        assert_eq!(serde_json::from_str::<Edge>(&json).expect("readable"), edge);
        assert!(serde_json::from_str::<Edge>(r#"{"old":"listen","new":"x"}"#).is_err());
    }
}
