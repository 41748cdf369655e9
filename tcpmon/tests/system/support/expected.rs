//! What the lab says must be seen, against what was seen.

use std::collections::BTreeMap;

use xtask::lab::{Ending, Expectation, Process, Role, Socket, Substate};

use super::event::Event;

/// Compares the events of a recipe, all of them, with what the lab did.
pub(crate) fn compare(expected: &Expectation, seen: &[Event]) {
    let recipe = format!("{} {:?}", expected.recipe.name(), expected.addresses);
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for event in seen {
        let key = format!("{},{},{}", event.family, event.old, event.new);
        *totals.entry(key).or_default() += 1;
    }
    assert_eq!(totals, expected.shown_totals(), "{recipe}");
    let lives = lives(seen);
    for life in &lives {
        check_life(life, &recipe);
    }
    for service in &expected.services {
        let (pid, port) = (Some(service.process.pid), service.port);
        let of = |event: &&Event| event.pid == pid && [event.sport, event.dport].contains(&port);
        assert!(seen.iter().any(|event| of(&event)), "{recipe}: nothing of {service:?}");
    }
    if let Some(load) = &expected.load {
        for event in seen {
            assert_eq!(event.pid, Some(load.process.pid), "{recipe}: {event:?}");
            assert_eq!(event.comm.as_deref(), Some("lab-load"), "{recipe}: {event:?}");
            assert!([event.sport, event.dport].contains(&load.port), "{recipe}: {event:?}");
        }
        for life in &lives {
            let last = life[life.len() - 1];
            let listener = last.daddr.is_unspecified();
            assert!(last.sport != 0 && (listener || last.dport != 0), "{recipe}: {life:#?}");
        }
    }
    if expected.recipe.is_load() {
        return;
    }
    let mut missing: Vec<&Socket> = expected.sockets.iter().collect();
    for life in &lives {
        let place = missing.iter().position(|socket| is(life, socket));
        let place = place.unwrap_or_else(|| panic!("{recipe}: {life:#?} is none of {missing:#?}"));
        missing.swap_remove(place);
    }
    assert!(missing.is_empty(), "{recipe}: not seen: {missing:#?}");
}

/// The events of each socket.
pub(crate) fn lives(seen: &[Event]) -> Vec<Vec<&Event>> {
    let mut lives: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for event in seen {
        assert_ne!(event.cookie, 0, "{event:?}");
        lives.entry(event.cookie).or_default().push(event);
    }
    lives.into_values().collect()
}

/// What holds of every life that was seen from its beginning.
fn check_life(life: &[&Event], recipe: &str) {
    for (at, event) in life.iter().enumerate() {
        let told = event.duration_us.is_some();
        assert_eq!(told, at > 0, "{recipe}: time spent in the old state: {life:#?}");
        let last = life[life.len() - 1];
        assert!(event.sport == last.sport || is_portless(life, at), "{recipe}: {life:#?}");
        assert_eq!((event.pid, &event.role), (last.pid, &last.role), "{recipe}: {life:#?}");
        assert_eq!(event.service, expected_service(event), "{recipe}: {event:?}");
        let told = (event.substate.is_some(), event.reason.is_some());
        let wanted = (event.new == "time_wait", event.old == "time_wait");
        assert_eq!(told, wanted, "{recipe}: {event:?}");
    }
    for pair in life.windows(2) {
        assert!(pair[0].ts <= pair[1].ts && pair[0].new == pair[1].old, "{recipe}: {life:#?}");
    }
}

/// The kernel tells `SYN_SENT` before it has chosen the port. The daemon holds that line back for
/// the next one, which has the port, but not for longer than 30 ms: on a machine that is so busy
/// that the handshake takes longer, the line may be without.
fn is_portless(life: &[&Event], at: usize) -> bool {
    let held_for = life.get(1).and_then(|next| next.duration_us);
    at == 0 && life[0].new == "syn_sent" && life[0].sport == 0 && held_for > Some(25_000)
}

/// Where the tests run in no unit and no container the lab's processes are known by their name.
/// Otherwise the tests in `owners` tell.
fn expected_service(event: &Event) -> Option<String> {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let hidden = |part: &str| {
        [".service", ".scope", ".slice"].iter().any(|end| part.ends_with(end)) || part.len() >= 64
    };
    if cgroups.split(['/', '\n']).any(hidden) { event.service.clone() } else { event.comm.clone() }
}

/// Whether these are the events of that socket: states, both ends, family, namespace, owner.
fn is(life: &[&Event], socket: &Socket) -> bool {
    let role = match socket.role {
        Role::Active => "active",
        Role::Passive | Role::Listener => "passive",
    };
    let edges = life.iter().map(|event| event.edge());
    let last = life.len() - 1;
    let told = |name: fn(&Event) -> &Option<String>| life.iter().find_map(|e| name(e).as_deref());
    edges.eq(socket.shown().iter().map(ToString::to_string))
        && told(|event| &event.substate) == socket.time_wait.map(substate)
        && told(|event| &event.reason) == socket.time_wait_end.map(reason)
        && life.iter().enumerate().all(|(at, event)| {
            let remote = match socket.remote {
                Some(remote) => (event.daddr, event.dport) == (remote.ip(), remote.port()),
                None => event.daddr.is_unspecified() && event.dport == 0,
            };
            let port = event.sport == socket.local.port() || is_portless(life, at);
            (remote && port && event.saddr == socket.local.ip())
                && event.family == socket.family
                && event.netns == socket.netns
                && event.role.as_deref() == Some(role)
                && event.pid == Some(socket.owner.pid)
                && event.comm.as_deref() == Some(socket.owner.comm.as_str())
                && event.port_exhausted == (socket.port_exhausted && at == last)
        })
}

/// The service of a process of the lab: that of the tests themselves, or else its name.
pub(crate) fn service_of(process: &Process) -> String {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let unit = paths.find_map(tcpmon::model::service::service_name);
    unit.unwrap_or_else(|| process.comm.clone())
}

/// As `tail --json` writes it.
pub(crate) fn substate(substate: Substate) -> &'static str {
    match substate {
        Substate::FinWait2 => "fin_wait2",
        Substate::TimeWait => "time_wait",
    }
}

/// As `tail --json` and the metrics write it.
pub(crate) fn reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Expired => "expired",
        Ending::Reused => "reused",
        Ending::Killed => "killed",
    }
}
