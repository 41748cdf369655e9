//! Names that somebody chose to have a terminal obey them: a process's and a namespace's, on every
//! face that shows them.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::lab::inside;
use crate::support::program::{Finished, run, tcpmon};
use crate::support::tail::Tail;
use crate::support::turn::Turn;

/// Clears a screen; the same by one character of the C1 set (ECMA-48); a line's end.
const EVIL: &str = "e\u{1b}[2J\u{9b}2J\nvil";
/// Where [`connects_where_it_is_told`] connects to.
const TO: &str = "TCPMON_TEST_CONNECT_TO";

/// Not a test by itself: what a process of an evil name does.
#[test]
fn connects_where_it_is_told() {
    let Ok(to) = std::env::var(TO) else { return };
    TcpStream::connect(to).expect("a connection");
}

/// A namespace made as by ip-netns(8), gone when this is dropped.
struct Netns(OsString);

impl Netns {
    fn add(name: &OsStr) -> Self {
        let made = Self(name.to_owned());
        made.ip(&["netns", "add"], &[]);
        made.ip(&["-n"], &["link", "set", "lo", "up"]);
        made
    }

    fn ip(&self, before: &[&str], after: &[&str]) {
        let done = Command::new("ip").args(before).arg(&self.0).args(after).status();
        assert!(done.expect("ip").success(), "{before:?} {after:?}");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete"]).arg(&self.0).status();
    }
}

/// Runs the program that this test is in under an evil name, to connect to `to`.
fn connect_by_an_evil_name(folder: &Path, netns: &Netns, to: SocketAddr) {
    let program = folder.join(EVIL);
    symlink(std::env::current_exe().expect("this program"), &program).expect("a link");
    let done = Command::new("ip")
        .args(["netns", "exec"])
        .arg(&netns.0)
        .arg(&program)
        .args(["hostile::connects_where_it_is_told", "--exact"])
        .env(TO, to.to_string())
        .stdout(Stdio::null())
        .status();
    assert!(done.expect("ip").success());
}

fn assert_tame(face: &str, text: &str) {
    let wild = text.lines().find(|line| line.contains(char::is_control));
    assert_eq!(wild, None, "{face}");
    assert!(!text.lines().any(|line| line.starts_with("vil")), "{face}: a name broke a line");
}

#[test]
fn names_speak_to_no_terminal() {
    let turn = Turn::shared();
    let folder = tempfile::tempdir().expect("a folder");
    let netns = Netns::add(OsStr::new(&format!("tcpmon-lab-{}-{EVIL}", std::process::id())));
    let daemon = Daemon::start(&turn, &["--log-level=debug"]);
    let name = netns.0.to_str().expect("text").to_owned();
    let listener = inside(&name, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let to = listener.local_addr().expect("an address");
    let port = to.port().to_string();
    let json = Tail::start(&daemon, &["--netns", &name, "--dport", &port]);
    let lines = Tail::start_plain(&daemon, &["--netns", &name, "--dport", &port]);
    connect_by_an_evil_name(folder.path(), &netns, to);
    drop(listener);

    let seen = json.events(2);
    assert_eq!(seen[0].comm.as_deref(), Some(EVIL), "which fits the kernel's fifteen bytes");
    for _ in 0..3 {
        let line = lines.lines.next().expect("a line");
        assert_tame("tail", &line);
    }
    let metrics = eventually("the namespace to be watched", || {
        let text = daemon.get("/metrics").text();
        text.contains("vil (escaped)").then_some(text)
    });
    assert_tame("/metrics", &metrics);
    for route in ["/api/v1/report", "/api/v1/alerts", "/api/v1/advice"] {
        let text = daemon.get(route).text();
        assert_tame(route, &text);
    }
    let Finished { code, stdout, .. } =
        run(&mut tcpmon(&[], &["report", "--socket", daemon.socket_text()]));
    assert_eq!(code, Some(0));
    assert_tame("report", &stdout);
    let ended = daemon.end(rustix::process::Signal::TERM);
    assert_tame("the log", &ended.log.join("\n"));
}
