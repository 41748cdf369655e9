//! Recipes that differ in how connections begin, or in who accepts them.

use std::net::SocketAddr;

use super::closing::{close_in_turn, record_in_turn, wire};
use super::pair::{End, Life, Pair};
use super::stage::Stage;
use crate::lab::edge::{CLOSE_FIRST, CLOSE_SECOND, CROSSED_OPEN, FAILED_OPEN};
use crate::lab::error::{LabError, Result};
use crate::lab::protocol::Command;
use crate::lab::puppet::{Connection, Outcome, Puppet, STEP};
use crate::lab::recipe::ConnectBy;
use crate::lab::socket::Role;
use crate::lab::wire::SYN;

/// Servers and workers of the recipes that have several.
const SERVERS: usize = 3;

/// The range of local ports that is used up, and how many it has.
const NARROW_RANGE: (&str, u64) = ("40000 40009", 10);
pub(super) const RANGE_KEY: &str = "ipv4/ip_local_port_range";

/// How long so many failing connects may take: each searches the whole range.
const PER_FAILURE: std::time::Duration = std::time::Duration::from_millis(5);

/// Both ends connect to each other while the wire holds their SYNs, which then cross.
pub(super) fn at_once(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    if connections > 1 {
        return Err(LabError::Unsuitable(
            "simultaneous-open connects fixed ports, which wait a minute afterwards: --connections 1 only".into(),
        ));
    }
    let [here, there] = stage.ports;
    let from = SocketAddr::new(stage.lab.wire_address(0), here);
    let to = SocketAddr::new(stage.lab.wire_address(1), there);
    wire(stage)?.hold();
    let client = begin(&mut stage.client, from, to)?;
    stage.tell(&format!("{} sends a SYN from {from} to {to}", stage.client.name()));
    let server = begin(&mut stage.servers[0], to, from)?;
    stage.tell(&format!("{} sends a SYN from {to} to {from}", stage.servers[0].name()));
    wire(stage)?.await_held(SYN, STEP)?;
    wire(stage)?.release()?;
    let pair = Pair::of(client, server);
    for end in [End::Client, End::Server] {
        stage.act(&pair, end, |socket| Command::FinishConnect { socket })?;
    }
    stage.tell("the SYNs cross: both ends went through SYN_RECV to ESTABLISHED");
    let how = close_in_turn(stage, &pair, End::Client)?;
    let first = Life::new(CROSSED_OPEN, CLOSE_FIRST).then_time_wait(how);
    stage.record_end(&pair, End::Client, Role::Active, &first);
    stage.record_end(&pair, End::Server, Role::Active, &Life::new(CROSSED_OPEN, CLOSE_SECOND));
    Ok(())
}

pub(super) fn begin(puppet: &mut Puppet, from: SocketAddr, to: SocketAddr) -> Result<Connection> {
    match puppet.connect(&Command::BeginConnect { from, to })? {
        Outcome::Connected(connection) => Ok(connection),
        Outcome::Failed { errno, .. } => Err(LabError::Step {
            who: puppet.name(),
            what: format!("connect to {to}"),
            why: std::io::Error::from_raw_os_error(errno).to_string(),
        }),
    }
}

/// Nobody listens.
pub(super) fn refused(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let to = stage.server_address();
    for _ in 0..connections {
        match stage.client.connect(&Command::Connect { to, by: ConnectBy::Blocking })? {
            Outcome::Failed { errno, port } if errno == libc::ECONNREFUSED => {
                stage.tell(&format!(
                    "{} connects from port {port} to {to}, where nobody listens: refused",
                    stage.client.name()
                ));
                stage.record_failure(to, port, FAILED_OPEN);
            }
            other => {
                return Err(LabError::Step {
                    who: stage.client.name(),
                    what: format!("be refused by {to}"),
                    why: format!("{other:?}"),
                });
            }
        }
    }
    Ok(())
}

/// Holds every port of a narrow range towards the server, then connects `failures` times more.
pub(super) fn exhausted(stage: &mut Stage<'_>, failures: u64, by: ConnectBy) -> Result<()> {
    let (range, ports) = NARROW_RANGE;
    let usual = stage.lab.set_sysctl(RANGE_KEY, range)?;
    let done = exhaust(stage, ports, failures, by);
    // Whatever happened: the lab may go on to other recipes.
    stage.lab.set_sysctl(RANGE_KEY, &usual)?;
    done
}

fn exhaust(stage: &mut Stage<'_>, ports: u64, failures: u64, by: ConnectBy) -> Result<()> {
    let listener = stage.listen(0, false)?;
    let to = stage.server_address();
    stage.lab.tell(&format!("ip_local_port_range is {}: {ports} ports", NARROW_RANGE.0));
    let mut pairs = Vec::new();
    for _ in 0..ports {
        pairs.push(stage.pair(listener, None)?);
    }
    stage.lab.tell(&format!("every port towards {to} is taken"));
    fail_to_connect(stage, failures, by)?;
    for pair in &pairs {
        let how = close_in_turn(stage, pair, End::Client)?;
        record_in_turn(stage, pair, End::Client, how);
    }
    stage.stop_listening(0, listener)
}

/// The client connects to the server `failures` times, and finds no port.
pub(super) fn fail_to_connect(stage: &mut Stage<'_>, failures: u64, by: ConnectBy) -> Result<()> {
    let to = stage.server_address();
    let limit = STEP + PER_FAILURE.saturating_mul(u32::try_from(failures).unwrap_or(u32::MAX));
    stage.client.tell_patiently(&Command::FailToConnect { to, by, times: failures }, limit)?;
    stage.lab.tell(&format!(
        "{} connects {failures} times more{}: EADDRNOTAVAIL each time",
        stage.client.name(),
        match by {
            ConnectBy::Blocking => "",
            ConnectBy::Nonblocking => ", without blocking",
            ConnectBy::IoUring => ", by io_uring",
        }
    ));
    for _ in 0..failures {
        stage.record_failure(to, 0, FAILED_OPEN);
    }
    Ok(())
}

/// One listener, made by the parent, inherited by forked workers that accept in turn.
pub(super) fn prefork(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    let comms = (1..=SERVERS).map(|number| format!("lab-worker{number}")).collect();
    stage.workers = stage.servers[0].fork(comms)?;
    for worker in &stage.workers {
        stage.tell(&format!("forked: {} (pid {})", worker.comm, worker.pid));
    }
    for worker in (0..SERVERS).cycle().take(usize::try_from(connections).unwrap_or(usize::MAX)) {
        let pair = stage.pair(listener, Some(worker))?;
        stage.tell(&format!("{} accepts", stage.workers[worker].comm));
        let how = close_in_turn(stage, &pair, End::Client)?;
        record_in_turn(stage, &pair, End::Client, how);
    }
    stage.stop_listening(0, listener)
}

/// Several processes, each with a listener of its own on the same port; the kernel chooses.
pub(super) fn reuseport(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    for number in 2..=SERVERS {
        stage.add_server(&format!("lab-server{number}"))?;
    }
    let mut listeners = Vec::new();
    for at in 0..SERVERS {
        listeners.push(stage.listen(at, true)?);
    }
    for _ in 0..connections {
        let pair = stage.pair_with_any(&listeners)?;
        let how = close_in_turn(stage, &pair, End::Client)?;
        record_in_turn(stage, &pair, End::Client, how);
    }
    for (at, listener) in listeners.into_iter().enumerate() {
        stage.stop_listening(at, listener)?;
    }
    Ok(())
}
