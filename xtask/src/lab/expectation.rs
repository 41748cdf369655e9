//! What must be seen when a recipe has been carried out: plain data, for tests and for `--json`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tcpmon_common::TcpState;
use tcpmon_common::TcpState::{Close, FinWait2, TimeWait};

use super::edge::Edge;
use super::recipe::{Addresses, Recipe};
use super::socket::{Ending, Process, Role, Socket};

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

/// What one process of a load has left in the time-wait table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Whose the sockets are.
    pub process: Process,
    /// It had exited when the recipe ended.
    pub exited: bool,
    /// Where.
    pub netns: Namespace,
    /// Which side it was of the connections, and closed first.
    pub role: Role,
    /// The server's port: the remote port of an active side, the local one of a passive side.
    pub port: u16,
    /// Sockets in the time-wait table by the other end's address.
    pub time_wait: BTreeMap<IpAddr, u64>,
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
    /// How often each `family,old,new` happened, all sockets together, as the tracepoint shows it.
    pub totals: BTreeMap<String, u64>,
    /// Sockets that went into the time-wait table.
    pub time_wait_entered: u64,
    /// Sockets that left it before the recipe ended. A load knows no socket, and tells how many
    /// left the table of its namespace, earlier recipes' included: they have expired, all of them.
    pub time_wait_exited: BTreeMap<Ending, u64>,
    /// Sockets that found it full.
    pub time_wait_overflowed: u64,
    /// For a load by one process: how fast.
    pub load: Option<Load>,
    /// For a load by several: what each left.
    pub services: Vec<Service>,
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
        let count_of = |wanted: &dyn Fn(&Socket) -> bool| {
            let wanted = sockets.iter().filter(|socket| wanted(socket));
            u64::try_from(wanted.count()).unwrap_or(u64::MAX)
        };
        let mut time_wait_exited = BTreeMap::new();
        for ending in sockets.iter().filter_map(|socket| socket.time_wait_end) {
            *time_wait_exited.entry(ending).or_default() += 1;
        }
        Self {
            recipe,
            addresses,
            netns,
            time_wait_entered: count_of(&|socket| socket.time_wait.is_some()),
            time_wait_exited,
            time_wait_overflowed: count_of(&|socket| socket.time_wait_overflow),
            sockets,
            totals,
            load: None,
            services: Vec::new(),
        }
    }

    /// How many transitions the tracepoint must have shown in all.
    pub fn transitions(&self) -> u64 {
        self.totals.values().sum()
    }

    /// How often each `family,old,new` happened, the time-wait table's part of the lives included
    /// ([`Socket::shown`]): what tcpmon shows.
    pub fn shown_totals(&self) -> BTreeMap<String, u64> {
        let mut shown = BTreeMap::new();
        if self.sockets.is_empty() {
            shown.clone_from(&self.totals);
            self.show_load(&mut shown);
        }
        for socket in &self.sockets {
            count(&mut shown, &socket.family, &socket.shown(), 1);
        }
        shown
    }

    /// How many transitions tcpmon must show in all.
    pub fn shown_transitions(&self) -> u64 {
        self.shown_totals().values().sum()
    }

    /// A load's sockets go to the time-wait table from `FIN_WAIT2`, all of them.
    fn show_load(&self, shown: &mut BTreeMap<String, u64>) {
        let family = self.addresses.family();
        let key = |old: TcpState, new: TcpState| format!("{family},{},{}", old.name(), new.name());
        let exited = self.time_wait_exited.values().sum();
        let closed = shown.remove(&key(FinWait2, Close)).unwrap_or(0);
        let more = [
            (key(FinWait2, TimeWait), self.time_wait_entered),
            (key(FinWait2, Close), closed.saturating_sub(self.time_wait_entered)),
            (key(TimeWait, Close), exited),
        ];
        shown.extend(more.into_iter().filter(|(_, count)| *count > 0));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::edge::{ACTIVE_OPEN, CLOSE_FIRST, FAILED_OPEN};
    use crate::lab::socket::Substate;
    use crate::lab::socket::tests::socket;

    #[test]
    fn totals_count_every_edge_of_every_socket() {
        let first = [ACTIVE_OPEN, CLOSE_FIRST].concat();
        let told = Expectation::of_sockets(
            Recipe::ClientFirst,
            Addresses::Ipv4,
            Vec::new(),
            vec![
                socket(&first, Some(Substate::FinWait2), Some(Ending::Reused)),
                socket(FAILED_OPEN, None, None),
            ],
        );
        assert_eq!(told.totals["ipv4,close,syn_sent"], 2);
        assert_eq!(told.totals["ipv4,syn_sent,close"], 1);
        assert_eq!(told.totals["ipv4,fin_wait2,close"], 1);
        assert_eq!(told.transitions(), 7);
        assert_eq!(told.time_wait_entered, 1);
        assert_eq!(told.time_wait_exited, BTreeMap::from([(Ending::Reused, 1)]));

        let shown = told.shown_totals();
        assert_eq!(shown["ipv4,fin_wait2,time_wait"], 1);
        assert_eq!(shown["ipv4,time_wait,close"], 1);
        assert_eq!(shown.get("ipv4,fin_wait2,close"), None);
        assert_eq!(told.shown_transitions(), 8);
    }

    #[test]
    fn a_load_shows_what_entered_what_did_not_and_what_left() {
        let first = [ACTIVE_OPEN, CLOSE_FIRST].concat();
        let one = vec![socket(&first, None, None)];
        let mut told = Expectation::of_sockets(Recipe::Churn, Addresses::Ipv6, Vec::new(), one);
        told.sockets.clear();
        told.totals = BTreeMap::from([("ipv6,fin_wait2,close".to_owned(), 10)]);
        told.time_wait_entered = 7;
        told.time_wait_exited = BTreeMap::from([(Ending::Expired, 2)]);
        let expected = [("fin_wait2,close", 3), ("fin_wait2,time_wait", 7), ("time_wait,close", 2)];
        let expected = expected.map(|(edge, count)| (format!("ipv6,{edge}"), count));
        assert_eq!(told.shown_totals(), BTreeMap::from(expected));
    }
}
