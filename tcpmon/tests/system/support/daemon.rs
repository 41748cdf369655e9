//! A daemon of a test's own.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::exposition::{self, Metrics};
use super::http::{self, Body, Response};
use super::program::{Lines, signal, start, tethered, tethered_behind, wait};
use super::turn::{ChangingProbes, Turn};
use super::{PATIENCE, eventually};

/// A running daemon, on a socket in a folder of its own; ends when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Lines,
    /// What it said before it was ready.
    first: Vec<String>,
    addresses: Vec<SocketAddr>,
    socket: PathBuf,
    _folder: Option<TempDir>,
}

/// How a daemon ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
    /// Whether its socket file is still there.
    pub(crate) left_socket: bool,
    /// What it wrote to standard error since it was ready.
    pub(crate) log: Vec<String>,
}

impl Daemon {
    /// Starts a daemon with these arguments (whoever has one makes connections, so it takes a turn), on a loopback port of the system's choice, and waits
    /// until it observes.
    pub(crate) fn start(turn: &Turn, arguments: &[&str]) -> Self {
        let loopback = ["--web.listen-address", "127.0.0.1:0"];
        Self::start_listening(turn, &[&loopback, arguments].concat())
    }

    /// As [`Self::start`]; the arguments say where it listens.
    pub(crate) fn start_listening(turn: &Turn, arguments: &[&str]) -> Self {
        Self::start_in(turn, tempfile::tempdir().expect("a folder"), arguments)
    }

    /// As [`Self::start_listening`], with the socket `tcpmon.sock` in that folder.
    pub(crate) fn start_in(_turn: &Turn, folder: TempDir, arguments: &[&str]) -> Self {
        let path = folder.path().to_owned();
        Self::begin(&path, Some(folder), arguments)
    }

    /// As [`Self::start_in`], for a folder that outlives the daemon: another may follow it there.
    pub(crate) fn start_at(_turn: &Turn, folder: &Path, arguments: &[&str]) -> Self {
        Self::begin(folder, None, arguments)
    }

    /// As [`Self::start`], behind a program that becomes the daemon by exec (`unshare ...`).
    pub(crate) fn start_behind(_turn: &Turn, before: &[&str], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        let loopback = ["--web.listen-address", "127.0.0.1:0"];
        Self::begin_behind(before, &path, Some(folder), &[&loopback, arguments].concat())
    }

    /// As [`Self::start`], with its standard error there, where nobody reads it.
    pub(crate) fn start_mute(_turn: &Turn, stderr: Stdio, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("tcpmon.sock");
        let path = socket.to_str().expect("UTF-8");
        let usual = ["daemon", "--socket", path, "--web.listen-address", "127.0.0.1:0"];
        let mut command = tethered(&[&usual, arguments].concat());
        let _until_attached = ChangingProbes::hold();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let log = Lines::of(std::io::empty());
        let (addresses, first) = (Vec::new(), Vec::new());
        let child = child.expect("tcpmon");
        let daemon = Self { child, log, first, addresses, socket, _folder: Some(folder) };
        eventually("the daemon to be ready", || {
            let stream = UnixStream::connect(&daemon.socket).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            (http::get(stream, "/readyz", &[]).status == 200).then_some(())
        });
        daemon
    }

    fn begin(folder: &Path, own: Option<TempDir>, arguments: &[&str]) -> Self {
        Self::begin_behind(&[], folder, own, arguments)
    }

    fn begin_behind(
        before: &[&str],
        folder: &Path,
        own: Option<TempDir>,
        arguments: &[&str],
    ) -> Self {
        let socket = folder.join("tcpmon.sock");
        let path = socket.to_str().expect("UTF-8");
        let mut command =
            tethered_behind(before, &[&["daemon", "--socket", path], arguments].concat());
        let _until_attached = ChangingProbes::hold();
        let mut child = start(command.stdout(Stdio::null()));
        let log = Lines::of(child.stderr.take().expect("a pipe"));
        let mut addresses = Vec::new();
        let mut first = Vec::new();
        loop {
            let Some(line) = log.next() else {
                panic!("{command:?}: {:?}: {}", wait(&mut child), first.join("\n"));
            };
            if let Some((_, rest)) = line.split_once("metrics on http://") {
                let address = rest.strip_suffix("/metrics").and_then(|text| text.parse().ok());
                addresses.push(address.unwrap_or_else(|| panic!("no address: {line}")));
            }
            if line.contains("observing TCP transitions") {
                return Self { child, log, first, addresses, socket, _folder: own };
            }
            first.push(line);
        }
    }

    /// What it wrote to standard error before it was ready.
    pub(crate) fn first_words(&self) -> String {
        self.first.join("\n")
    }

    /// Waits until it writes a line with all these words to standard error, and returns it.
    pub(crate) fn hear(&self, words: &[&str]) -> String {
        loop {
            let line = self.log.next().expect("its end was not expected");
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The Unix socket, for a command line.
    pub(crate) fn socket_text(&self) -> &str {
        self.socket.to_str().expect("UTF-8")
    }

    /// Where it serves HTTP over TCP.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// A connection to its Unix socket.
    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).expect("the daemon's socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        stream
    }

    /// Asks over the Unix socket.
    pub(crate) fn get(&self, route: &str) -> Response<UnixStream> {
        http::get(self.connect(), route, &[])
    }

    /// Asks over TCP.
    pub(crate) fn get_by_tcp(&self, route: &str, headers: &[(&str, &str)]) -> Response<TcpStream> {
        let stream = TcpStream::connect(self.address()).expect("the daemon's port");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        http::get(stream, route, headers)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200);
        let text = answer.text();
        exposition::parse(&text).unwrap_or_else(|why| panic!("{why}"))
    }

    /// A stream of events whose query is `query`. When this returns, whatever happens from then
    /// on is in it: the daemon answers once the probes have been told.
    pub(crate) fn stream(&self, query: &str) -> Body<UnixStream> {
        let answer = self.get(&format!("/api/v1/events?{query}"));
        assert_eq!(answer.status, 200);
        answer.body
    }

    /// Open streams.
    pub(crate) fn streams(&self) -> u64 {
        self.metrics().count("tcpmon_subscribers", &[])
    }

    /// Transitions that the kernel hid from the probe, because they came while it ran on the same
    /// CPU: nothing can tell what they were.
    pub(crate) fn hidden(&self) -> u64 {
        self.metrics().count("tcpmon_events_lost_total", &[("where", "probe")])
    }

    /// Waits until there are so many streams.
    pub(crate) fn await_streams(&self, count: u64) {
        eventually(&format!("{count} streams"), || (self.streams() == count).then_some(()));
    }

    /// Waits until there is one stream more than `before`, and the probes have been told.
    pub(crate) fn await_one_more_stream(&self, before: u64) {
        self.await_streams(before + 1);
        // The metric counts a stream a moment before the probes are told of it; the answer to
        // another one comes after that.
        drop(self.stream("count=1"));
        self.await_streams(before + 1);
    }

    /// Resident memory in bytes: `VmRSS` in /proc/PID/status.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the daemon's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("VmRSS") * 1024
    }

    /// Ends it by a signal.
    pub(crate) fn end(mut self, by: Signal) -> Ended {
        let _until_detached = ChangingProbes::hold();
        let sent = Instant::now();
        signal(&self.child, by);
        let status = wait(&mut self.child);
        let took = sent.elapsed();
        let left_socket = self.socket.exists();
        Ended { code: status.code(), took, left_socket, log: self.log.rest() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _until_detached = ChangingProbes::hold();
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }
}
