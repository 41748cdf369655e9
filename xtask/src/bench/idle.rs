//! What the tools cost while nothing happens, and how soon they show the first event after that.

use std::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    session::{Kit, ProbeStats, Session},
    stats::Spread,
    subject::Subject,
    tool::Output,
    wait,
};

/// Silence before an event whose way is timed: long enough for everything to fall asleep.
const SILENCE: Duration = Duration::from_millis(500);
/// How long a line may take: far more than is hoped for, so that a bad figure is still one.
const LINE_LIMIT: Duration = Duration::from_secs(10);

/// CPU of a subject at rest.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Idle {
    /// Whose.
    pub subject: Subject,
    /// Share of one CPU that the daemon used; 0 without one.
    pub daemon_share: f64,
    /// The same of the tail or the peer.
    pub reader_share: f64,
    /// Transitions that the daemon counted meanwhile, as other programs never rest altogether;
    /// `None` without one.
    pub events: Option<f64>,
}

/// Watches each of these subjects while nothing is done. One after the other: to learn which timers
/// are those of time-wait sockets, a daemon may make one as it starts, which for another is an event.
/// Those that cannot start are told to `unfit`.
pub(super) fn measure(
    kit: &Kit,
    subjects: &[Subject],
    length: Duration,
    unfit: &mut impl FnMut(Subject, &anyhow::Error),
) -> Result<Vec<Idle>> {
    let mut told = Vec::new();
    for &subject in subjects {
        match Session::start(kit, subject, ProbeStats::On, Output::Discard) {
            Ok(session) => told.push(watch(session, subject, length)?),
            Err(error) if subject.is_peer() => {
                wait::check()?;
                unfit(subject, &error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

fn watch(mut session: Session, subject: Subject, length: Duration) -> Result<Idle> {
    session.await_rest()?;
    // The question for the count is work, and not to be among what is measured.
    let counted = session.counted()?;
    wait::pause(SILENCE)?;
    let before = session.usage()?;
    let begun = Instant::now();
    wait::pause(length)?;
    let used = session.usage()?.since(before);
    let seconds = begun.elapsed().as_secs_f64();
    let events = session.counted()?.zip(counted).map(|(after, before)| after - before);
    session.check()?;
    session.stop();
    Ok(Idle {
        subject,
        daemon_share: used.daemon_cpu / seconds,
        reader_share: used.reader_cpu / seconds,
        events,
    })
}

/// Milliseconds from the first event after a silence, by its own time, to its line from
/// `tail --json`; so many times.
pub(super) fn latency(kit: &Kit, times: usize) -> Result<Option<Spread>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr()?;
    let mut session = Session::start(kit, Subject::Daemon, ProbeStats::On, Output::Discard)?;
    let (sender, lines) = mpsc::channel();
    let output = Output::Lines(Box::new(move |line: &[u8]| {
        // Nobody listens any more once enough has been heard.
        let _heard = sender.send((SystemTime::now(), line.to_vec()));
    }));
    session.start_tail(kit, &["--port", &address.port().to_string()], output)?;
    let mut millis = Vec::new();
    for _ in 0..times {
        silence(&lines)?;
        let client = TcpStream::connect(address).context("cannot connect on 127.0.0.1")?;
        let (server, _) = listener.accept()?;
        drop((client, server));
        let (arrived, line) = await_line(&lines)?;
        millis.push(delay(arrived, &line)?);
        session.check()?;
    }
    session.stop();
    Ok(Spread::of(millis))
}

/// Takes what comes until nothing has come for a while.
fn silence(lines: &Receiver<(SystemTime, Vec<u8>)>) -> Result<()> {
    let begun = Instant::now();
    loop {
        wait::pause(SILENCE)?;
        if lines.try_iter().count() == 0 {
            return Ok(());
        }
        if begun.elapsed() > LINE_LIMIT {
            bail!("the port chosen for timing is never silent");
        }
    }
}

fn await_line(lines: &Receiver<(SystemTime, Vec<u8>)>) -> Result<(SystemTime, Vec<u8>)> {
    let begun = Instant::now();
    loop {
        wait::check()?;
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => return Ok(line),
            Err(mpsc::RecvTimeoutError::Timeout) if begun.elapsed() < LINE_LIMIT => {}
            Err(_) => bail!("tail showed no event within {} s", LINE_LIMIT.as_secs()),
        }
    }
}

/// Milliseconds between an event and the arrival of its line.
fn delay(arrived: SystemTime, line: &[u8]) -> Result<f64> {
    const DAY: f64 = 86_400_000.0;
    let unreadable = || format!("no event: {}", String::from_utf8_lossy(line).trim());
    let event: serde_json::Value = serde_json::from_slice(line).with_context(unreadable)?;
    let stamp = event.get("ts").and_then(serde_json::Value::as_str);
    let happened = stamp.and_then(millis_of_day).with_context(unreadable)?;
    let arrived = arrived.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64() * 1e3;
    // Both by the time of the day (Unix time has no leap seconds); midnight may lie between.
    let delay = (arrived - happened).rem_euclid(DAY);
    Ok(if delay > DAY / 2.0 { delay - DAY } else { delay })
}

/// The time of day, in milliseconds, of a timestamp as in RFC 3339, in UTC.
fn millis_of_day(stamp: &str) -> Option<f64> {
    let (_, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = |part: &str| part.parse::<u32>().ok().map(f64::from);
    let seconds: f64 = seconds.parse().ok()?;
    Some(((whole(hours)? * 60.0 + whole(minutes)?) * 60.0 + seconds) * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_the_lines_arrival_less_the_events_time() {
        // 1_795_330_800 is 2026-11-22T07:00:00Z.
        let at = |millis: u64| {
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_330_800_000 + millis)
        };
        let line = br#"{"ts":"2026-11-22T07:00:00.120000Z","netns":1}"#;
        assert!((delay(at(125), line).expect("a delay") - 5.0).abs() < 0.01);
        // A clock that was set back shows as what it is.
        assert!((delay(at(119), line).expect("a delay") + 1.0).abs() < 0.01);
        let midnight = br#"{"ts":"2026-11-21T23:59:59.999000Z"}"#;
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_305_600_002);
        assert!((delay(arrived, midnight).expect("a delay") - 3.0).abs() < 0.01);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for line in [&b"{\"lost\":3,\"where\":\"ring\"}"[..], b"", b"{\"ts\":\"yesterday\"}"] {
            assert!(delay(SystemTime::now(), line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
