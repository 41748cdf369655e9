//! The daemon as a service: the unit files, with exactly the privileges that they give, and what
//! systemd tells it and is told. Loads probes, so it needs root.

#[path = "service/daemon.rs"]
mod daemon;
#[path = "service/units.rs"]
mod units;

use daemon::{Daemon, Notifications, capabilities, eventually};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};
use units::{Root, Unit};

/// What systemd-analyze says, and what the page says that it says.
#[test]
fn the_units_are_in_order_and_the_page_has_their_scores() {
    let Some(()) = units::has_systemd_analyze() else { return };
    let page = units::read("docs/security.md");
    for (drop_in, namespaces, below) in [(None, "all", 3.0), (Some("host.conf"), "host", 2.0)] {
        let root = Root::new(drop_in);
        root.verify(&["tcpmon.service", "tcpmon.socket"]);
        let score = root.exposure("tcpmon.service");
        assert!(score < below, "{namespaces}: {score}");
        let line = format!("| `--namespaces {namespaces}` | {score:.1} |");
        assert!(page.contains(&line), "docs/security.md does not have {line:?}");
    }
}

/// A network namespace of nobody's, until it is dropped.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "300"]).spawn();
        let elsewhere = Self(child.expect("unshare"));
        let own = fs::metadata("/proc/self/ns/net").expect("procfs").ino();
        eventually("a namespace", || (elsewhere.inode() != own).then_some(()));
        elsewhere
    }

    fn inode(&self) -> u64 {
        fs::metadata(format!("/proc/{}/ns/net", self.0.id())).expect("procfs").ino()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_unit_s_capabilities_do_and_are_dropped_thread_by_thread() {
    let elsewhere = Elsewhere::new();
    let unit = Unit::new(None);
    assert_eq!(
        unit.capabilities("AmbientCapabilities"),
        unit.capabilities("CapabilityBoundingSet")
    );
    let mut daemon = Daemon::with_capabilities(&unit.capabilities("AmbientCapabilities"), &[]);
    let label = format!("netns=\"{}\"", elsewhere.inode());
    eventually("the other namespace", || daemon.metrics().contains(&label).then_some(()));
    daemon.has_its_probes();
    let others = ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"];
    let survey = [&others[..], &["CAP_SYS_ADMIN"]].concat();
    for (thread, held) in daemon.threads() {
        let expected = if thread == "tcpmon-survey" { &survey[..] } else { &others };
        assert_eq!(held & !old_kernels_own(), capabilities(expected), "{thread}: {held:x}");
    }
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn the_host_s_capabilities_do_and_none_is_left() {
    let unit = Unit::new(Some("host.conf"));
    let given = unit.capabilities("AmbientCapabilities");
    assert_eq!(given, ["CAP_BPF", "CAP_PERFMON"]);
    let mut daemon = Daemon::with_capabilities(&given, &["--namespaces", "host"]);
    daemon.has_its_probes();
    for (thread, held) in daemon.threads() {
        assert_eq!(held & !old_kernels_own(), 0, "{thread}: {held:x}");
    }
    assert_eq!(daemon.end(), Some(0));
}

/// Before 5.19 CAP_BPF stays, to read maps.
fn old_kernels_own() -> u64 {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 19) { capabilities(&["CAP_BPF"]) } else { 0 }
}

#[test]
fn the_unit_s_filter_lets_through_all_that_the_daemon_calls() {
    let Some(()) = units::has_systemd_analyze() else { return };
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("not looked at: there is no strace");
        return;
    }
    let _elsewhere = Elsewhere::new();
    let unit = Unit::new(None);
    let allowed = unit.system_calls();
    let mut daemon = Daemon::traced();
    eventually("the survey", || daemon.metrics().contains("tcpmon_ephemeral_ports{").then_some(()));
    daemon.hang_up();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(daemon.end(), Some(0));
    let called = daemon.system_calls();
    assert!(called.contains("setns") && called.contains("bpf"), "{called:?}");
    let refused: BTreeSet<_> = called.difference(&allowed).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let families = daemon.address_families();
    assert!(families.contains("AF_NETLINK") && families.contains("AF_INET"), "{families:?}");
    let refused: BTreeSet<_> = families.difference(&unit.address_families()).cloned().collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn systemd_is_told_and_its_watchdog_fed() {
    let told = Notifications::new();
    let mut daemon = Daemon::notifying(&told, Duration::from_millis(900));
    told.wait_for("READY=1");
    for _ in 0..5 {
        told.wait_for("WATCHDOG=1");
    }
    daemon.stop_and_go_on(|| {
        told.forget();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(told.next_within(Duration::from_millis(200)), None, "it is stopped");
    });
    told.wait_for("WATCHDOG=1");
    assert_eq!(daemon.end(), Some(0));
    told.wait_for("STOPPING=1");
}

#[test]
fn a_reload_loses_no_counter_and_says_what_takes_a_restart() {
    let told = Notifications::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tcpmon.toml");
    fs::write(&file, "top = 7\n").expect("written");
    let config = file.to_str().expect("UTF-8");
    let mut daemon = Daemon::start(&["--config", config], |command| {
        command.env("NOTIFY_SOCKET", told.path());
    });
    told.wait_for("READY=1");
    drop(TcpStream::connect(daemon.address()));
    let count = |daemon: &Daemon| daemon.count("tcpmon_events_total");
    eventually("a transition", || (count(&daemon) > 0).then_some(()));
    let before = (count(&daemon), daemon.programs());
    fs::write(&file, "top = 8\nlog-level = \"debug\"\n").expect("written");
    daemon.hang_up();
    let reloading = told.wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    told.wait_for("READY=1");
    daemon.wait_for_line("in force only after a restart: top");
    daemon.wait_for_line("the configuration was read again");
    fs::write(&file, "tpo = 8\n").expect("written");
    daemon.hang_up();
    daemon.wait_for_line("unknown key \"tpo\"; did you mean \"top\"?");
    told.wait_for("READY=1");
    assert!(count(&daemon) >= before.0);
    assert_eq!(daemon.programs(), before.1, "the probes are the same");
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn systemd_s_sockets_take_the_place_of_the_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut daemon = Daemon::activated(listener);
    assert_eq!(daemon.address(), address);
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("ok\n"), "{answer}");
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn a_password_is_asked_over_tcp_alone_and_what_is_wrong_is_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("web.yml");
    let path = file.to_str().expect("UTF-8");
    // `secret`, at the lowest cost there is.
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    fs::write(&file, format!("basic_auth_users:\n  prometheus: {hash}\n")).expect("written");
    let mut daemon = Daemon::start(&["--web.config.file", path], |_| ());
    let ask = |authorization: &str| {
        let mut stream = TcpStream::connect(daemon.address()).expect("a connection");
        write!(stream, "GET /metrics HTTP/1.0\r\n{authorization}\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(ask("").as_deref(), Some("401"));
    assert_eq!(ask("Authorization: Basic cHJvbWV0aGV1czpzZWNyZXQ=\r\n").as_deref(), Some("200"));
    assert!(daemon.metrics().contains("tcpmon_build_info"), "no password on the Unix socket");
    assert_eq!(daemon.end(), Some(0));
    for (text, word) in [("basic_auth_user: {}\n", "basic_auth_user"), ("a: [\n", "web.yml")] {
        fs::write(&file, text).expect("written");
        let told = Daemon::refused(&["--web.config.file", path]);
        assert_eq!(told.0, Some(2), "{}", told.1);
        assert!(told.1.contains(word) && told.1.trim_end().lines().count() == 1, "{}", told.1);
    }
}
