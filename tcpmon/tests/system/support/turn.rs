//! Turns: tests that make TCP traffic, and those that cannot bear that of others.

use std::fs::File;

/// Holds others off until it is dropped. A lock on a file, so that it also holds between
/// processes: two runs of the tests, or a runner that gives each test a process of its own.
pub(crate) struct Turn {
    _lock: File,
}

impl Turn {
    /// For a test that makes traffic, beside others that do.
    pub(crate) fn shared() -> Self {
        let file = Self::file();
        file.lock_shared().expect("a shared lock");
        Self { _lock: file }
    }

    /// For a test that needs the machine for itself.
    pub(crate) fn alone() -> Self {
        let file = Self::file();
        file.lock().expect("a lock");
        Self { _lock: file }
    }

    fn file() -> File {
        lock_file("tests")
    }
}

/// Keeps every test from attaching probes, and from letting go of them, until it is dropped.
///
/// While the kernel changes who listens to a tracepoint, an event may reach none of those who do:
/// on Linux 6.18, of 100,000 sockets that entered the time-wait table while probes came and went
/// at a thousand a second, 92 were seen by neither of two daemons, and no run was counted as
/// missed; without that, none in 250,000. So who counts to the unit holds this meanwhile.
pub(crate) struct SteadyProbes {
    _lock: File,
}

impl SteadyProbes {
    pub(crate) fn hold() -> Self {
        let lock = lock_file("probes");
        in_line(|| lock.lock_shared());
        Self { _lock: lock }
    }
}

/// Held by who attaches probes, or lets go of them. Not to be taken by who holds [`SteadyProbes`].
pub(crate) struct ChangingProbes {
    _lock: File,
}

impl ChangingProbes {
    pub(crate) fn hold() -> Self {
        let lock = lock_file("probes");
        in_line(|| lock.lock());
        Self { _lock: lock }
    }
}

/// Whoever comes first is served first: those who share a lock would else pass by one who wants it
/// alone, as long as one of them holds it.
fn in_line(take: impl FnOnce() -> std::io::Result<()>) {
    let line = lock_file("line");
    line.lock().expect("a place in the line");
    take().expect("a lock");
}

fn lock_file(name: &str) -> File {
    // One for each user: in a sticky folder not even root may open another's to write
    // (fs.protected_regular, Linux' admin-guide/sysctl/fs.rst).
    let user = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("tcpmon-system-{name}-{user}.lock"));
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
