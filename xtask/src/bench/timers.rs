//! What the probes on timers cost a machine whose timers are not of time-wait sockets: the filter
//! sees every timer there is.
//!
//! The load is two threads that send each other datagrams, each receiving with a time limit: the
//! kernel starts a timer before the thread sleeps and cancels it when the answer comes
//! (`schedule_timeout()` in kernel/time/timer.c). No TCP socket is in it.

use std::{
    os::unix::net::UnixDatagram,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    metrics::Metrics,
    session::{Kit, ProbeStats, Session},
    table::{Table, thousands},
    wait,
};

/// Timers a second that are aimed at.
const RATES: [u32; 2] = [10_000, 100_000];

/// The load sends a burst so often.
const BURST_EVERY: Duration = Duration::from_millis(1);

/// How long a thread waits for an answer, which comes within microseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// The cost at one rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TimerCost {
    /// Timers a second that were aimed at.
    pub wanted: u32,
    /// Timers a second that the probes saw start, those of the rest of the machine included.
    pub timers_per_second: f64,
    /// Share of one CPU that the probes took, by the kernel's measure, with what measuring adds.
    pub share: f64,
    /// The same by timer, in nanoseconds.
    pub ns_per_timer: f64,
}

/// Measures each rate for so long.
pub(super) fn measure(kit: &Kit, length: Duration) -> Result<Vec<TimerCost>> {
    let mut session = Session::start_daemon_alone(kit, ProbeStats::On, &[])?;
    session.await_rest()?;
    let mut costs = Vec::new();
    for wanted in RATES {
        wait::check()?;
        let before = look(&session)?;
        let begun = Instant::now();
        ping_pong(wanted, length)?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = look(&session)?;
        session.check()?;
        let (starts, time) = (after.0 - before.0, after.1 - before.1);
        costs.push(TimerCost {
            wanted,
            timers_per_second: starts / seconds,
            share: time / seconds,
            ns_per_timer: time / starts.max(1.0) * 1e9,
        });
    }
    session.stop();
    Ok(costs)
}

/// Runs of the probe on starts, and seconds of all probes on timers.
fn look(session: &Session) -> Result<(f64, f64)> {
    let metrics = Metrics::ask(session.socket())?;
    Ok((
        metrics.sum_of("tcpmon_probe_runs_total", "probe=\"tcpmon_timer_start\""),
        metrics.sum_of("tcpmon_probe_run_seconds_total", "probe=\"tcpmon_timer_"),
    ))
}

/// Starts so many timers a second, as far as the machine can.
fn ping_pong(rate: u32, length: Duration) -> Result<()> {
    let (near, far) = UnixDatagram::pair().context("cannot make a pair of sockets")?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(LIMIT))?;
    }
    let echo = thread::spawn(move || {
        let mut byte = [0];
        // Ends with the other end.
        while far.recv(&mut byte).is_ok_and(|received| received == 1) && far.send(&byte).is_ok() {}
    });
    // Two timers an exchange, one for each end.
    let exchanges = rate / 2 / 1_000;
    let begun = Instant::now();
    let mut next = begun;
    while begun.elapsed() < length {
        wait::check()?;
        for _ in 0..exchanges {
            let mut byte = [0];
            near.send(&[1])?;
            near.recv(&mut byte).context("the load got no answer")?;
        }
        next += BURST_EVERY;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    // An empty datagram is the end.
    near.send(&[])?;
    if echo.join().is_err() {
        bail!("a thread of the load failed");
    }
    Ok(())
}

/// The costs as a table.
pub(super) fn table(costs: &[TimerCost]) -> Table {
    let head = ["timers/s, aimed at", "timers/s, seen", "probes, % of a CPU", "ns a timer"];
    let mut table = Table::new("The filter on timers, none of them of a time-wait socket", &head);
    for cost in costs {
        table.row(vec![
            thousands(cost.wanted.into()),
            thousands(cost.timers_per_second),
            format!("{:.3}", cost.share * 100.0),
            thousands(cost.ns_per_timer),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_runs_and_ends() {
        let begun = Instant::now();
        ping_pong(10_000, Duration::from_millis(50)).expect("a load");
        assert!(begun.elapsed() < LIMIT);
    }
}
