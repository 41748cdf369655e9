//! Holds a recipe's expectation against what the kernel itself reports, without tcpmon.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;

use tcpmon_common::TcpState;

use super::edge::Edge;
use super::error::{LabError, Result};
use super::expectation::{Expectation, count};
use super::place::Lab;
use super::recipe::Recipe;
use super::socket::{Role, Socket};
use super::tracefs::{Event, Instance};

/// Inode of the first pid namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h)`: there the
/// pids of the trace are ours.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Carries out a recipe and compares: every socket's transitions, ports and addresses, and who
/// called `connect()` and `listen()`. Needs tracefs, which is mounted for the time if nobody has.
pub fn perform_verified(
    lab: &mut Lab,
    recipe: Recipe,
    connections: Option<u64>,
) -> Result<Expectation> {
    let instance = Instance::record(&lab.next_ports())?;
    let expected = lab.perform(recipe, connections)?;
    let mut events = instance.events()?;
    if recipe.is_load() {
        events.retain(|event| belongs_to(&expected, event));
        compare_totals(&expected, &events)?;
    } else {
        events.retain(|event| concerns(&expected, event));
        compare_sockets(&expected, &events)?;
    }
    Ok(expected)
}

/// Another lab's client may have our port by chance; no other recipe has our addresses.
fn belongs_to(expected: &Expectation, event: &Event) -> bool {
    let (mut ports, mut addresses) = (Vec::new(), Vec::new());
    if let Some(load) = &expected.load {
        ports.push(load.port);
        addresses.clone_from(&load.destinations);
    }
    for service in &expected.services {
        ports.push(service.port);
        addresses.extend(service.time_wait.keys());
    }
    // A connection to the second address of loopback comes from the first.
    addresses.push(Ipv4Addr::LOCALHOST.into());
    let ours = |ip: &IpAddr| addresses.contains(ip) || ip.is_unspecified();
    ports.iter().any(|port| [event.sport, event.dport].contains(port))
        && ours(&event.source)
        && ours(&event.destination)
}

/// Another lab's socket may have one of our ports, but not our addresses too.
fn concerns(expected: &Expectation, event: &Event) -> bool {
    expected.sockets.iter().any(|socket| {
        let local = socket.local.ip();
        let remote = socket.remote.map(|remote| remote.ip());
        socket.family == event.family
            && (local == event.source && remote.is_none_or(|ip| ip == event.destination)
                || remote == Some(event.destination))
    })
}

fn compare_totals(expected: &Expectation, events: &[Event]) -> Result<()> {
    let mut totals = BTreeMap::new();
    for event in events {
        count(&mut totals, &event.family, &[event.edge], 1);
    }
    if totals == expected.totals {
        return Ok(());
    }
    Err(LabError::Disagrees(format!("expected {:?}, seen {totals:?}", expected.totals)))
}

/// The events of one socket.
#[derive(Debug)]
struct Chain<'a> {
    events: Vec<&'a Event>,
    sport: u16,
    dport: u16,
}

impl<'a> Chain<'a> {
    fn of(event: &'a Event) -> Self {
        Self { events: vec![event], sport: event.sport, dport: event.dport }
    }

    /// May `event` be this socket's next? A port is 0 before it is chosen, and up to Linux 6.12
    /// in the first event of an accepted socket.
    fn goes_on_with(&self, event: &Event) -> bool {
        let same = |known: u16, told: u16| known == told || known == 0 || told == 0;
        self.events.last().is_some_and(|last| last.edge.new == event.edge.old)
            && same(self.sport, event.sport)
            && same(self.dport, event.dport)
            && self.events[0].family == event.family
    }

    fn edges(&self) -> impl Iterator<Item = Edge> {
        self.events.iter().map(|event| event.edge)
    }

    fn is(&self, socket: &Socket) -> bool {
        let last = self.events.last();
        let remote = socket.remote.map_or(0, |remote| remote.port());
        self.sport == socket.local.port()
            && self.dport == remote
            && self.edges().eq(socket.transitions.iter().copied())
            && last.is_some_and(|last| {
                last.source == socket.local.ip()
                    && socket.remote.is_none_or(|remote| remote.ip() == last.destination)
            })
            && self.begun_by_owner(socket)
    }

    /// `connect()` and `listen()` run in the caller's process, so there the trace names the owner.
    fn begun_by_owner(&self, socket: &Socket) -> bool {
        let own_pids = std::fs::metadata("/proc/self/ns/pid")
            .is_ok_and(|namespace| namespace.ino() == FIRST_PID_NAMESPACE);
        !own_pids || socket.role == Role::Passive || self.events[0].pid == socket.owner.pid
    }
}

/// Sorts events into chains: the tracepoint's text names no socket, but recipes connect one
/// after the other, so the first chain that an event continues is its own.
fn chains(events: &[Event]) -> Vec<Chain<'_>> {
    let mut chains: Vec<Chain<'_>> = Vec::new();
    for event in events {
        let Edge { old, new } = event.edge;
        let begins = old == TcpState::Close || (old, new) == (TcpState::Listen, TcpState::SynRecv);
        let ended =
            |chain: &Chain<'_>| chain.edges().last().is_some_and(|e| e.new == TcpState::Close);
        match chains.iter_mut().find(|chain| !begins && !ended(chain) && chain.goes_on_with(event))
        {
            Some(chain) => {
                chain.sport = chain.sport.max(event.sport);
                chain.dport = chain.dport.max(event.dport);
                chain.events.push(event);
            }
            None => chains.push(Chain::of(event)),
        }
    }
    chains
}

fn compare_sockets(expected: &Expectation, events: &[Event]) -> Result<()> {
    let mut seen = chains(events);
    let mut missing = Vec::new();
    for socket in &expected.sockets {
        match seen.iter().position(|chain| chain.is(socket)) {
            Some(place) => drop(seen.swap_remove(place)),
            None => missing.push(socket),
        }
    }
    if missing.is_empty() && seen.is_empty() {
        return Ok(());
    }
    let mut told = String::new();
    for socket in missing {
        let edges: Vec<String> = socket.transitions.iter().map(Edge::to_string).collect();
        let _infallible = write!(
            told,
            "expected {} -> {:?} of {} (pid {}): {}; ",
            socket.local,
            socket.remote,
            socket.owner.comm,
            socket.owner.pid,
            edges.join(" ")
        );
    }
    for chain in seen {
        let edges: Vec<String> = chain.edges().map(|edge| edge.to_string()).collect();
        let last = chain.events[chain.events.len() - 1];
        let _infallible = write!(
            told,
            "seen {}:{} -> {}:{} begun by pid {}: {}; ",
            last.source,
            chain.sport,
            last.destination,
            chain.dport,
            chain.events[0].pid,
            edges.join(" ")
        );
    }
    Err(LabError::Disagrees(told.trim_end_matches("; ").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::edge::{FAILED_OPEN, LISTENER, edges};
    use crate::lab::recipe::Addresses;
    use crate::lab::socket::Process;

    fn event(edge: Edge, sport: u16, dport: u16) -> Event {
        Event {
            pid: 1,
            family: "ipv4".into(),
            edge,
            source: [127, 0, 0, 1].into(),
            sport,
            destination: [127, 0, 0, 1].into(),
            dport,
        }
    }

    fn socket(role: Role, states: &[TcpState], sport: u16, dport: u16) -> Socket {
        Socket {
            role,
            family: "ipv4".into(),
            netns: 1,
            local: ([127, 0, 0, 1], sport).into(),
            remote: (dport > 0).then(|| ([127, 0, 0, 1], dport).into()),
            owner: Process { pid: 1, comm: "a".into() },
            accepted_by: None,
            transitions: edges(states),
            time_wait: None,
            time_wait_end: None,
            time_wait_overflow: false,
            port_exhausted: sport == 0,
        }
    }

    fn told(sockets: Vec<Socket>) -> Expectation {
        Expectation::of_sockets(Recipe::Refused, Addresses::Ipv4, Vec::new(), sockets)
    }

    #[test]
    fn interleaved_sockets_are_told_apart_and_anything_odd_is_noticed() {
        let [opened, shut] = edges(LISTENER)[..] else { panic!("two edges") };
        let [sent, failed] = edges(FAILED_OPEN)[..] else { panic!("two edges") };
        let events = vec![
            event(opened, 80, 0),
            event(sent, 0, 80),
            event(failed, 4000, 80),
            event(sent, 0, 80),
            event(failed, 0, 80),
            event(shut, 80, 0),
        ];
        let sockets = vec![
            socket(Role::Active, FAILED_OPEN, 4000, 80),
            socket(Role::Active, FAILED_OPEN, 0, 80),
            socket(Role::Listener, LISTENER, 80, 0),
        ];
        assert!(compare_sockets(&told(sockets.clone()), &events).is_ok());
        // A socket too few or too many, a wrong port, a missing event, the wrong process.
        assert!(compare_sockets(&told(sockets[1..].to_vec()), &events).is_err());
        let mut more = sockets.clone();
        more.push(sockets[0].clone());
        assert!(compare_sockets(&told(more), &events).is_err());
        let mut other = sockets.clone();
        other[0].local.set_port(4001);
        assert!(compare_sockets(&told(other), &events).is_err());
        assert!(compare_sockets(&told(sockets.clone()), &events[1..]).is_err());
        assert!(compare_sockets(&told(sockets), &events[..5]).is_err());
    }

    #[test]
    fn totals_must_be_equal_to_the_unit() {
        let expected = told(vec![socket(Role::Listener, LISTENER, 80, 0)]);
        let [opened, shut] = edges(LISTENER)[..] else { panic!("two edges") };
        let events = [event(opened, 80, 0), event(shut, 80, 0)];
        assert!(compare_totals(&expected, &events).is_ok());
        assert!(compare_totals(&expected, &events[..1]).is_err());
    }
}
