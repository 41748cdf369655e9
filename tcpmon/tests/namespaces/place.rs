//! Namespaces of every kind, gone when dropped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Runs a command, which must succeed, and returns what it prints.
pub(crate) fn run(line: &[&str]) -> String {
    let output = Command::new(line[0]).args(&line[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{line:?}: {error}"));
    assert!(output.status.success(), "{line:?} (these tests run as root): {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The number of the namespace at `path`.
pub(crate) fn inode(path: impl AsRef<Path>) -> u32 {
    let path = path.as_ref();
    let metadata = fs::metadata(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    u32::try_from(metadata.ino()).expect("a namespace's number has 32 bits")
}

/// The host's namespace: that of process 1, or ours where that may not be looked at.
pub(crate) fn host() -> u32 {
    let of_first = fs::metadata("/proc/1/ns/net").is_ok();
    inode(if of_first { "/proc/1/ns/net" } else { "/proc/self/ns/net" })
}

/// Takes a capability from this thread, or gives it back.
pub(crate) fn capable(which: CapabilitySet, may: bool) {
    let mut sets = capabilities(None).expect("capabilities");
    sets.effective.set(which, may);
    set_capabilities(None, sets).expect("capabilities");
}

/// A name for this test alone.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("tcpmon-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A namespace of `ip netns`.
pub(crate) struct Named(pub(crate) String);

impl Named {
    pub(crate) fn new() -> Self {
        Self::called(unique())
    }

    pub(crate) fn called(name: String) -> Self {
        run(&["ip", "netns", "add", &name]);
        let named = Self(name);
        run(&["ip", "-n", &named.0, "link", "set", "lo", "up"]);
        named
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    pub(crate) fn inode(&self) -> u32 {
        inode(self.path())
    }

    /// Sets a sysctl in it, named as under /proc/sys/net/ipv4.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let write = format!("echo '{value}' > /proc/sys/net/ipv4/{name}");
        run(&["ip", "netns", "exec", &self.0, "sh", "-ec", &write]);
    }

    /// A file as another program reads it in the namespace.
    pub(crate) fn cat(&self, file: &str) -> String {
        let net = format!("--net={}", self.path().display());
        run(&["nsenter", &net, "cat", file])
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // It may be gone already, when that was the test.
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Starts a command that says `ready`, and then lives as long as its standard input.
pub(crate) fn ready(command: &mut Command) -> Child {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = pipes.spawn().expect("a process");
    let mut line = String::new();
    let output = child.stdout.take().expect("its output");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n", "these tests run as root");
    child
}

/// A process in a namespace of its own.
pub(crate) struct Alone(Child);

impl Alone {
    pub(crate) fn new() -> Self {
        Self::in_cgroup(None)
    }

    /// One that is in this cgroup before it makes its namespace.
    pub(crate) fn in_cgroup(cgroup: Option<&Path>) -> Self {
        let procs = cgroup.map_or("/dev/null".into(), |cgroup| cgroup.join("cgroup.procs"));
        // It ends when nobody holds its standard input any more, however the test ends.
        let script = "echo $$ > \"$1\"; exec unshare -n sh -c 'echo ready; exec cat'";
        let mut shell = Command::new("sh");
        let shell = shell.args(["-ec", script, "sh"]).arg(procs);
        Self(ready(shell))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }

    pub(crate) fn inode(&self) -> u32 {
        inode(self.path())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A namespace that only a mount keeps alive, as Docker has it.
pub(crate) struct Mounted {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Mounted {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("net space");
        fs::write(&path, "").expect("a file");
        run(&["unshare", &format!("--net={}", path.display()), "true"]);
        Self { _folder: folder, path }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg(&self.path).output();
    }
}

/// A cgroup of version 2.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let point = mounts.lines().find_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            (words[2] == "cgroup2").then(|| words[1])
        });
        let point = point.expect("a unified hierarchy; with version 1 alone mount one beside it");
        let path = Path::new(point).join(name);
        fs::create_dir(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.0);
    }
}
