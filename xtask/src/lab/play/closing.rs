//! Recipes that differ in how connections end.

use tcpmon_common::TcpState;

use super::pair::{End, Life, Pair};
use super::stage::Stage;
use crate::lab::edge::{
    ACTIVE_OPEN, CLOSE_FIRST, CLOSE_SECOND, CROSSED_CLOSE, PASSIVE_OPEN, RESET,
};
use crate::lab::error::{LabError, Result};
use crate::lab::protocol::Command;
use crate::lab::puppet::STEP;
use crate::lab::socket::{Ending, Substate};
use crate::lab::wire::{FIN, Wire};

/// What is sent where a recipe needs data: bytes.
const MESSAGE: usize = 100;

pub(super) fn in_turn(stage: &mut Stage<'_>, connections: u64, first: End) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        let how = close_in_turn(stage, &pair, first)?;
        record_in_turn(stage, &pair, first, how);
    }
    stage.stop_listening(0, listener)
}

/// `first` closes; the other end closes only when the first one's FIN is acknowledged. Returns how
/// the first end went into the time-wait table.
pub(super) fn close_in_turn(stage: &mut Stage<'_>, pair: &Pair, first: End) -> Result<Substate> {
    let how = close_first(stage, pair, first)?;
    close_second(stage, pair, first)?;
    Ok(how)
}

/// `first` closes, and has the ACK of its FIN when this returns; the other end stays open. Returns
/// how the first end goes, or will go, into the time-wait table.
pub(super) fn close_first(stage: &mut Stage<'_>, pair: &Pair, first: End) -> Result<Substate> {
    stage.act(pair, first, |socket| Command::Close { socket })?;
    stage.act(pair, first.other(), |socket| Command::AwaitEnd { socket })?;
    let how = stage.await_closed_first(pair, first)?;
    stage.tell(&format!("{first:?} closes first: its port waits for the other's FIN"));
    Ok(how)
}

/// The other end of what [`close_first`] closed closes too.
pub(super) fn close_second(stage: &mut Stage<'_>, pair: &Pair, first: End) -> Result<()> {
    let second = first.other();
    stage.act(pair, second, |socket| Command::Close { socket })?;
    stage.await_time_wait(pair, first)?;
    // On loopback the closed end goes from the table with the ACK; the first end's time-wait
    // socket is another line of it.
    stage.await_gone(pair, second)?;
    stage.tell(&format!("{second:?} closes: the first is in TIME_WAIT now"));
    Ok(())
}

/// Records a connection to a listener that [`close_in_turn`] closed.
pub(super) fn record_in_turn(stage: &mut Stage<'_>, pair: &Pair, first: End, how: Substate) {
    record_ended(stage, pair, first, how, None);
}

/// As [`record_in_turn`], of one whose first end has left the time-wait table if `end` says how.
pub(super) fn record_ended(
    stage: &mut Stage<'_>,
    pair: &Pair,
    first: End,
    how: Substate,
    end: Option<Ending>,
) {
    let waits = |open| Life { end, ..Life::new(open, CLOSE_FIRST).then_time_wait(how) };
    let (client, server) = match first {
        End::Client => (waits(ACTIVE_OPEN), Life::new(PASSIVE_OPEN, CLOSE_SECOND)),
        End::Server => (Life::new(ACTIVE_OPEN, CLOSE_SECOND), waits(PASSIVE_OPEN)),
    };
    stage.record_pair(pair, &client, &server);
}

/// Both ends close while the wire holds their FINs, which then cross.
pub(super) fn at_once(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        wire(stage)?.hold();
        stage.act(&pair, End::Client, |socket| Command::Close { socket })?;
        stage.act(&pair, End::Server, |socket| Command::Close { socket })?;
        wire(stage)?.await_held(FIN, STEP)?;
        stage.tell("both close; their FINs are on the wire, held back");
        wire(stage)?.release()?;
        for end in [End::Client, End::Server] {
            stage.await_time_wait(&pair, end)?;
        }
        stage.tell("the FINs cross: both ends went through CLOSING to TIME_WAIT");
        stage.record_pair(
            &pair,
            &Life::new(ACTIVE_OPEN, CROSSED_CLOSE).then_time_wait(Substate::TimeWait),
            &Life::new(PASSIVE_OPEN, CROSSED_CLOSE).then_time_wait(Substate::TimeWait),
        );
    }
    stage.stop_listening(0, listener)
}

/// The wire between the two namespaces.
pub(super) fn wire<'a>(stage: &'a Stage<'_>) -> Result<&'a Wire> {
    let missing = || LabError::Unsuitable("this recipe needs a wire, and none was laid".into());
    stage.lab.wire.as_ref().ok_or_else(missing)
}

/// The client shuts down its sending half and stays in `FIN_WAIT2` with its socket open; the server
/// goes on sending, then closes: the client enters the table after the peer's FIN.
pub(super) fn half(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        stage.act(&pair, End::Client, |socket| Command::ShutdownWrite { socket })?;
        stage.act(&pair, End::Server, |socket| Command::AwaitEnd { socket })?;
        stage.await_state(&pair, End::Client, TcpState::FinWait2)?;
        stage.tell("Client shuts down its sending half: it is in FIN_WAIT2, its socket open");
        stage.act(&pair, End::Server, |socket| Command::Send { socket, bytes: MESSAGE })?;
        stage.act(&pair, End::Client, |socket| Command::Receive { socket, bytes: MESSAGE })?;
        stage.tell(&format!("Server still sends {MESSAGE} bytes, and the client receives them"));
        stage.act(&pair, End::Server, |socket| Command::Close { socket })?;
        stage.act(&pair, End::Client, |socket| Command::AwaitEnd { socket })?;
        stage.await_time_wait(&pair, End::Client)?;
        stage.await_gone(&pair, End::Server)?;
        stage.act(&pair, End::Client, |socket| Command::Close { socket })?;
        stage.tell("Server closes: the client is in TIME_WAIT");
        stage.record_pair(
            &pair,
            &Life::new(ACTIVE_OPEN, CLOSE_FIRST).then_time_wait(Substate::TimeWait),
            &Life::new(PASSIVE_OPEN, CLOSE_SECOND),
        );
    }
    stage.stop_listening(0, listener)
}

/// One end aborts: no FIN, no `TIME_WAIT`.
pub(super) fn reset(stage: &mut Stage<'_>, connections: u64, by: End) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        stage.act(&pair, by, |socket| Command::Abort { socket })?;
        stage.tell(&format!("{by:?} aborts: a reset, no TIME_WAIT anywhere"));
        see_reset(stage, &pair, by)?;
    }
    stage.stop_listening(0, listener)
}

/// The server closes what it has not read: the kernel resets (RFC 9293, 3.6.1;
/// `__tcp_close()`, net/ipv4/tcp.c).
pub(super) fn unread(stage: &mut Stage<'_>, connections: u64) -> Result<()> {
    let listener = stage.listen(0, false)?;
    for _ in 0..connections {
        let pair = stage.pair(listener, None)?;
        // Two messages, of which the server reads one: so it knows that data came.
        let both = 2 * MESSAGE;
        stage.act(&pair, End::Client, |socket| Command::Send { socket, bytes: both })?;
        stage.act(&pair, End::Server, |socket| Command::Receive { socket, bytes: MESSAGE })?;
        stage.act(&pair, End::Server, |socket| Command::Close { socket })?;
        stage.tell("Server closes with unread data: the kernel sends a reset instead of a FIN");
        see_reset(stage, &pair, End::Server)?;
    }
    stage.stop_listening(0, listener)
}

/// The other end sees the reset of `by`, and closes.
fn see_reset(stage: &mut Stage<'_>, pair: &Pair, by: End) -> Result<()> {
    let other = by.other();
    stage.act(pair, other, |socket| Command::AwaitReset { socket })?;
    stage.act(pair, other, |socket| Command::Close { socket })?;
    for end in [End::Client, End::Server] {
        stage.await_gone(pair, end)?;
    }
    stage.record_pair(pair, &Life::new(ACTIVE_OPEN, RESET), &Life::new(PASSIVE_OPEN, RESET));
    Ok(())
}
