//! Waiting: always bounded, and ended by Ctrl-C.
//!
//! The first SIGINT or SIGTERM ends the loads that are running and makes every wait fail, so that
//! the work unwinds and whatever was started is ended in order; the second one does not wait for
//! that.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::proc;

/// How often a condition is looked at, at most.
const POLL: Duration = Duration::from_millis(20);

/// The lab's name of the processes that make a load. Its other process removes the namespaces
/// when it is told to end, so that one must live.
const LOAD: &str = "lab-load";

/// What a shell reports of a program that SIGINT ended.
const EXIT_BY_SIGINT: i32 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen for SIGINT and SIGTERM.
pub(crate) fn watch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle SIGINT")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                std::process::exit(EXIT_BY_SIGINT);
            }
            eprintln!("xtask: interrupted: ending what was started ...");
            end_loads();
        }
    });
    Ok(())
}

/// Fails once a signal has come.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Lets time pass.
pub(crate) fn pause(length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(POLL));
    }
}

/// Waits until `met` says yes; `what` names the condition in the error after `limit`.
pub(crate) fn until(
    what: &str,
    limit: Duration,
    mut met: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begun = Instant::now();
    while !met()? {
        if begun.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        pause(POLL)?;
    }
    Ok(())
}

/// Ends the loads by force: a load that runs listens to nobody.
fn end_loads() {
    for (pid, comm) in proc::children(std::process::id()) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let (LOAD, Some(pid)) = (&*comm, pid) {
            // One that has just ended by itself is as good.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_names_what_it_waited_for() {
        let error = until("the end of time", Duration::ZERO, || Ok(false)).expect_err("in vain");
        assert!(error.to_string().contains("the end of time"), "{error}");
        let mut looks = 0;
        until("the third look", Duration::from_secs(10), || {
            looks += 1;
            Ok(looks == 3)
        })
        .expect("met");
        assert_eq!(looks, 3);
    }
}
