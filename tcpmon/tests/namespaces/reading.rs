//! What the kernel counts and has set in a namespace, read inside and held against what another
//! program reads there.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use tcpmon::kernel::namespaces::{Namespace, Place};
use tcpmon::kernel::net_counters::NetCounters;
use tcpmon::kernel::sysctls::Sysctls;
use tcpmon::kernel::visit::Visitor;
use tcpmon::model::ports::{PortRange, PortSet};

use crate::place::Named;

fn inside<T>(named: &Named, work: impl FnOnce() -> T) -> T {
    let (inode, ways) = (named.inode(), vec![named.path()]);
    let there = Namespace { inode, ways, pid: None, place: Place::Named, container: None };
    Visitor::new().and_then(|visitor| visitor.visit(&there, work)).expect("a visit")
}

/// Without what is the whole host's, which others change meanwhile.
fn own(counters: NetCounters) -> NetCounters {
    NetCounters { host_orphans: None, host_allocated: None, host_memory_pages: None, ..counters }
}

#[test]
fn counters_are_the_namespace_s_own() {
    let (named, quiet) = (Named::new(), Named::new());
    inside(&named, || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        let client = TcpStream::connect(to).expect("a connection");
        let (mut server, _) = listener.accept().expect("a connection");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("the end"), 0);
        drop((server, listener));
        // Nobody listens there. Not on the port of before: it is in the range of local ports, so
        // that connect() may take it, and meet itself.
        TcpStream::connect("127.0.0.1:9").expect_err("a refusal");
    });
    let counters = inside(&named, NetCounters::of_this_thread).expect("counters");
    let other = NetCounters::from_texts(
        &named.cat("/proc/net/sockstat"),
        &named.cat("/proc/net/sockstat6"),
        &named.cat("/proc/net/netstat"),
        &named.cat("/proc/net/snmp"),
    );
    assert_eq!(own(counters), own(other));
    assert_eq!((counters.time_wait, counters.entered()), (Some(1), Some(1)));
    assert_eq!((counters.active_opens, counters.passive_opens), (Some(2), Some(1)));
    assert_eq!(counters.attempt_fails, Some(1));
    assert_eq!((counters.overflow, counters.recycled), (Some(0), Some(0)));
    assert!(counters.host_allocated.is_some() && counters.host_orphans.is_some());

    let counters = inside(&quiet, NetCounters::of_this_thread).expect("counters");
    assert_eq!((counters.time_wait, counters.entered()), (Some(0), Some(0)));
    assert_eq!((counters.active_opens, counters.curr_estab), (Some(0), Some(0)));
}

#[test]
fn sysctls_are_the_namespace_s_own() {
    let (named, other) = (Named::new(), Named::new());
    for (name, value) in [
        ("tcp_tw_reuse", "1"),
        ("tcp_max_tw_buckets", "100"),
        ("ip_local_port_range", "10000 10100"),
        // Longer than what a small read would show.
        ("ip_local_reserved_ports", "10001,10003,10005,10007,10009,10011,10013,10015,20000-20010"),
        ("tcp_timestamps", "0"),
        ("tcp_fin_timeout", "7"),
        ("tcp_rfc1337", "1"),
    ] {
        named.set(name, value);
    }
    other.set("tcp_tw_reuse", "0");
    let values = inside(&named, Sysctls::of_this_thread);
    let ports = "10001,10003,10005,10007,10009,10011,10013,10015,20000-20010";
    let expected = Sysctls {
        tcp_tw_reuse: Some(1),
        // As new kernels have it; it is not set here.
        tcp_tw_reuse_delay: values.tcp_tw_reuse_delay,
        tcp_max_tw_buckets: Some(100),
        ip_local_port_range: PortRange::new(10_000, 10_100),
        ip_local_reserved_ports: PortSet::from_sysctl(ports).ok(),
        tcp_timestamps: Some(0),
        tcp_fin_timeout: Some(7),
        tcp_rfc1337: Some(1),
    };
    assert_eq!(values, expected);
    assert_eq!(values.ephemeral_ports(), Some(101 - 8));

    let values = inside(&other, Sysctls::of_this_thread);
    assert_eq!((values.tcp_tw_reuse, values.tcp_rfc1337), (Some(0), Some(0)));
    assert_eq!(values.ip_local_port_range, PortRange::new(32_768, 60_999));
    for (name, value) in values.numbers() {
        let file = name.trim_end_matches("_min").trim_end_matches("_max");
        let text = other.cat(&format!("/proc/sys/net/ipv4/{file}"));
        let place = usize::from(name.ends_with("_max"));
        let read = text.split_whitespace().nth(place).and_then(|word| word.parse().ok());
        assert_eq!(read, Some(value), "{name}");
    }
}

#[test]
fn every_reserved_port_is_read() {
    let named = Named::new();
    // 5,000 ports that do not touch: 29,999 bytes.
    let ports: Vec<String> = (0..5_000).map(|port| (20_001 + 2 * port).to_string()).collect();
    let text = ports.join(",");
    named.set("ip_local_reserved_ports", &text);
    let values = inside(&named, Sysctls::of_this_thread);
    let reserved = values.ip_local_reserved_ports.expect("reserved ports");
    assert_eq!((reserved.to_string(), reserved.len()), (text, 5_000));
}
