//! Owners: the one who opened the socket, whoever was on the CPU, and however old the socket is.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use xtask::lab::{Addresses, Expectation, Recipe, Role};

use crate::support::daemon::Daemon;
use crate::support::event::Event;
use crate::support::measure::watch;
use crate::support::program::{Lines, run};
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{expected, lab, skipped};

/// The name of this process, as the kernel has it: that of its first thread.
fn own_comm() -> String {
    let pid = std::process::id();
    fs::read_to_string(format!("/proc/{pid}/comm")).expect("a name").trim_end().to_owned()
}

fn assert_ours(events: &[Event]) {
    for event in events {
        assert_eq!(event.pid, Some(std::process::id()), "{event:?}");
        assert_eq!(event.comm.as_deref(), Some(own_comm().as_str()), "{event:?}");
        assert!(event.service.is_some(), "{event:?}");
    }
}

#[test]
fn of_sockets_that_are_older_than_the_daemon() {
    let turn = Turn::shared();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("an address");
    let old_client = TcpStream::connect(to).expect("a connection");
    let (old_server, _) = listener.accept().expect("a connection");
    let old_port = old_client.local_addr().expect("an address").port();

    let daemon = Daemon::start(&turn, &[]);
    let tail = Tail::start(&daemon, &["--port", &to.port().to_string()]);
    drop(old_client);
    // Its end comes with the other's FIN.
    assert_eq!(std::io::Read::read(&mut &old_server, &mut [0]).expect("an end"), 0);
    drop(old_server);
    let seen = tail.events(6);
    assert_ours(&seen);
    let lives = expected::lives(&seen);
    assert_eq!(lives.len(), 2);
    for life in &lives {
        let ports =
            if life[0].sport == old_port { (old_port, to.port()) } else { (to.port(), old_port) };
        assert_eq!(life[0].duration_us, None, "when it began nobody saw");
        assert!(life[1..].iter().all(|event| event.duration_us.is_some()), "{life:#?}");
        assert!(life.iter().all(|event| (event.sport, event.dport) == ports), "{life:#?}");
    }

    // What the old listener accepts from now on, and its own end.
    let client = TcpStream::connect(to).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    drop(client);
    assert_eq!(std::io::Read::read(&mut &server, &mut [0]).expect("an end"), 0);
    drop(server);
    let seen = tail.events(10);
    assert_ours(&seen);
    let lives = expected::lives(&seen);
    let child = lives.iter().find(|life| life[0].edge() == "listen>syn_recv").expect("a child");
    assert!(child.iter().all(|event| event.role.as_deref() == Some("passive")), "{child:#?}");
    drop(listener);
    let end = tail.events(1);
    assert_ours(&end);
    assert_eq!((end[0].edge().as_str(), end[0].sport), ("listen>close", to.port()));
    assert_eq!(end[0].role.as_deref(), Some("passive"));
}

#[test]
fn of_children_of_listeners_that_share_a_port() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv6);
    let tail = Tail::start(&daemon, &["--netns", &lab.namespaces()[0].inode.to_string()]);
    let mut others = Vec::new();
    for count in [0, 500] {
        // So many that most places of the probes' small table are theirs, and hardly ever all three
        // servers find theirs free.
        others.extend((0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")));
        // With so many connections the kernel's hash leaves no server of three without any, but for
        // one case in 10^10.
        let (done, seen) =
            watch(&daemon, &tail, &mut lab, Recipe::Reuseport, 60).expect("a recipe");
        expected::compare(&done, &seen);
        let passive = done.sockets.iter().filter(|socket| socket.role == Role::Passive);
        let owners: BTreeSet<Option<u32>> = passive.map(|socket| Some(socket.owner.pid)).collect();
        let born = seen.iter().filter(|event| event.edge() == "listen>syn_recv");
        assert_eq!(born.map(|event| event.pid).collect::<BTreeSet<_>>(), owners);
        assert_eq!(owners.len(), 3);
    }
    drop(others);

    // One listener, many who accept: it is the listener's, whoever accepts.
    let (done, seen) = watch(&daemon, &tail, &mut lab, Recipe::Prefork, 6).expect("a recipe");
    expected::compare(&done, &seen);
}

#[test]
fn of_a_socket_that_connects_again_after_a_refusal() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let pid = std::process::id().to_string();
    let open = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = open.local_addr().expect("an address");
    // A port that is ours and on which nobody listens.
    let closed = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("one");
    rustix::net::bind(&closed, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let nowhere = local_port(&closed);
    let ports = format!("{nowhere},{}", to.port());
    let tail = Tail::start(&daemon, &["--pid", &pid, "--dport", &ports]);

    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("one");
    for _ in 0..3 {
        let refused = rustix::net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], nowhere)));
        assert_eq!(refused, Err(Errno::CONNREFUSED));
        let seen = tail.events(2);
        assert_ours(&seen);
        let edges: Vec<String> = seen.iter().map(Event::edge).collect();
        assert_eq!(edges, ["close>syn_sent", "syn_sent>close"]);
        let port = local_port(&socket);
        for event in &seen {
            assert_eq!((event.sport, event.dport), (port, nowhere), "{event:?}");
            assert!(!event.port_exhausted, "{event:?}");
        }
    }
    rustix::net::connect(&socket, &to).expect("a connection");
    let seen = tail.events(2);
    let edges: Vec<String> = seen.iter().map(Event::edge).collect();
    assert_eq!(edges, ["close>syn_sent", "syn_sent>established"]);
    let port = local_port(&socket);
    assert!(
        seen.iter().all(|event| event.sport == port && event.role.as_deref() == Some("active"))
    );
    assert_ours(&seen);
}

fn local_port(socket: &OwnedFd) -> u16 {
    let address = rustix::net::getsockname(socket).expect("an address");
    SocketAddr::try_from(address).expect("an IP address").port()
}

/// A cgroup that is removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// In the hierarchy that is mounted with this type and option; `None` where none is.
    fn make(kind: &str, option: &str, name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let point = mounts.lines().find_map(|line| {
            let [_, point, own, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            let has = option.is_empty() || options.split(',').any(|word| word == option);
            (own == kind && has).then(|| PathBuf::from(point))
        })?;
        let path = point.join("system.slice").join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Some(Self(path))
    }

    /// Carries out a recipe with all processes in this cgroup.
    fn perform(&self, recipe: &str) -> Expectation {
        let script = "echo $$ > \"$1\" && shift && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh"]).arg(self.0.join("cgroup.procs")).arg(lab::program());
        command.args(["lab", recipe, "--json"]).env("TCPMON_LAB", lab::program());
        let done = run(&mut command);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        serde_json::from_str(&done.stdout).expect("an expectation")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.0);
        if let Some(slice) = self.0.parent() {
            // Not if it was there before, with others in it.
            let _gone = fs::remove_dir(slice);
        }
    }
}

fn service_of(cgroup: &Cgroup, service: &str) {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let query = format!("service={service}");
    let lines = Lines::of(daemon.stream(&query));
    let done = cgroup.perform("client-first");
    for _ in 0..done.shown_transitions() {
        let line = lines.next().expect("the stream goes on");
        assert!(line.contains(&format!("\"service\":\"{service}\"")), "{line}");
    }
    let metrics = daemon.metrics();
    for role in ["active", "passive"] {
        let labels = [("role", role), ("service", service)];
        assert_eq!(metrics.count("tcpmon_connections_total", &labels), 1, "{role}");
    }
}

#[test]
fn their_service_is_the_unit_of_the_unified_hierarchy() {
    let name = "tcpmon-test.service";
    // Everywhere since systemd 256; elsewhere mounted beside version 1's.
    let cgroup = Cgroup::make("cgroup2", "", name).expect("a unified hierarchy");
    service_of(&cgroup, name);
}

#[test]
fn their_service_is_the_unit_of_a_version_1_hierarchy() {
    let name = "tcpmon-v1-test.service";
    let Some(cgroup) = Cgroup::make("cgroup", "memory", name) else {
        return skipped(
            "a version 1 hierarchy",
            "cgroup hierarchy of version 1 for memory (CONFIG_MEMCG_V1)",
        );
    };
    service_of(&cgroup, name);
}
