//! Capacity and use of ports, held against brute force: connect until the kernel has no port left.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use xtask::lab::{Addresses, Lab, Recipe};

use crate::support::books::PROMPT;
use crate::support::daemon::Daemon;
use crate::support::exposition::Metrics;
use crate::support::lab::inside;
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

/// Where the servers listen: outside the range, unless a test says otherwise.
const PORT: u16 = 900;
/// The range of most tests: a hundred ports.
const RANGE: &str = "20000 20099";

/// What the daemon tells of the ports towards one destination.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    live: u64,
    time_wait: u64,
    reusable: u64,
    ratio: f64,
}

impl Told {
    fn of(metrics: &Metrics, netns: &str, dst: IpAddr, dport: u16) -> Option<Self> {
        let (dst, dport) = (dst.to_string(), dport.to_string());
        let find = |name: &str, kind: &str| {
            let mut series = metrics.series(name).filter(|(labels, _)| {
                labels["netns"] == netns
                    && labels["dst"] == dst
                    && labels["dport"] == dport
                    && labels.get("kind").is_none_or(|own| own == kind)
            });
            series.next().map(|(_, value)| value.parse::<f64>().expect("a number"))
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        let used = |kind| find("tcpmon_ephemeral_ports_used", kind).map(|value| value as u64);
        Some(Self {
            live: used("live")?,
            time_wait: used("time_wait")?,
            reusable: used("time_wait_reusable")?,
            ratio: find("tcpmon_ephemeral_port_utilization_ratio", "")?,
        })
    }

    /// The capacity that the ratio tells, given what blocks.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn capacity(&self) -> f64 {
        (self.live + self.time_wait) as f64 / self.ratio
    }
}

/// A client's namespace, its server, and connections between them.
struct Scene {
    daemon: Daemon,
    lab: Lab,
    netns: String,
    listener: TcpListener,
    to: SocketAddr,
    pairs: Vec<(TcpStream, TcpStream)>,
}

impl Scene {
    /// On loopback; `sysctls` of the client's namespace, as under /proc/sys/net/ipv4.
    fn on_loopback(turn: &Turn, to: IpAddr, sysctls: &[(&str, &str)]) -> Self {
        let lab = lab::open(Addresses::Ipv4);
        let netns = lab.namespaces()[0].name.clone();
        Self::open(turn, lab, netns.clone(), &netns, to, sysctls)
    }

    /// Between two namespaces.
    fn on_a_wire(turn: &Turn, sysctls: &[(&str, &str)]) -> Self {
        let mut lab = lab::open(Addresses::Ipv4);
        let names = lab.prepare(Recipe::ReuseOnWire).expect("a wire");
        let to = lab.wire_address(1);
        let (client, server) = (names[0].name.clone(), names[1].name.clone());
        Self::open(turn, lab, client, &server, to, sysctls)
    }

    fn open(
        turn: &Turn,
        lab: Lab,
        netns: String,
        server: &str,
        to: IpAddr,
        sysctls: &[(&str, &str)],
    ) -> Self {
        let daemon = Daemon::start(turn, &PROMPT);
        for (key, value) in [("ip_local_port_range", RANGE)].iter().chain(sysctls) {
            lab.set_sysctl(&format!("ipv4/{key}"), value).expect("a sysctl");
        }
        let to = SocketAddr::from((to, PORT));
        let listener = inside(server, || TcpListener::bind(to).expect("a port"));
        Self { daemon, lab, netns, listener, to, pairs: Vec::new() }
    }

    /// Connects `most` times, or until there is no port; how many connections there were.
    fn connect(&mut self, most: usize) -> usize {
        let to = self.to;
        self.connect_to(to, most)
    }

    fn connect_to(&mut self, to: SocketAddr, most: usize) -> usize {
        let listener = &self.listener;
        let made = inside(&self.netns, || {
            let mut made = Vec::new();
            while made.len() < most {
                match TcpStream::connect(to) {
                    Ok(client) => made.push((client, listener.accept().expect("a client").0)),
                    Err(error) if error.kind() == ErrorKind::AddrNotAvailable => break,
                    Err(error) => panic!("cannot connect to {to}: {error}"),
                }
            }
            made
        });
        let count = made.len();
        self.pairs.extend(made);
        count
    }

    /// Closes connections, at the client's end first: its ports go to TIME_WAIT.
    fn leave(&mut self, connections: usize) {
        for (client, mut server) in self.pairs.drain(..connections) {
            client.shutdown(Shutdown::Write).expect("to end");
            assert_eq!(server.read(&mut [0]).expect("an end"), 0);
            drop(server);
            assert_eq!((&client).read(&mut [0]).expect("an end"), 0);
        }
    }

    fn told(&self, dst: IpAddr) -> Option<Told> {
        Told::of(&self.daemon.metrics(), &self.netns, dst, self.to.port())
    }

    /// Waits until the daemon tells that, and that all ports are taken.
    fn expect(&self, live: u64, time_wait: u64, reusable: u64, capacity: f64) {
        self.expect_to(self.to.ip(), live, time_wait, reusable, capacity);
    }

    fn expect_to(&self, dst: IpAddr, live: u64, time_wait: u64, reusable: u64, capacity: f64) {
        let mut last = None;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            last = self.told(dst);
            let is_so = last.is_some_and(|it| {
                (it.live, it.time_wait, it.reusable) == (live, time_wait, reusable)
                    && (it.capacity() - capacity).abs() < 1e-6
            });
            if is_so {
                return;
            }
            // The daemon looks again when it is asked: that is the event that is waited for.
            thread::sleep(Duration::from_millis(100));
        }
        panic!(
            "towards {dst}: {last:?}, not {live} live, {time_wait} waiting, {reusable} reusable \
             of {capacity}; the lab is {:?}",
            self.lab.namespaces()
        );
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// All ports are taken by open connections: as many as `capacity`.
fn full(sysctls: &[(&str, &str)], to: IpAddr, capacity: u32) {
    let turn = Turn::shared();
    let mut scene = Scene::on_loopback(&turn, to, sysctls);
    assert_eq!(scene.connect(usize::MAX), capacity as usize);
    scene.expect(u64::from(capacity), 0, 0, f64::from(capacity));
}

#[test]
fn plain() {
    full(&[], LOOPBACK, 100);
}

#[test]
fn plain_ipv6() {
    full(&[], Ipv6Addr::LOCALHOST.into(), 100);
}

#[test]
fn reserved_ports_are_not_offered() {
    full(&[("ip_local_reserved_ports", "20010-20019,30000")], LOOPBACK, 90);
}

#[test]
fn a_range_that_begins_oddly() {
    full(&[("ip_local_port_range", "20001 20100")], LOOPBACK, 100);
}

/// Bounds of one parity: the kernel's search goes round an even number of ports, and comes to the
/// first of the range only if it begins there (`__inet_hash_connect()`, net/ipv4/inet_hashtables.c).
/// Whether that happens is chance: one connect() of a few is refused while that port is free.
#[test]
fn an_odd_number_of_ports() {
    let turn = Turn::shared();
    let range = [("ip_local_port_range", "20000 20100")];
    let mut scene = Scene::on_loopback(&turn, LOOPBACK, &range);
    let made = scene.connect(usize::MAX);
    let taken = scene.pairs.iter().map(|(client, _)| client.local_addr().expect("bound").port());
    let mut free: BTreeSet<u16> = (20_000..=20_100).collect();
    taken.for_each(|port| assert!(free.remove(&port), "{port} is taken twice or not offered"));
    assert!(free.is_empty() || free == [20_000].into(), "{free:?} were not taken");
    scene.expect(made as u64, 0, 0, 101.0);
}

#[test]
fn three_destinations_have_all_ports_each() {
    let turn = Turn::shared();
    let mut scene = Scene::on_loopback(&turn, Ipv4Addr::UNSPECIFIED.into(), &[]);
    for last in 1..=3 {
        let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), PORT));
        assert_eq!(scene.connect_to(to, usize::MAX), 100);
    }
    for last in 1..=3 {
        scene.expect_to(Ipv4Addr::new(127, 0, 0, last).into(), 100, 0, 0, 100.0);
    }
}

#[test]
fn mapped_addresses_share_the_ports_of_ipv4() {
    let turn = Turn::shared();
    let mut scene = Scene::on_loopback(&turn, Ipv6Addr::UNSPECIFIED.into(), &[]);
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), PORT));
    assert_eq!(scene.connect_to(SocketAddr::from((LOOPBACK, PORT)), 60), 60);
    assert_eq!(scene.connect_to(mapped, usize::MAX), 40);
    scene.expect_to(LOOPBACK, 100, 0, 0, 100.0);
}

#[test]
fn a_listener_owns_its_port() {
    let turn = Turn::shared();
    let mut scene = Scene::on_loopback(&turn, LOOPBACK, &[]);
    let _listener = inside(&scene.netns, || TcpListener::bind((LOOPBACK, 20_050)).expect("a port"));
    assert_eq!(scene.connect(usize::MAX), 99);
    scene.expect(99, 0, 0, 99.0);
}

/// A socket that is bound to a port.
fn bound(port: u16) -> OwnedFd {
    let bound = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&bound, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).expect("a port");
    bound
}

#[test]
fn explicit_binds_own_their_ports() {
    let turn = Turn::shared();
    let mut scene = Scene::on_loopback(&turn, Ipv4Addr::UNSPECIFIED.into(), &[]);
    scene.to.set_ip(LOOPBACK);
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), PORT));
    let _bound = inside(&scene.netns, || {
        let connected = bound(20_020);
        connect(&connected, &elsewhere).expect("a connection");
        connected
    });
    let _server = scene.listener.accept().expect("a client");
    assert_eq!(scene.connect(usize::MAX), 99);
    scene.expect(99, 0, 0, 99.0);
}

#[test]
fn a_bound_socket_owns_its_port_even_unconnected() {
    if !lists_bound_sockets() {
        eprintln!("not tested: before Linux 6.8 the kernel lists no socket that is only bound");
        return;
    }
    let turn = Turn::shared();
    let mut scene = Scene::on_loopback(&turn, LOOPBACK, &[]);
    let _bound = inside(&scene.netns, || [bound(20_030), bound(20_031)]);
    assert_eq!(scene.connect(usize::MAX), 98);
    scene.expect(98, 0, 0, 98.0);
}

fn lists_bound_sockets() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 8)
}

/// Forty ports wait and twenty are held; as many more connections are made as can be.
fn waiting(mut scene: Scene, more: usize, is_reusable: bool) {
    assert_eq!(scene.connect(60), 60);
    scene.leave(40);
    let (blocking, reusable) = if is_reusable { (0, 40) } else { (40, 0) };
    scene.expect(20, blocking, reusable, 100.0);
    // Those that may be taken over have to be older than a second, which the daemon has told.
    assert_eq!(scene.connect(usize::MAX), more);
    let held = 20 + more as u64;
    scene.expect(held, blocking, 0, 100.0);
    let netns = scene.netns.clone();
    eventually("no drift", || {
        let metrics = scene.daemon.metrics();
        let mut drift = metrics.series("tcpmon_time_wait_drift");
        drift.all(|(labels, value)| labels["netns"] != netns || value == "0").then_some(())
    });
}

fn on_loopback(sysctls: &[(&str, &str)], more: usize, is_reusable: bool) {
    let turn = Turn::shared();
    waiting(Scene::on_loopback(&turn, LOOPBACK, sysctls), more, is_reusable);
}

fn on_a_wire(sysctls: &[(&str, &str)], more: usize, is_reusable: bool) {
    let turn = Turn::shared();
    waiting(Scene::on_a_wire(&turn, sysctls), more, is_reusable);
}

#[test]
fn tcp_tw_reuse_0_on_loopback() {
    on_loopback(&[("tcp_tw_reuse", "0")], 40, false);
}

#[test]
fn tcp_tw_reuse_1_on_loopback() {
    on_loopback(&[("tcp_tw_reuse", "1")], 80, true);
}

#[test]
fn tcp_tw_reuse_2_on_loopback() {
    on_loopback(&[("tcp_tw_reuse", "2")], 80, true);
}

#[test]
fn tcp_tw_reuse_0_on_a_wire() {
    on_a_wire(&[("tcp_tw_reuse", "0")], 40, false);
}

#[test]
fn tcp_tw_reuse_1_on_a_wire() {
    on_a_wire(&[("tcp_tw_reuse", "1")], 80, true);
}

#[test]
fn tcp_tw_reuse_2_on_a_wire() {
    on_a_wire(&[("tcp_tw_reuse", "2")], 40, false);
}

#[test]
fn without_timestamps_nothing_is_taken_over() {
    on_loopback(&[("tcp_tw_reuse", "1"), ("tcp_timestamps", "0")], 40, false);
}
