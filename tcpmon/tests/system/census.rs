//! The census, held against the kernel's own tables of sockets in /proc.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};

use tcpmon::kernel::census::{Census, Taken};
use tcpmon::kernel::probes::{MapSizes, Probes, Scope};
use tcpmon::kernel::visit::cookie_of_this_thread;
use tcpmon::model::levels;
use tcpmon_common::TcpState;
use xtask::lab::{Addresses, Lab, Recipe};

use crate::support::turn::Turn;
use crate::support::{eventually, lab};

/// State (the kernel's number), whether in the time-wait table, whether a passive end.
type Kind = (u8, bool, bool);
/// Local and remote address, remote port or `None` for any, kind; and how many.
type Groups = BTreeMap<(IpAddr, IpAddr, Option<u16>, Kind), u64>;

const ESTABLISHED: u8 = 1;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

/// Does `work` in the lab's first namespace.
fn inside<T: Send>(lab: &Lab, work: impl FnOnce() -> T + Send) -> T {
    lab::inside(&lab.namespaces()[0].name, work)
}

/// For tests that have the machine for themselves: the probes come and go with the variable.
fn start(destinations: u32) -> Probes {
    Probes::start(MapSizes { destinations, ..MapSizes::default() }, Scope::default())
        .expect("probes")
}

/// All sockets of the calling thread's namespace: those that the probes count, and the others.
fn all(census: &Census, taken: &Taken) -> levels::Groups {
    let cookie = cookie_of_this_thread().expect("a cookie");
    let counted = census.counted().remove(&cookie).unwrap_or_default();
    let mut all = levels::Groups::default();
    for alike in levels::all(&counted, &taken.groups, &taken.counted_fin_wait2) {
        let mut group = *alike.group;
        let rest = alike.sockets - alike.fin_wait2;
        for (state, sockets) in [(group.kind.state, rest), (TcpState::FinWait2, alike.fin_wait2)] {
            if sockets > 0 {
                group.kind.state = state;
                *all.entry(group).or_default() += sockets;
            }
        }
    }
    all
}

/// The groups, of all owners together.
fn groups(all: &levels::Groups) -> Groups {
    let mut groups = Groups::new();
    for (group, sockets) in all {
        let kind = group.kind;
        let kind = (kind.state.number(), kind.in_time_wait_table, kind.passive);
        *groups.entry((group.src, group.dst, group.dport, kind)).or_default() += sockets;
    }
    groups
}

/// The same from /proc, of the calling thread's namespace. Ends whose local port is a listener's
/// are passive.
fn told_by_proc() -> Groups {
    let mut lines = Vec::new();
    for name in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect("a table");
        lines.extend(table.lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (src, sport) = address(words[1]);
            let (dst, dport) = address(words[2]);
            let state = u8::from_str_radix(words[3], 16).expect("a state");
            // `get_timewait4_sock()` in net/ipv4/tcp_ipv4.c: its timer is number 3.
            (src, sport, dst, dport, state, words[5].starts_with("03:"))
        }));
    }
    let listening: Vec<u16> =
        lines.iter().filter(|line| line.4 == LISTEN).map(|line| line.1).collect();
    let mut groups = Groups::new();
    for (src, sport, dst, dport, state, waits) in lines {
        let passive = listening.contains(&sport);
        let dport = (!passive).then_some(dport);
        *groups.entry((src, dst, dport, (state, waits, passive))).or_default() += 1;
    }
    groups
}

/// `0100007F:0050`: words of the machine's byte order, then the port.
fn address(text: &str) -> (IpAddr, u16) {
    let (address, port) = text.split_once(':').expect("a port");
    let bytes: Vec<u8> = (0..address.len() / 8)
        .flat_map(|word| {
            let digits = &address[word * 8..word * 8 + 8];
            u32::from_str_radix(digits, 16).expect("digits").to_ne_bytes()
        })
        .collect();
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).expect("an address")),
    };
    (ip, u16::from_str_radix(port, 16).expect("a port"))
}

/// Takes a census of a namespace at rest, which must be what /proc says.
fn take(census: &mut Census) -> levels::Groups {
    let taken = census.take(false, None).expect("a census");
    let all = all(census, &taken);
    assert_eq!(groups(&all), told_by_proc());
    all
}

#[test]
fn time_wait_by_destination_again_and_again_and_only_of_this_namespace() {
    let _turn = Turn::alone();
    let mut probes = start(1024);
    for addresses in [Addresses::Ipv4, Addresses::Ipv6] {
        let mut lab = lab::open(addresses);
        lab.perform(Recipe::TimeWait, Some(4_000)).expect("a load");
        for _ in 0..3 {
            let all = inside(&lab, || take(&mut probes.census));
            assert_eq!(all.values().sum::<u64>(), 4_000);
            assert_eq!(all.len(), 8, "one for each destination");
            for (group, sockets) in &all {
                assert_eq!(*sockets, 500, "{group:?}");
                assert_eq!(group.kind.state.number(), TIME_WAIT);
                assert!(group.kind.in_time_wait_table && !group.kind.passive, "{group:?}");
                assert_eq!(group.kind.chosen, Some(true), "{group:?}");
                assert_eq!(group.kind.timestamps, Some(true), "{group:?}");
            }
        }
        let taken = inside(&lab, || probes.census.take(false, None).expect("a census"));
        assert!(taken.wall >= taken.cpu && !taken.cpu.is_zero(), "{taken:?}");
        assert_eq!(taken.listed, 0, "the probes count them all: {taken:?}");
        let elsewhere = lab::open(addresses);
        assert!(inside(&elsewhere, || take(&mut probes.census)).is_empty());
    }
}

#[test]
fn what_finds_no_cell_is_listed() {
    // The cells are few, and the probes count in all namespaces.
    let _turn = Turn::alone();
    let mut probes = start(3);
    let mut lab = lab::open(Addresses::Ipv4);
    lab.perform(Recipe::TimeWait, Some(4_000)).expect("a load");
    inside(&lab, || {
        let cookie = cookie_of_this_thread().expect("a cookie");
        let counted = probes.census.counted().remove(&cookie).unwrap_or_default();
        assert_eq!(counted.iter().map(|group| group.sockets).sum::<u64>(), 1_500);
        let taken = probes.census.take(true, None).expect("a census");
        assert_eq!(taken.groups.values().sum::<u64>(), 2_500);
        assert_eq!(groups(&all(&probes.census, &taken)), told_by_proc());
    });
}

#[test]
fn many_groups_are_all_told_apart() {
    const GROUPS: u16 = 2_000;
    let _turn = Turn::alone();
    let mut probes = start(u32::from(GROUPS) + 1);
    let lab = lab::open(Addresses::Ipv4);
    inside(&lab, || {
        // A listener for all of them; each connection is a group of its own on either side.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 900)).expect("a port");
        for number in 0..GROUPS / 2 {
            let [high, low] = number.to_be_bytes();
            let client = TcpStream::connect((Ipv4Addr::new(127, 1, high, low), 900));
            let server = listener.accept().expect("a connection").0;
            drop(client.expect("a connection"));
            assert_eq!((&server).read(&mut [0]).expect("an end"), 0);
            // Its FIN is acknowledged when close() returns or soon after: no group is left of it.
        }
        eventually("all but the clients to be gone", || {
            let told = told_by_proc();
            let waits = |(key, _): &(&(_, _, _, Kind), &u64)| key.3 == (TIME_WAIT, true, false);
            (told.iter().filter(waits).count() == usize::from(GROUPS / 2)
                && told.len() == usize::from(GROUPS / 2) + 1)
                .then_some(())
        });
        let all = take(&mut probes.census);
        assert_eq!(all.len(), usize::from(GROUPS / 2) + 1);
    });
}

#[test]
fn every_state_family_and_side() {
    let _turn = Turn::alone();
    let mut probes = start(1024);
    let lab = lab::open(Addresses::Ipv4);
    inside(&lab, || {
        let mut kept = Vec::new();
        let mut connect = |listener: &TcpListener, to: IpAddr| {
            let port = listener.local_addr().expect("an address").port();
            let client = TcpStream::connect((to, port)).expect("a connection");
            kept.push(listener.accept().expect("a connection").0);
            client
        };
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 901)).expect("a port");
        // Takes IPv4 too, by mapped addresses.
        let six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 902)).expect("a port");
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let cases = [
            (&four, IpAddr::from(Ipv4Addr::LOCALHOST)),
            (&six, Ipv6Addr::LOCALHOST.into()),
            (&six, mapped.into()),
        ];
        let mut open = Vec::new();
        for (listener, to) in cases {
            // Two that stay, one that is half-closed but still a process's, two that are closed
            // before the other end is, and so wait in the time-wait table for its FIN.
            open.extend([connect(listener, to), connect(listener, to)]);
            let half = connect(listener, to);
            half.shutdown(Shutdown::Write).expect("a half-close");
            open.push(half);
            drop((connect(listener, to), connect(listener, to)));
        }
        let wanted = |told: &Groups, to: IpAddr, port, kind: Kind| {
            told.iter()
                .filter(|(key, _)| (key.1, key.2, key.3) == (to, Some(port), kind))
                .map(|(_, sockets)| sockets)
                .sum::<u64>()
        };
        eventually("all FINs to be acknowledged", || {
            let told = told_by_proc();
            let there = cases.iter().all(|(listener, to)| {
                let port = listener.local_addr().expect("an address").port();
                wanted(&told, *to, port, (ESTABLISHED, false, false)) == 2
                    && wanted(&told, *to, port, (FIN_WAIT2, false, false)) == 1
                    && wanted(&told, *to, port, (FIN_WAIT2, true, false)) == 2
            });
            there.then_some(())
        });
        let all = take(&mut probes.census);
        let listeners = all.keys().filter(|group| group.kind.state.number() == LISTEN).count();
        assert_eq!(listeners, 2);
        // The probes saw them all begin, so those that some process has have an owner.
        let comm = fs::read_to_string("/proc/self/comm").expect("a name");
        for group in all.keys().filter(|group| !group.kind.in_time_wait_table) {
            let owner = group.owner.unwrap_or_else(|| panic!("nobody's: {group:?}"));
            let name = owner.comm.split(|&byte| byte == 0).next().expect("a name");
            assert_eq!(name, comm.trim_end().as_bytes(), "{group:?}");
        }
    });
}

#[test]
fn sockets_older_than_the_probes_have_a_side_too() {
    let _turn = Turn::alone();
    let lab = lab::open(Addresses::Ipv4);
    inside(&lab, || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 903)).expect("a port");
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, 903)).expect("a connection");
        let server = listener.accept().expect("a connection").0;
        // The server closes first: its end waits, and its port is the listener's.
        drop(server);
        assert_eq!((&client).read(&mut [0]).expect("an end"), 0);
        drop(client);
        let kind = (TIME_WAIT, true, true);
        eventually("the server's end to wait", || {
            told_by_proc().keys().any(|key| key.3 == kind).then_some(())
        });
        let mut probes = start(16);
        let taken = probes.census.take(true, None).expect("a census");
        let all = all(&probes.census, &taken);
        assert!(groups(&all).keys().any(|key| key.2.is_none() && key.3 == kind), "{taken:?}");
    });
}
