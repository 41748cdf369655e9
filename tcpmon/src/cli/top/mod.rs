//! `tcpmon top`: the daemon's report and its stream, full screen.
//!
//! [`state`] is what is known, [`keys`] what keys do to it, [`view`] draws it; [`feed`] asks the
//! daemon for reports, [`stream`] for transitions while they are looked at. [`screen`] puts the
//! terminal back whatever ends the program: a key, a signal, an error, a panic.

mod drill;
mod feed;
mod history;
mod keys;
mod rows;
mod screen;
mod sockets;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod view;

use std::{
    env,
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{DEFAULT_SOCKET, columns::colour_wanted};
use keys::Action;
use screen::{Ends, Screen};
use state::{Message, State};

/// Between two pictures, whatever the interval: transitions come faster than anybody reads.
const PICTURES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Options of `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Seconds between two reports; transitions are drawn four times as often, once a second at
    /// least, so a long interval is easy on a slow line
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,

    /// Ask the daemon on this Unix socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Shows the daemon's view until it is told to end.
///
/// # Errors
///
/// Where no daemon answers at the start, or there is no terminal.
pub fn run(args: &TopArgs) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("top needs a terminal; `tcpmon report` prints the same once");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        // Before the screen changes: a line that says why is worth more than an empty screen.
        let first = feed::report(&args.socket).await?;
        let interval = Duration::from_secs_f64(args.interval);
        let mut state = State::new(TimeZone::system(), interval);
        state.take(Message::Report(Box::new(first)));
        let mut ends = Ends::register()?;
        let mut screen = Screen::take(&ends)?;
        show(&mut screen, &mut ends, &mut state, args).await
    });
    // The thread that waits for keys cannot be woken.
    runtime.shutdown_background();
    done
}

async fn show(
    screen: &mut Screen,
    ends: &mut Ends,
    state: &mut State,
    args: &TopArgs,
) -> anyhow::Result<()> {
    let (sender, mut messages) = mpsc::channel(64);
    let (want, wanted) = watch::channel(stream::Wanted::default());
    let mut reports =
        tokio::spawn(feed::reports(args.socket.clone(), state.interval, sender.clone()));
    let mut follower = tokio::spawn(stream::follow(args.socket.clone(), wanted, sender));
    let mut keys = keys();
    let colour =
        colour_wanted(true, env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref());
    let least = (state.interval / 4).clamp(PICTURES[0], PICTURES[1]);
    let mut changed = true;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = ends.recv() => return Ok(()),
            Some(message) = messages.recv() => {
                state.take(message);
                changed = true;
            }
            key = keys.recv() => {
                changed = true;
                match key {
                    // The terminal has gone.
                    None => return Ok(()),
                    Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                        match state.key(key) {
                            Action::None => {}
                            Action::Quit => return Ok(()),
                            Action::Redraw => screen.clear().context("cannot write to the terminal")?,
                            Action::Stream(wanted) => drop(want.send_replace(wanted)),
                        }
                        // A key is answered at once, unless more of them wait.
                        if keys.is_empty() {
                            next = Instant::now();
                        }
                    }
                    // A new size.
                    Some(_) => next = Instant::now(),
                }
            }
            () = tokio::time::sleep_until(next), if changed => {
                let begun = Instant::now();
                screen
                    .draw(|frame| view::draw(frame, state, colour))
                    .context("cannot write to the terminal")?;
                changed = false;
                // A line that takes its time gets pictures less often, so that keys and the daemon
                // are not kept waiting.
                next = Instant::now() + least.max(begun.elapsed() * 4);
            }
            // Neither ends by itself; a panic has put the terminal back, and nothing may be drawn.
            done = &mut reports => return Ok(done?),
            done = &mut follower => return Ok(done?),
        }
    }
}

/// Keys and new sizes, read by a thread of its own, as reading waits.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads a time in seconds.
fn interval(value: &str) -> Result<f64, String> {
    let seconds = value.parse().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds from 0.1 to 3600".to_owned())
}
