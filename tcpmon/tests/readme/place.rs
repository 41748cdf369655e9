//! Private places for a daemon, and the programs that the pages speak of.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::pages::root;

pub(crate) const TCPMON: &str = env!("CARGO_BIN_EXE_tcpmon");

/// What anything here may take, on a busy machine, in a debug build.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn help(program: &Path, command: &str) -> String {
    let output = Command::new(program).args([command, "--help"]).output().expect("a program");
    assert!(output.status.success(), "{} {command}: {output:?}", program.display());
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The program of xtask that belongs to this tree.
pub(crate) fn xtask() -> PathBuf {
    let folder = Path::new(TCPMON).parent().expect("a folder");
    // cargo builds no binary of another package for this test, unless it tests that too; where it
    // is not cargo that runs this (but sudo, for `cargo xtask test`), that has been done.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.current_dir(root()).args([
            "build",
            "--quiet",
            "--package",
            "xtask",
            "--bin",
            "xtask",
        ]);
        build.arg("--target-dir").arg(folder.parent().expect("a target folder"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success(), "xtask does not build");
    }
    folder.join("xtask")
}

/// A process and all that it starts, ended together.
pub(crate) struct Group(pub(crate) Child);

impl Group {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).stdin(Stdio::null()).spawn().expect("a process"))
    }

    pub(crate) fn end(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads lines until one has `words`; the lines in one where none has.
pub(crate) fn line_with(
    source: impl std::io::Read,
    words: &str,
    seen: &mut Vec<String>,
) -> Result<(), String> {
    for line in BufReader::new(source).lines() {
        seen.push(line.expect("UTF-8"));
        if seen.last().is_some_and(|line| line.contains(words)) {
            return Ok(());
        }
    }
    Err(seen.join("\n"))
}

/// A daemon at private places, and programs in front of the system's that know them.
pub(crate) struct Place {
    folder: TempDir,
    address: String,
    _daemon: Group,
}

impl Place {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
        let folder = tempfile::tempdir().expect("a folder");
        let mut daemon = Group::start(
            Command::new(TCPMON)
                .args(["daemon", "--web.listen-address", "127.0.0.1:0", "--socket"])
                .arg(folder.path().join("tcpmon.sock"))
                .stderr(Stdio::piped()),
        );
        let mut seen = Vec::new();
        line_with(daemon.0.stderr.take().expect("a pipe"), "observing", &mut seen)
            .unwrap_or_else(|log| panic!("the daemon does not start: {log}"));
        let address = seen
            .iter()
            .find_map(|line| line.split_once("http://")?.1.strip_suffix("/metrics"))
            .expect("an address")
            .to_owned();
        Self { folder, address, _daemon: daemon }
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("tcpmon.sock").display().to_string()
    }

    pub(crate) fn get(&self, route: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("the daemon");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        write!(stream, "GET {route} HTTP/1.1\r\nHost: tcpmon\r\nConnection: close\r\n\r\n")
            .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{route}: {answer}");
        answer
    }

    /// Waits until so many streams are open, as long as `going` says that it makes sense.
    pub(crate) fn wait_for_streams(&self, count: u32, mut going: impl FnMut() -> bool) -> bool {
        let wanted = format!("\ntcpmon_subscribers {count}\n");
        let deadline = Instant::now() + PATIENCE;
        while going() && Instant::now() < deadline {
            if self.get("/metrics").contains(&wanted) {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Programs of the names that people type.
    pub(crate) fn programs(&self) -> PathBuf {
        let bin = self.folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        let socket = self.socket();
        let tcpmon = format!(
            "case \" $* \" in *' --socket '*) ;; *) case $1 in\n\
             tail|report|advise|explain) own=$1; shift; set -- \"$own\" --socket {socket} \"$@\";;\n\
             daemon) shift; set -- daemon --socket {socket}.2 --web.listen-address 127.0.0.1:0 \"$@\";;\n\
             esac;; esac\nexec {TCPMON} \"$@\"\n"
        );
        let cargo =
            format!("[ \"$1\" = xtask ] || exit 99\nshift\nexec {} \"$@\"\n", xtask().display());
        for (name, script) in
            [("tcpmon", tcpmon), ("cargo", cargo), ("sudo", "exec \"$@\"\n".into())]
        {
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}")).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("rights");
        }
        bin
    }

    /// A command of a page, as it runs here.
    pub(crate) fn shell(&self, bin: &Path, text: &str) -> Command {
        let text = text
            .replace("target/release/tcpmon", "tcpmon")
            .replace("127.0.0.1:10066", &self.address)
            .replace("/run/tcpmon/tcpmon.sock", &self.socket());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("timeout");
        command
            .args([&format!("{}", PATIENCE.as_secs()), "sh", "-c", &text])
            .env("PATH", format!("{}:{path}", bin.display()))
            .current_dir(root())
            .stdin(Stdio::null());
        command
    }
}
