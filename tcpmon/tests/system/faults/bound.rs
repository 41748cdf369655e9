//! A daemon that may have so much and no more.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::program::{Finished, finish, signal, start, tcpmon};
use crate::support::{PATIENCE, eventually};

/// Joins the cgroup whose list of processes is `$1`.
const JOIN: &str = "echo $$ > \"$1\" && shift && exec \"$@\"";

/// A cgroup that bounds one thing; gone when dropped.
pub(super) struct Bound {
    folder: PathBuf,
    processes: String,
    /// Names of its files, of which only memory's differ by version.
    limit: String,
    usage: String,
}

impl Bound {
    /// `None` where there is no such controller that may be used.
    pub(super) fn new(controller: &str) -> Option<Self> {
        let name = format!("tcpmon-faults-{}-{controller}", std::process::id());
        let second = Path::new("/sys/fs/cgroup");
        let first = second.join(controller);
        let is_first = first.join("cgroup.procs").exists();
        let root = if is_first {
            first
        } else {
            let controllers = fs::read_to_string(second.join("cgroup.subtree_control")).ok()?;
            if !controllers.split_whitespace().any(|name| name == controller) {
                // Whose it is has the right to switch it on; where nobody may, there is none.
                let wanted = format!("+{controller}");
                fs::write(second.join("cgroup.subtree_control"), wanted).ok()?;
            }
            second.to_owned()
        };
        let folder = root.join(name);
        fs::create_dir(&folder).ok()?;
        let processes = folder.join("cgroup.procs").to_str().expect("UTF-8").to_owned();
        let [limit, usage] = if is_first && controller == "memory" {
            ["memory.limit_in_bytes".to_owned(), "memory.usage_in_bytes".to_owned()]
        } else {
            ["max", "current"].map(|file| format!("{controller}.{file}"))
        };
        Some(Self { folder, processes, limit, usage })
    }

    /// What to start a program behind, so that it is in there.
    pub(super) fn joining(&self) -> [&str; 5] {
        ["sh", "-ec", JOIN, "sh", &self.processes]
    }

    /// How much of it is used now.
    pub(super) fn usage(&self) -> u64 {
        let used = fs::read_to_string(self.folder.join(&self.usage)).expect("its usage");
        used.trim().parse().expect("a number")
    }

    /// Leaves it so much in all.
    pub(super) fn limit(&self, most: u64) {
        fs::write(self.folder.join(&self.limit), most.to_string()).expect("a limit");
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.folder);
    }
}

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

/// What came of a daemon that was started behind that; `None`: it came up, and was ended.
pub(super) fn refusal(before: &[&str], socket: &Path) -> Option<Finished> {
    let text = socket.to_str().expect("UTF-8");
    let arguments = ["daemon", "--socket", text, "--web.listen-address", "127.0.0.1:0"];
    let mut child = start(&mut tcpmon(before, &arguments));
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
