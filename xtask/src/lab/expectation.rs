//! What must be seen when a recipe has been carried out: plain data, for tests and for `--json`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tcpmon_common::TcpState;
use tcpmon_common::TcpState::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
};

use super::recipe::{Addresses, Recipe};

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

/// What a socket was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// A process of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// transition that brought it there, and it is in substate `TIME_WAIT` when the recipe ends.
    pub time_wait: Option<Substate>,
    /// Its `connect()` failed with `EADDRNOTAVAIL`.
    pub port_exhausted: bool,
}

/// A network namespace of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name under /run/netns.
    pub name: String,
    /// Its inode, as in `/proc/PID/ns/net`.
    pub inode: u64,
}

/// How fast a load ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The one process that made both ends of every connection.
    pub process: Process,
    /// The port it listened on, and connected to.
    pub port: u16,
    /// The addresses it connected to, in turn.
    pub destinations: Vec<IpAddr>,
    /// Connections made and closed.
    pub connections: u64,
    /// How long that took, in seconds.
    pub seconds: f64,
    /// The quotient of the two.
    pub connections_per_second: f64,
    /// Time-wait sockets in the namespace at the end (`tw` in /proc/PID/net/sockstat).
    pub time_wait: u64,
}

/// Everything that must have been seen of one recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// What was done.
    pub recipe: Recipe,
    /// With which addresses.
    pub addresses: Addresses,
    /// The namespaces: one, or the client's and the server's.
    pub netns: Vec<Namespace>,
    /// Every socket, listeners last; none for a load.
    pub sockets: Vec<Socket>,
    /// How often each `family,old,new` happened, all sockets together.
    pub totals: BTreeMap<String, u64>,
    /// Sockets that went into the time-wait table. A load that overflows `tcp_max_tw_buckets`
    /// cannot tell: `None`.
    pub time_wait_entered: Option<u64>,
    /// For a load: how fast.
    pub load: Option<Load>,
}

impl Expectation {
    /// From the sockets of a recipe, all of them told.
    pub(super) fn of_sockets(
        recipe: Recipe,
        addresses: Addresses,
        netns: Vec<Namespace>,
        sockets: Vec<Socket>,
    ) -> Self {
        let mut totals = BTreeMap::new();
        for socket in &sockets {
            count(&mut totals, &socket.family, &socket.transitions, 1);
        }
        let entered = sockets.iter().filter(|socket| socket.time_wait.is_some()).count();
        let time_wait_entered = u64::try_from(entered).ok();
        Self { recipe, addresses, netns, sockets, totals, time_wait_entered, load: None }
    }

    /// How many transitions there must have been in all.
    pub fn transitions(&self) -> u64 {
        self.totals.values().sum()
    }

    /// How many `connect()` calls failed for want of a local port.
    pub fn port_failures(&self) -> usize {
        self.sockets.iter().filter(|socket| socket.port_exhausted).count()
    }
}

/// Adds `times` times each of `edges` to `totals`.
pub(super) fn count(totals: &mut BTreeMap<String, u64>, family: &str, edges: &[Edge], times: u64) {
    for edge in edges {
        let key = format!("{family},{},{}", edge.old.name(), edge.new.name());
        *totals.entry(key).or_default() += times;
    }
}

/// States as their lower-case names.
mod state_name {
    use super::{Deserialize, Deserializer, Serialize, Serializer, TcpState};

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

    #[test]
    fn totals_count_every_edge_of_every_socket() {
        let socket = |transitions, time_wait| Socket {
            role: Role::Active,
            family: "ipv4".into(),
            netns: 1,
            local: ([127, 0, 0, 1], 1).into(),
            remote: None,
            owner: Process { pid: 1, comm: "a".into() },
            accepted_by: None,
            transitions: edges(transitions),
            time_wait,
            port_exhausted: false,
        };
        let first = [ACTIVE_OPEN, CLOSE_FIRST].concat();
        let told = Expectation::of_sockets(
            Recipe::ClientFirst,
            Addresses::Ipv4,
            Vec::new(),
            vec![socket(&first, Some(Substate::FinWait2)), socket(FAILED_OPEN, None)],
        );
        assert_eq!(told.totals["ipv4,close,syn_sent"], 2);
        assert_eq!(told.totals["ipv4,syn_sent,close"], 1);
        assert_eq!(told.transitions(), 7);
        assert_eq!(told.time_wait_entered, Some(1));
    }
}
