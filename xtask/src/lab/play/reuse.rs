//! Recipes in which a connection comes to the place of one that waits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::closing::{close_first, close_in_turn, close_second, record_ended, record_in_turn};
use super::opening::{RANGE_KEY, fail_to_connect};
use super::pair::{End, Pair};
use super::stage::Stage;
use crate::lab::error::{LabError, Result};
use crate::lab::recipe::ConnectBy;
use crate::lab::socket::{Ending, Substate};

const REUSE_KEY: &str = "ipv4/tcp_tw_reuse";
/// The first port of the range that is used up.
const FIRST_PORT: u64 = 40_000;
/// The most connections at a time: far fewer than a process may have files.
const MOST: u64 = 500;

/// Whether `connect()` takes time-wait ports over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    No,
}

/// Every port of a narrow range waits, then the client connects `connections` times more, with
/// `tcp_tw_reuse` as given.
pub(super) fn connect_again(
    stage: &mut Stage<'_>,
    connections: u64,
    tw_reuse: &str,
    taken: Taken,
) -> Result<()> {
    if connections > MOST {
        return Err(LabError::Unsuitable(format!(
            "--connections {connections}: at most {MOST} ports are taken over at a time"
        )));
    }
    // connect() searches an even number of ports, or one (`__inet_hash_connect()`).
    let ports = if connections == 1 { 1 } else { connections.next_multiple_of(2) };
    let range = format!("{FIRST_PORT} {}", FIRST_PORT + ports - 1);
    let usual_range = stage.lab.set_sysctl(RANGE_KEY, &range)?;
    let usual_reuse = stage.lab.set_sysctl(REUSE_KEY, tw_reuse)?;
    stage.lab.tell(&format!("tcp_tw_reuse is {tw_reuse}, ip_local_port_range {range}"));
    let done = exchange(stage, ports, connections, taken);
    // Whatever happened: the lab may go on to other recipes.
    stage.lab.set_sysctl(REUSE_KEY, &usual_reuse)?;
    stage.lab.set_sysctl(RANGE_KEY, &usual_range)?;
    done
}

fn exchange(stage: &mut Stage<'_>, ports: u64, connections: u64, taken: Taken) -> Result<()> {
    let listener = stage.listen(0, false)?;
    // All are open before the first is closed: none can take over another's port too early.
    let mut waiting: BTreeMap<SocketAddr, (Pair, Substate)> = BTreeMap::new();
    let mut pairs = Vec::new();
    for _ in 0..ports {
        pairs.push(stage.pair(listener, None)?);
    }
    for pair in pairs {
        let how = close_in_turn(stage, &pair, End::Client)?;
        waiting.insert(pair.client.local, (pair, how));
    }
    stage.checkpoint("every port waits")?;
    for (pair, _) in waiting.values() {
        let socket = pair.end(End::Client);
        stage.table(End::Client).await_reusable(socket.local, socket.remote)?;
    }
    stage.lab.tell("every port towards the server is in TIME_WAIT, for more than a second");
    if taken == Taken::No {
        fail_to_connect(stage, connections, ConnectBy::Blocking)?;
    } else {
        let mut again = Vec::new();
        for _ in 0..connections {
            let pair = stage.pair(listener, None)?;
            let missing = || LabError::Step {
                who: stage.client.name(),
                what: "take over a port".into(),
                why: format!("{} was in nobody's TIME_WAIT", pair.client.local),
            };
            let (first, how) = waiting.remove(&pair.client.local).ok_or_else(missing)?;
            record_ended(stage, &first, End::Client, how, Some(Ending::Reused));
            again.push(pair);
        }
        stage.checkpoint("ports have been taken over")?;
        for pair in again {
            let how = close_in_turn(stage, &pair, End::Client)?;
            record_in_turn(stage, &pair, End::Client, how);
        }
    }
    for (pair, how) in waiting.into_values() {
        record_in_turn(stage, &pair, End::Client, how);
    }
    stage.stop_listening(0, listener)
}

/// The server closes first and waits; the same client port connects again, and the listener takes
/// its SYN for a new incarnation (`TCP_TW_SYN` of `tcp_timewait_state_process()`,
/// net/ipv4/tcp_minisocks.c).
pub(super) fn new_incarnation(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        // A port that no other socket has, in TIME_WAIT or not: it could not be bound again else.
        let to = stage.server_address();
        let client = stage.connect_from(any_port(to), to)?;
        let port = client.local.port();
        stage.tell(&format!("{} connects from port {port} to {to}", stage.client.name()));
        let first = stage.accepted(client, listener, None)?;
        let how = close_first(stage, &first, End::Server)?;
        close_second(stage, &first, End::Server)?;
        stage.checkpoint("the server is in TIME_WAIT")?;
        let client = stage.connect_from(first.client.local, first.client.remote)?;
        stage.tell(&format!("{} connects from the same port again", stage.client.name()));
        let second = stage.accepted(client, listener, None)?;
        record_ended(stage, &first, End::Server, how, Some(Ending::Killed));
        stage.checkpoint("the new incarnation has ended TIME_WAIT")?;
        let how = close_in_turn(stage, &second, End::Server)?;
        record_in_turn(stage, &second, End::Server, how);
    }
    stage.stop_listening(0, listener)
}

/// Whichever port bind() finds, towards that address.
fn any_port(to: SocketAddr) -> SocketAddr {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(any, 0)
}
