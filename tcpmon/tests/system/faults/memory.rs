//! No memory left: the kernel ends the daemon, and the next one is right.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use xtask::lab::{Addresses, Recipe};

use super::{await_the_end_of, the_next_one_is_right};
use crate::ending::program_ids;
use crate::support::daemon::Daemon;
use crate::support::program::{Finished, finish, signal, start, tcpmon};
use crate::support::turn::Turn;
use crate::support::{PATIENCE, eventually, lab, skipped};

/// Joins the cgroup whose list of processes is `$1`.
const JOIN: &str = "echo $$ > \"$1\" && shift && exec \"$@\"";
/// Too little for what the subscribers that do not read make it keep.
const ROOM: u64 = 1 << 20;
const SLEEPERS: usize = 60;
const PIECE: u64 = 1_000;

/// A cgroup that bounds memory; gone when dropped.
struct Bound {
    folder: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Bound {
    /// `None` where there is no memory controller that may be used.
    fn new() -> Option<Self> {
        let name = format!("tcpmon-faults-{}", std::process::id());
        let second = Path::new("/sys/fs/cgroup");
        let first = second.join("memory");
        let (root, limit, usage) = if first.join("memory.limit_in_bytes").exists() {
            (first, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            let controllers = fs::read_to_string(second.join("cgroup.subtree_control")).ok()?;
            if !controllers.split_whitespace().any(|name| name == "memory") {
                // Whose it is has the right to switch it on; where nobody may, there is none.
                fs::write(second.join("cgroup.subtree_control"), "+memory").ok()?;
            }
            (second.to_owned(), "memory.max", "memory.current")
        };
        let folder = root.join(name);
        fs::create_dir(&folder).ok()?;
        Some(Self { folder, limit, usage })
    }

    fn processes(&self) -> String {
        self.folder.join("cgroup.procs").to_str().expect("UTF-8").to_owned()
    }

    /// Leaves it so much more than it uses now.
    fn leave(&self, room: u64) {
        let used = fs::read_to_string(self.folder.join(self.usage)).expect("its usage");
        let used: u64 = used.trim().parse().expect("bytes");
        fs::write(self.folder.join(self.limit), (used + room).to_string()).expect("a limit");
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.folder);
    }
}

#[test]
fn out_of_memory_it_is_ended_leaves_no_probe_and_the_next_one_is_right() {
    let Some(bound) = Bound::new() else {
        return skipped("out of memory", "cgroup with a memory controller");
    };
    let turn = Turn::shared();
    let mut lab = lab::open(Addresses::Ipv4);
    let processes = bound.processes();
    let before = ["sh", "-ec", JOIN, "sh", &processes];
    let queue = ["--subscriber-queue-bytes", "67108864"];
    let daemon = Daemon::start_behind(&turn, &before, &queue);
    let programs = program_ids(daemon.pid());
    let sleepers: Vec<_> = (0..SLEEPERS).map(|_| daemon.stream("")).collect();
    bound.leave(ROOM);
    let process = PathBuf::from(format!("/proc/{}/fd", daemon.pid()));
    // A process that was killed has no descriptors, waited for or not.
    let is_gone = || fs::read_dir(&process).map_or(true, |mut all| all.next().is_none());
    eventually("the kernel to end it", || {
        // Each connection succeeds, whatever becomes of the daemon.
        lab.perform(Recipe::TimeWait, Some(PIECE)).expect("a load");
        is_gone().then_some(())
    });
    let ended = daemon.end(Signal::TERM);
    assert_eq!(ended.code, None, "ended by a signal: {ended:?}");
    await_the_end_of(&programs);
    drop(sleepers);
    the_next_one_is_right(&turn, &mut lab, 300);
}

/// MiB of address space, from what may be enough for the kernel's type information to what is not
/// enough for the program's own pages: how much that is depends on how it was linked.
const SPACES: [u64; 5] = [48, 40, 32, 24, 16];

/// Whether a daemon answers, be it that it is not well.
fn answers(socket: &Path) -> bool {
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.0 "))
    });
    asked.unwrap_or(false)
}

/// What came of a daemon in so much space; `None`: it came up, and was ended.
fn started_in(space: u64, socket: &Path) -> Option<Finished> {
    let limit = format!("--as={}", space << 20);
    let text = socket.to_str().expect("UTF-8");
    let arguments = ["daemon", "--socket", text, "--web.listen-address", "127.0.0.1:0"];
    let mut child = start(&mut tcpmon(&["prlimit", &limit], &arguments));
    let is_up = eventually("a daemon that is up or has ended", || {
        let ended = child.try_wait().expect("a child").is_some();
        (ended || answers(socket)).then_some(!ended)
    });
    if is_up {
        signal(&child, Signal::TERM);
    }
    let ended = finish(child);
    (!is_up).then_some(ended)
}

#[test]
fn with_too_little_memory_to_start_it_says_so_or_is_ended_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let refused: Vec<Finished> =
        SPACES.into_iter().filter_map(|space| started_in(space, &socket)).collect();
    assert!(!refused.is_empty(), "it starts in {SPACES:?} MiB");
    for ended in refused {
        let told = &ended.stderr;
        match ended.code {
            // It is killed, or the linker at run time cannot begin it: these are not its words.
            None | Some(127) => {}
            code => assert!(code == Some(1) && told.contains("memory"), "{ended:?}"),
        }
        assert!(!told.contains("panicked"), "{told}");
    }
    // The next one has no need of anybody's help.
    let turn = Turn::shared();
    let next = Daemon::start_at(&turn, folder.path(), &["--web.listen-address", "127.0.0.1:0"]);
    assert_eq!(next.get("/healthz").status, 200);
}
