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
        // One for each user: in a sticky folder not even root may open another's to write
        // (fs.protected_regular, Linux' admin-guide/sysctl/fs.rst).
        let user = rustix::process::geteuid().as_raw();
        let path = std::env::temp_dir().join(format!("tcpmon-system-tests-{user}.lock"));
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
