//! `tcpmon tail` as a process whose lines are read.

use std::process::{Child, Stdio};

use rustix::process::Signal;

use super::PATIENCE;
use super::daemon::Daemon;
use super::event::{self, Event, Line};
use super::program::{Finished, Lines, finish, signal, start, tethered};

/// A running `tcpmon tail`; ends when dropped.
pub(crate) struct Tail {
    child: Option<Child>,
    pub(crate) lines: Lines,
}

impl Tail {
    /// Starts `tcpmon tail --json` on that daemon, and waits until it streams.
    pub(crate) fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        Self::start_plain(daemon, &[&["--json"], arguments].concat())
    }

    /// Starts `tcpmon tail` on that daemon, and waits until it streams.
    pub(crate) fn start_plain(daemon: &Daemon, arguments: &[&str]) -> Self {
        let before = daemon.streams();
        let tail = Self::start_alone(&[&["--socket", daemon.socket_text()], arguments].concat());
        daemon.await_one_more_stream(before);
        tail
    }

    /// Starts `tcpmon tail`, and waits for nothing.
    pub(crate) fn start_alone(arguments: &[&str]) -> Self {
        let mut command = tethered(&[&["tail"], arguments].concat());
        // Times in columns are local ones.
        let mut child = start(command.stdout(Stdio::piped()).env("TZ", "UTC"));
        let lines = Lines::of(child.stdout.take().expect("a pipe"));
        Self { child: Some(child), lines }
    }

    /// The next line.
    pub(crate) fn next(&self) -> Line {
        event::parse(&self.lines.next().expect("tail goes on"))
    }

    /// The next so many events; a gap is a failure.
    pub(crate) fn events(&self, count: u64) -> Vec<Event> {
        let mut seen = Vec::new();
        for _ in 0..count {
            match self.lines.next_within(PATIENCE) {
                Some(line) => seen.push(event::event(&line)),
                None => panic!("only {} of {count} events came: {seen:#?}", seen.len()),
            }
        }
        seen
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        finish(self.child.take().expect("a child"))
    }

    /// Ends it by a signal.
    pub(crate) fn end(self, by: Signal) -> Finished {
        if let Some(child) = &self.child {
            signal(child, by);
        }
        self.finish()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}
