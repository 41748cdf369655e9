//! Recipes in which sockets leave the time-wait table, or find no place in it.

use std::net::SocketAddr;

use tcpmon_common::TcpState::{Close, CloseWait};

use super::closing::{
    close_first, close_in_turn, close_second, record_ended, record_in_turn, wire,
};
use super::load::BUCKETS_KEY;
use super::opening::begin;
use super::pair::{End, Life, Pair};
use super::stage::Stage;
use crate::lab::destroy::destroy;
use crate::lab::edge::{ACTIVE_OPEN, CLOSE_FIRST, CLOSE_SECOND, FAILED_OPEN, PASSIVE_OPEN};
use crate::lab::error::{LabError, Result};
use crate::lab::netns;
use crate::lab::protocol::{Command, SocketId};
use crate::lab::puppet::Connection;
use crate::lab::socket::{Ending, Role, Substate};

const FIN_TIMEOUT_KEY: &str = "ipv4/tcp_fin_timeout";
/// The table's size of the recipe that fills it.
const BUCKETS: &str = "100";
/// What is sent where a recipe needs data: bytes.
const MESSAGE: usize = 100;

/// A connection that the client has closed, so that it waits in the time-wait table for the FIN of
/// the server, which stays open. Once in a while the kernel leaves a full socket in `FIN_WAIT2`
/// instead ([`Table::await_closed_first`]): such a connection is ended as usual, and told.
///
/// [`Table::await_closed_first`]: crate::lab::table::Table::await_closed_first
fn half_closed(stage: &mut Stage<'_>, listener: SocketId) -> Result<Pair> {
    loop {
        let pair = stage.pair(listener, None)?;
        match close_first(stage, &pair, End::Client)? {
            Substate::FinWait2 => return Ok(pair),
            how @ Substate::TimeWait => {
                close_second(stage, &pair, End::Client)?;
                record_in_turn(stage, &pair, End::Client, how);
            }
        }
    }
}

/// The client's life in such a connection, which ended like this.
fn ended_in_fin_wait2(how: Ending) -> Life<'static> {
    Life::new(ACTIVE_OPEN, CLOSE_FIRST).then_time_wait(Substate::FinWait2).ended(how)
}

/// Does `work` while a sysctl of the first namespace has another value.
fn with_sysctl(
    stage: &mut Stage<'_>,
    key: &str,
    value: &str,
    work: impl FnOnce(&mut Stage<'_>) -> Result<()>,
) -> Result<()> {
    let usual = stage.lab.set_sysctl(key, value)?;
    stage.lab.tell(&format!("net/{key} is {value}"));
    let done = work(stage);
    // Whatever happened: the lab may go on to other recipes.
    stage.lab.set_sysctl(key, &usual)?;
    done
}

/// The substate `FIN_WAIT2` expires after a second, since no FIN comes. The kernel counts such
/// entries as `TWKilled`, because they are for 4 s or less.
pub(super) fn fin_timeout_short(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    with_sysctl(stage, FIN_TIMEOUT_KEY, "1", |stage| {
        let listener = stage.listen(0, false)?;
        let mut pairs = Vec::new();
        for _ in 0..connections {
            pairs.push(half_closed(stage, listener)?);
        }
        for pair in &pairs {
            stage.await_gone(pair, End::Client)?;
        }
        stage.tell("a second later nothing is left of the client's side");
        stage.checkpoint("all have expired")?;
        for pair in &pairs {
            // Its FIN is met with a reset.
            stage.act(pair, End::Server, |socket| Command::Close { socket })?;
            stage.await_gone(pair, End::Server)?;
            let server = Life::new(PASSIVE_OPEN, CLOSE_SECOND);
            stage.record_pair(pair, &ended_in_fin_wait2(Ending::Expired), &server);
        }
        stage.stop_listening(0, listener)
    })
}

/// The substate `FIN_WAIT2` lasts until the FIN comes, and is promoted then.
pub(super) fn fin_timeout_long(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    with_sysctl(stage, FIN_TIMEOUT_KEY, "60", |stage| {
        let listener = stage.listen(0, false)?;
        let mut pairs = Vec::new();
        for _ in 0..connections {
            pairs.push(half_closed(stage, listener)?);
        }
        stage.checkpoint("all wait for the FIN")?;
        for pair in &pairs {
            close_second(stage, pair, End::Client)?;
            record_in_turn(stage, pair, End::Client, Substate::FinWait2);
        }
        stage.stop_listening(0, listener)
    })
}

/// Most find the time-wait table full. In a lab that has done nothing else the first hundred do
/// not.
pub(super) fn table_full(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    with_sysctl(stage, BUCKETS_KEY, BUCKETS, |stage| {
        let listener = stage.listen(0, false)?;
        for _ in 0..connections {
            let pair = stage.pair(listener, None)?;
            stage.act(&pair, End::Client, |socket| Command::Close { socket })?;
            stage.act(&pair, End::Server, |socket| Command::AwaitEnd { socket })?;
            let Connection { local, remote, .. } = pair.end(End::Client);
            let table = stage.table(End::Client);
            let how = table.await_closed_first_or_gone(local, remote)?;
            stage.act(&pair, End::Server, |socket| Command::Close { socket })?;
            stage.await_gone(&pair, End::Server)?;
            // A full socket in FIN_WAIT2 tries to enter only with the server's FIN.
            let entered = table.await_time_wait_or_gone(local, remote)?;
            if let Some(how) = how.filter(|_| entered) {
                record_in_turn(stage, &pair, End::Client, how);
            } else {
                let full = Life { overflow: true, ..Life::new(ACTIVE_OPEN, CLOSE_FIRST) };
                stage.record_pair(&pair, &full, &Life::new(PASSIVE_OPEN, CLOSE_SECOND));
            }
        }
        stage.stop_listening(0, listener)
    })
}

/// The network delivers the server's FIN once more. The client's `TIME_WAIT` answers with an ACK,
/// the server knows of no such connection and resets, and with `tcp_rfc1337` 0 the kernel lets that
/// end `TIME_WAIT`.
pub(super) fn reset(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        let how = close_in_turn(stage, &pair, End::Client)?;
        stage.checkpoint("the client is in TIME_WAIT")?;
        wire(stage)?.repeat_fin(1)?;
        stage.await_gone(&pair, End::Client)?;
        stage.tell("the server's FIN comes again: its answer is met with a reset");
        stage.checkpoint("a reset has ended TIME_WAIT")?;
        record_ended(stage, &pair, End::Client, how, Some(Ending::Killed));
    }
    stage.stop_listening(0, listener)
}

/// The server sends what nobody can receive any more: `TCP_TW_RST` of
/// `tcp_timewait_state_process()`, net/ipv4/tcp_minisocks.c.
pub(super) fn data_after_close(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = half_closed(stage, listener)?;
        stage.act(&pair, End::Server, |socket| Command::Send { socket, bytes: MESSAGE })?;
        for end in [End::Client, End::Server] {
            stage.await_gone(&pair, end)?;
        }
        stage.tell("Server sends: the client's side resets, and is gone");
        stage.act(&pair, End::Server, |socket| Command::Close { socket })?;
        stage.checkpoint("data has ended the client's side")?;
        let server = Life::new(PASSIVE_OPEN, &[CloseWait, Close]);
        stage.record_pair(&pair, &ended_in_fin_wait2(Ending::Killed), &server);
    }
    stage.stop_listening(0, listener)
}

/// The server's host forgets the connection, as by a power failure, and connects from the same port
/// to the client's. The client's side answers a SYN outside its window with an ACK, which is met
/// with a reset; one inside with a reset of its own. Either way it is gone, and nobody listens to
/// the next SYN.
pub(super) fn syn_after_close(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    for _ in 0..connections {
        let listener = stage.listen(0, false)?;
        let pair = half_closed(stage, listener)?;
        // Else the listener would be in the way of the bind().
        stage.stop_listening(0, listener)?;
        wire(stage)?.hold();
        stage.act(&pair, End::Server, |socket| Command::Abort { socket })?;
        stage.await_gone(&pair, End::Server)?;
        wire(stage)?.discard();
        stage.tell("the server's host has forgotten the connection, and nobody was told");
        stage.checkpoint("the client's side waits for a FIN that will not come")?;
        let (from, to) = (pair.server.local, pair.server.remote);
        let back = begin(&mut stage.servers[0], from, to)?;
        stage.await_gone(&pair, End::Client)?;
        refused(stage, back, to)?;
        stage.tell("it connects from the same port: the client's side is gone");
        stage.checkpoint("a SYN has ended the client's side")?;
        let server = Life::new(PASSIVE_OPEN, &[CloseWait, Close]);
        stage.record_pair(&pair, &ended_in_fin_wait2(Ending::Killed), &server);
        let back = Pair::of(back, back);
        stage.record_end(&back, End::Server, Role::Active, &Life::new(FAILED_OPEN, &[]));
    }
    Ok(())
}

/// Waits until a `connect()` of the server to `to` has been refused.
fn refused(stage: &mut Stage<'_>, back: Connection, to: SocketAddr) -> Result<()> {
    stage.servers[0].tell_done(&Command::AwaitRefusal { socket: back.socket })?;
    stage.table(End::Server).await_gone(back.local, to)?;
    stage.servers[0].tell_done(&Command::Close { socket: back.socket })
}

/// `ss -K`.
pub(super) fn destroyed(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        let how = close_in_turn(stage, &pair, End::Client)?;
        let Connection { local, remote, .. } = pair.end(End::Client);
        let name = stage.netns_of(End::Client).name.clone();
        let done = netns::inside(&name, || destroy(local, remote));
        done.map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOENT) => LabError::Unsupported(format!(
                "this kernel destroys no time-wait sockets (ss -K): {error}"
            )),
            _ => LabError::Io { what: format!("destroy {local} -> {remote}"), source: error },
        })?;
        stage.await_gone(&pair, End::Client)?;
        stage.tell(&format!("destroyed from outside: {local} -> {remote}"));
        record_ended(stage, &pair, End::Client, how, Some(Ending::Killed));
    }
    stage.checkpoint("all have been destroyed")?;
    stage.stop_listening(0, listener)
}

/// Time-wait sockets that last as long as their namespace.
pub(super) fn with_namespace(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    let mut pairs = Vec::new();
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        let how = close_in_turn(stage, &pair, End::Client)?;
        pairs.push((pair, how));
    }
    stage.checkpoint("time-wait sockets are there")?;
    for (pair, how) in pairs {
        record_ended(stage, &pair, End::Client, how, Some(Ending::Killed));
    }
    stage.stop_listening(0, listener)
}
