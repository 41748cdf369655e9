//! A daemon as systemd would start it, and what it says to systemd.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{
            fs::chown,
            net::{UnixDatagram, UnixStream},
            process::ExitStatusExt as _,
        },
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long what must come is waited for: a machine without KVM is ten times slower.
const PATIENCE: Duration = Duration::from_mins(1);
/// A user that has nothing.
const NOBODY: u32 = 64_123;

pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "there never was {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Capabilities as bits.
pub(crate) fn capabilities(names: &[&str]) -> u64 {
    let bit = |name: &&str| match *name {
        "CAP_DAC_READ_SEARCH" => 1 << 2,
        "CAP_SYS_PTRACE" => 1 << 19,
        "CAP_SYS_ADMIN" => 1 << 21,
        "CAP_PERFMON" => 1 << 38,
        "CAP_BPF" => 1u64 << 39,
        other => panic!("what is {other}?"),
    };
    names.iter().map(bit).sum()
}

pub(crate) struct Daemon {
    child: Child,
    pid: u32,
    address: SocketAddr,
    socket: PathBuf,
    lines: Receiver<String>,
    folder: TempDir,
}

impl Daemon {
    /// Starts it with these arguments, and whatever `set_up` adds.
    pub(crate) fn start(arguments: &[&str], set_up: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcpmon"));
        set_up(&mut command);
        Self::run(command, arguments, tempfile::tempdir().expect("a folder"))
    }

    fn run(mut command: Command, arguments: &[&str], folder: TempDir) -> Self {
        let socket = folder.path().join("run/tcpmon.sock");
        let given = ["daemon", "--web.listen-address", "127.0.0.1:0", "--socket"];
        command.args(given).arg(&socket).args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut address = None;
        loop {
            let line = lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{command:?} ends or hangs"));
            if let Some((_, rest)) = line.split_once("metrics on http://") {
                address = rest.strip_suffix("/metrics").and_then(|text| text.parse().ok());
            }
            if line.contains("observing TCP transitions") {
                break;
            }
            assert!(!line.contains("tcpmon: cannot"), "{line}");
        }
        let (pid, address) = (child.id(), address.expect("an address"));
        Self { child, pid, address, socket, lines, folder }
    }

    /// As an ordinary user with those capabilities and no more, for ever, as a unit does.
    pub(crate) fn with_capabilities(names: &[String], arguments: &[&str]) -> Self {
        let folder = open_folder();
        let plus = |name: &String| format!("+{}", name["CAP_".len()..].to_lowercase());
        let set = names.iter().map(plus).collect::<Vec<_>>().join(",");
        let mut command = Command::new("setpriv");
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"]);
        for which in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.arg(format!("{which}=-all,{set}"));
        }
        // The build's folder may be closed to others; an open file is not.
        let program = folder.path().join("tcpmon");
        fs::copy(env!("CARGO_BIN_EXE_tcpmon"), &program).expect("copied");
        command.arg(program);
        Self::run(command, arguments, folder)
    }

    /// With a note of all its system calls.
    pub(crate) fn traced() -> Self {
        let folder = open_folder();
        let mut command = Command::new("strace");
        command
            .args(["--follow-forks", "--quiet=all", "--output"])
            .arg(folder.path().join("trace"));
        command.arg(env!("CARGO_BIN_EXE_tcpmon"));
        let mut daemon = Self::run(command, &[], folder);
        let children = format!("/proc/{0}/task/{0}/children", daemon.pid);
        let children = fs::read_to_string(children).expect("strace's child");
        daemon.pid = children.trim().parse().expect("one child");
        daemon
    }

    /// Told where to tell how it is.
    pub(crate) fn notifying(told: &Notifications, watchdog: Duration) -> Self {
        Self::start(&[], |command| {
            command.env("NOTIFY_SOCKET", told.path());
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        })
    }

    /// With a socket that is listened on already.
    pub(crate) fn activated(listener: TcpListener) -> Self {
        let mut command = Command::new("sh");
        // The process number is not known before there is a process.
        let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_tcpmon")]);
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        Self::run(command, &[], tempfile::tempdir().expect("a folder"))
    }

    /// Exit code and words of one that does not start.
    pub(crate) fn refused(arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcpmon"));
        let output = command.arg("daemon").args(arguments).output().expect("run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn metrics(&self) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        answer
    }

    /// Whether all is attached that is there.
    pub(crate) fn has_its_probes(&self) {
        let metrics = self.metrics();
        let attached = metrics.lines().filter(|line| line.starts_with("tcpmon_probe_attached{"));
        let attached: Vec<_> = attached.collect();
        assert!(!attached.is_empty(), "{metrics}");
        assert!(attached.iter().all(|line| line.ends_with(" 1")), "{attached:?}");
    }

    /// The value of a metric without labels.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Names of its threads, and the capabilities that each may use.
    pub(crate) fn threads(&self) -> Vec<(String, u64)> {
        let folder = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("threads");
        let status = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("status")).ok();
        let told = folder.flatten().filter_map(status);
        let field = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        told.map(|status| {
            let [permitted, effective] = ["CapPrm:", "CapEff:"]
                .map(|set| u64::from_str_radix(&field(&status, set), 16).expect("bits"));
            assert_eq!(permitted, effective, "what may be taken up again is not dropped");
            assert_eq!(field(&status, "NoNewPrivs:"), "1");
            (field(&status, "Name:"), effective)
        })
        .collect()
    }

    /// Ids of the BPF programs that it holds.
    pub(crate) fn programs(&self) -> BTreeSet<String> {
        let folder = fs::read_dir(format!("/proc/{}/fdinfo", self.pid)).expect("descriptors");
        let read = |entry: fs::DirEntry| fs::read_to_string(entry.path()).ok();
        let texts: Vec<_> = folder.flatten().filter_map(read).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines.filter(|line| line.starts_with("prog_id:")).map(str::to_owned).collect()
    }

    /// What strace has noted since the program began.
    pub(crate) fn system_calls(&self) -> BTreeSet<String> {
        let trace = self.trace();
        let name = |line: &str| {
            let call = line.split_whitespace().nth(1)?;
            let name = call.split('(').next().filter(|name| call.len() > name.len())?;
            let plain =
                |letter: char| letter.is_ascii_lowercase() || matches!(letter, '0'..='9' | '_');
            name.chars().all(plain).then(|| name.to_owned())
        };
        trace.lines().filter_map(name).collect()
    }

    /// The address families of all sockets that it has asked for, as `AF_INET`.
    pub(crate) fn address_families(&self) -> BTreeSet<String> {
        let trace = self.trace();
        let family = |line: &str| {
            let (_, arguments) =
                line.split_once(" socket(").or_else(|| line.split_once(" socketpair("))?;
            Some(arguments.split(',').next()?.to_owned())
        };
        trace.lines().filter_map(family).collect()
    }

    fn trace(&self) -> String {
        fs::read_to_string(self.folder.path().join("trace")).expect("a trace")
    }

    pub(crate) fn wait_for_line(&self, words: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line.contains(words) {
                return;
            }
            seen.push(line);
        }
        panic!("{words:?} was not said, but {seen:?}");
    }

    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops it, does something, and lets it go on.
    pub(crate) fn stop_and_go_on(&self, work: impl FnOnce()) {
        self.signal(Signal::STOP);
        work();
        self.signal(Signal::CONT);
    }

    /// The exit code of its end by SIGTERM.
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("its end");
        status.code().or_else(|| status.signal().map(|signal| -signal))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that [`NOBODY`] may go through, with one in it that is its own.
fn open_folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let own = folder.path().join("run");
    fs::create_dir(&own).expect("made");
    chown(&own, Some(NOBODY), Some(NOBODY)).expect("given");
    folder
}

/// What systemd would hear.
pub(crate) struct Notifications {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Notifications {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        Self { socket, folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    pub(crate) fn next_within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).expect("a bound");
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// Throws away what was said so far.
    pub(crate) fn forget(&self) {
        while self.next_within(Duration::from_millis(1)).is_some() {}
    }

    /// The next message with that line; others are passed over.
    pub(crate) fn wait_for(&self, wanted: &str) -> String {
        let mut seen = Vec::new();
        while let Some(message) = self.next_within(PATIENCE) {
            if message.lines().any(|line| line == wanted) {
                return message;
            }
            seen.push(message);
        }
        panic!("{wanted} was not told, but {seen:?}");
    }
}
