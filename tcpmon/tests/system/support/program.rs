//! Running programs, never longer than a test may wait.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually};

/// The program under test.
pub(crate) const TCPMON: &str = env!("CARGO_BIN_EXE_tcpmon");

/// What became of a program.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command that runs `tcpmon` behind `before` (`setpriv ...`), which may be empty.
pub(crate) fn tcpmon<S: AsRef<OsStr>>(before: &[&str], args: &[S]) -> Command {
    let mut words = before.iter().copied().chain([TCPMON]);
    let mut command = Command::new(words.next().unwrap_or(TCPMON));
    command.args(words).args(args);
    command
}

/// As [`tcpmon`], for a program that must not outlive this thread, whatever ends it.
pub(crate) fn tethered<S: AsRef<OsStr>>(args: &[S]) -> Command {
    tethered_behind(&[], args)
}

/// As [`tethered`], behind a program that becomes it by exec.
pub(crate) fn tethered_behind<S: AsRef<OsStr>>(before: &[&str], args: &[S]) -> Command {
    tcpmon(&[before, &["setpriv", "--pdeathsig", "KILL", "--"]].concat(), args)
}

/// Runs the command to its end.
pub(crate) fn run(command: &mut Command) -> Finished {
    finish(start(command.stdout(Stdio::piped())))
}

/// Starts the command, its standard error in a pipe.
pub(crate) fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits for the end of a program.
pub(crate) fn finish(mut child: Child) -> Finished {
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = wait(&mut child);
    let text = |pipe: Option<Receiver<String>>| {
        pipe.map_or_else(String::new, |text| text.recv_timeout(PATIENCE).expect("end of a pipe"))
    };
    Finished { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let _read = pipe.read_to_end(&mut text);
        // The test may have given up.
        let _sent = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// Waits for the end of a program, and makes it end if it does not.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the program to end", || child.try_wait().expect("a child"))
    }));
    ended.unwrap_or_else(|panic| {
        let _gone = child.kill();
        std::panic::resume_unwind(panic)
    })
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("a signal to our own child");
}

/// The lines of a pipe or socket, read by a thread, so that they can be waited for within bounds.
pub(crate) struct Lines {
    lines: Mutex<Receiver<String>>,
}

impl Lines {
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines: Mutex::new(lines) }
    }

    /// The next line, if it comes in time.
    fn receive(&self, at_most: Duration) -> Result<String, RecvTimeoutError> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(at_most)
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&self) -> Option<String> {
        match self.receive(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {PATIENCE:?}"),
        }
    }

    /// The next line, if it comes within so long.
    pub(crate) fn next_within(&self, at_most: Duration) -> Option<String> {
        self.receive(at_most).ok()
    }

    /// All lines to the end.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}
