//! One running program that is measured: what it writes, what it uses, and its end.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    proc::{self, Memory, ProgramStats},
    wait,
};

/// How long a program may take to end when it is told to: bpftrace first prints its maps.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long a program that reads events may take to come to rest after the last one.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// CPU time in [`REST_LOOK`] below which it is at rest.
const REST_CPU: Duration = Duration::from_millis(2);
const REST_LOOK: Duration = Duration::from_millis(100);

/// Lines at the beginning of a program's complaints that are kept, beside the last one.
const FIRST_LINES: usize = 3;

/// Room for output between a program and the thread that reads it.
const BUFFER: usize = 1 << 20;

/// What becomes of a program's standard output.
pub(crate) enum Output {
    /// It goes to /dev/null.
    Discard,
    /// Each line is shown to this.
    Lines(Listener),
}

/// Hears lines, one at a time, line ends included.
pub(crate) type Listener = Box<dyn FnMut(&[u8]) + Send>;

/// A program that was started here. It is ended when dropped, and by the kernel if this process
/// dies before it.
pub(crate) struct Tool {
    name: String,
    child: Child,
    said: Arc<Said>,
    readers: Vec<JoinHandle<()>>,
}

/// What a program said on standard error.
#[derive(Default)]
struct Said {
    /// The first lines and the last: one of them names the cause.
    lines: Mutex<Vec<String>>,
    /// Events that it said it lost.
    lost: AtomicU64,
}

impl Said {
    fn hear(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if let Some(lost) = told_loss(&line) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        } else if !line.trim().is_empty() {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.truncate(FIRST_LINES);
            lines.push(line.trim().to_owned());
        }
    }
}

impl Tool {
    /// Starts it. Call it on the main thread: the kernel ends the program with the thread that
    /// started it.
    pub(crate) fn start(name: &str, command: &mut Command, output: Output) -> Result<Self> {
        let stdout = match output {
            Output::Discard => Stdio::null(),
            Output::Lines(_) => Stdio::piped(),
        };
        // Ctrl-C is for this process alone, which ends its children in order.
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).process_group(0);
        // SAFETY: between fork and exec only prctl(2) is called, which takes no lock and no
        // memory.
        unsafe { command.pre_exec(end_with_parent) };
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let said = Arc::<Said>::default();
        let mut readers = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            readers.push(thread::spawn(move || each_line(stderr, |line| said.hear(line))));
        }
        if let (Some(stdout), Output::Lines(mut show)) = (child.stdout.take(), output) {
            readers.push(thread::spawn(move || each_line(stdout, |line| show(line))));
        }
        Ok(Self { name: name.to_owned(), child, said, readers })
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        self.join();
        let lines = self.said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let said = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" / ") };
        bail!("{} ended by itself ({status}) and said: {said}", self.name)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        proc::cpu_time(self.child.id()).with_context(|| format!("no CPU time of {}", self.name))
    }

    /// Memory now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        proc::memory(self.child.id()).with_context(|| format!("no memory of {}", self.name))
    }

    /// The kernel's account of its BPF programs.
    pub(super) fn programs(&self) -> Result<ProgramStats> {
        proc::programs(self.child.id()).with_context(|| format!("no programs of {}", self.name))
    }

    /// Events that it said on standard error it lost.
    pub(crate) fn told_lost(&self) -> u64 {
        self.said.lost.load(Ordering::Relaxed)
    }

    /// Waits until it has worked off what the load gave it.
    pub(crate) fn await_rest(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut before = self.cpu_time()?;
        loop {
            wait::pause(REST_LOOK)?;
            self.check()?;
            let now = self.cpu_time()?;
            if now.saturating_sub(before) < REST_CPU || begun.elapsed() > REST_LIMIT {
                return Ok(());
            }
            before = now;
        }
    }

    /// Ends it as Ctrl-C would, and waits until all it had to say has been read.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let begun = Instant::now();
        // Not yet waited for, so the pid is still its own.
        let mut running = matches!(self.child.try_wait(), Ok(None));
        if let (true, Some(pid)) = (running, pid) {
            let _told = kill_process(pid, Signal::INT);
        }
        while running && begun.elapsed() < FAREWELL {
            thread::sleep(Duration::from_millis(5));
            running = matches!(self.child.try_wait(), Ok(None));
        }
        if running {
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
        self.join();
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader that panicked has said so; the program's end matters more.
            let _ended = reader.join();
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.end();
    }
}

/// Has the kernel end this process when the thread that started it ends (prctl(2)).
fn end_with_parent() -> std::io::Result<()> {
    let signal = libc::c_ulong::from(Signal::KILL.as_raw().unsigned_abs());
    // SAFETY: PR_SET_PDEATHSIG takes a number and touches no memory.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn each_line(from: impl Read, mut show: impl FnMut(&[u8])) {
    let mut from = BufReader::with_capacity(BUFFER, from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        show(&line);
        line.clear();
    }
}

/// The number of events in a line that tells a loss: `lost 12 events on CPU #1` (libbpf-tools),
/// `Possibly lost 12 samples` (bcc), `Lost 12 events` (bpftrace).
pub(crate) fn told_loss(line: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(3).find_map(|words| match words {
        [lost, count, "events" | "samples"] if lost.eq_ignore_ascii_case("lost") => {
            count.parse().ok()
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn losses_are_read_as_each_tool_tells_them() {
        for (line, lost) in [
            ("lost 12 events on CPU #1", Some(12)),
            ("Possibly lost 3 samples", Some(3)),
            ("Lost 4 events", Some(4)),
            ("lost its events", None),
            ("lost 4", None),
            ("", None),
        ] {
            assert_eq!(told_loss(line), lost, "{line}");
        }
    }

    #[test]
    fn lines_and_losses_are_heard_and_the_program_is_ended() {
        let (sender, lines) = mpsc::channel();
        let output = Output::Lines(Box::new(move |line: &[u8]| {
            let _heard = sender.send(line.to_vec());
        }));
        let script = "echo lost 7 events on CPU >&2; echo first; exec sleep 60";
        let mut tool =
            Tool::start("sh", Command::new("sh").args(["-c", script]), output).expect("sh");
        let limit = Duration::from_secs(20);
        assert_eq!(lines.recv_timeout(limit).expect("a line"), b"first\n");
        tool.check().expect("it runs");
        let pid = tool.child.id();
        let said = Arc::clone(&tool.said);
        tool.stop();
        assert_eq!(said.lost.load(Ordering::Relaxed), 7);
        assert!(proc::memory(pid).is_err(), "it is gone");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let command = &mut Command::new("sh");
        command.args(["-c", "for word in a b c d e f; do echo $word >&2; echo >&2; done; exit 3"]);
        let mut tool = Tool::start("sh", command, Output::Discard).expect("sh");
        let begun = Instant::now();
        let error = loop {
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not end");
            if let Err(error) = tool.check() {
                break error.to_string();
            }
        };
        assert!(error.ends_with("(exit status: 3) and said: a / b / c / f"), "{error}");
    }
}
