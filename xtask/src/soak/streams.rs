//! The two subscribers: one that reads everything, and one that never reads, and at the end is
//! asked what it was told that it missed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::bench::{metrics::Metrics, tool::Output, wait};

/// A stream at rest has nothing to read for that long.
const SILENCE: Duration = Duration::from_secs(1);
/// The longest that reading what was left lying may take.
const LIMIT: Duration = Duration::from_mins(1);

/// What a stream has told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Transitions shown.
    pub shown: u64,
    /// Transitions that it says were lost between kernel and daemon.
    pub ring: u64,
    /// Transitions that it says were lost in its own queue.
    pub subscriber: u64,
}

/// A line that tells a loss.
#[derive(Deserialize)]
struct Gap {
    lost: u64,
    #[serde(rename = "where")]
    place: String,
}

impl Account {
    fn hear(&mut self, line: &[u8]) {
        match serde_json::from_slice::<Gap>(line) {
            Ok(gap) if gap.place == "ring" => self.ring += gap.lost,
            Ok(gap) => self.subscriber += gap.lost,
            Err(_) => self.shown += 1,
        }
    }
}

/// What the tail has read so far.
#[derive(Clone, Default)]
pub(super) struct Reading {
    shown: Arc<AtomicU64>,
    ring: Arc<AtomicU64>,
    subscriber: Arc<AtomicU64>,
}

impl Reading {
    /// Hears the tail's lines.
    pub(super) fn output(&self) -> Output {
        let heard = self.clone();
        Output::Lines(Box::new(move |line: &[u8]| {
            // Most lines are transitions: only those that tell a loss are worth a parser.
            if line.starts_with(b"{\"lost\"") {
                let mut gap = Account::default();
                gap.hear(line);
                heard.ring.fetch_add(gap.ring, Ordering::Relaxed);
                heard.subscriber.fetch_add(gap.subscriber, Ordering::Relaxed);
            } else {
                heard.shown.fetch_add(1, Ordering::Relaxed);
            }
        }))
    }

    pub(super) fn account(&self) -> Account {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Account {
            shown: read(&self.shown),
            ring: read(&self.ring),
            subscriber: read(&self.subscriber),
        }
    }
}

/// A subscriber that does not read.
pub(super) struct Sleeper {
    stream: UnixStream,
}

impl Sleeper {
    /// Subscribes to what happens in a namespace, and does not read.
    pub(super) fn fall_asleep(socket: &Path, inode: u64) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).context("cannot connect to the daemon")?;
        let route = format!("/api/v1/events?netns={inode}");
        write!(stream, "GET {route} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        wait::until("the second subscriber", LIMIT, || {
            Ok(Metrics::ask(socket)?.sum("tcpmon_subscribers") > 1.0)
        })?;
        Ok(Self { stream })
    }

    /// Reads what was left lying, calls `mark`, which makes one more event, and reads on until
    /// nothing comes: what was lost is told before the next event.
    pub(super) fn awake(self, mark: impl FnOnce() -> Result<()>) -> Result<Account> {
        self.stream.set_read_timeout(Some(SILENCE))?;
        let mut reader = BufReader::new(self.stream);
        let mut account = Account::default();
        let mut line = Vec::new();
        let mut mark = Some(mark);
        let begun = Instant::now();
        let mut is_head = true;
        while begun.elapsed() < LIMIT {
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {
                    if is_head {
                        is_head = line != b"\r\n";
                    } else {
                        account.hear(&line);
                    }
                    line.clear();
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => match mark.take() {
                    Some(mark) => mark()?,
                    None => break,
                },
                Err(error) => return Err(error).context("the stream of the one that sleeps"),
            }
        }
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_apart_from_transitions_and_from_each_other() {
        let mut account = Account::default();
        for line in [
            &b"{\"ts\":\"2026-11-22T08:00:00.1Z\",\"netns\":1,\"old\":\"close\"}\n"[..],
            b"{\"lost\":3,\"where\":\"ring\"}\n",
            b"{\"lost\":4,\"where\":\"subscriber\"}\n",
            b"{\"lost\":5,\"where\":\"subscriber\"}\n",
        ] {
            account.hear(line);
        }
        assert_eq!(account, Account { shown: 1, ring: 3, subscriber: 9 });
    }
}
