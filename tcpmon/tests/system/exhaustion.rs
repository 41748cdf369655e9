//! Connections refused for want of a local port: as many events and as many counted, whichever
//! way the program asked to connect.

use xtask::lab::{Addresses, Recipe};

use crate::support::daemon::Daemon;
use crate::support::measure::watch;
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{expected, lab};

const FAILURES: u64 = 500;

/// Carries out the recipe and compares the stream and the metric.
fn five_hundred_times(recipe: Recipe, addresses: Addresses) {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(addresses);
    let netns = lab.namespaces()[0].clone();
    let tail = Tail::start(&daemon, &["--netns", &netns.inode.to_string()]);
    let (done, seen) = watch(&daemon, &tail, &mut lab, recipe, FAILURES).expect("any kernel can");
    expected::compare(&done, &seen);

    let failed = done.sockets.iter().find(|socket| socket.port_exhausted).expect("a failure");
    let to = failed.remote.expect("a destination");
    let refused: Vec<_> = seen.iter().filter(|event| event.port_exhausted).collect();
    assert_eq!(refused.len() as u64, FAILURES);
    for event in &refused {
        assert_eq!(event.edge(), "syn_sent>close");
        assert_eq!(event.pid, Some(failed.owner.pid));
        assert_eq!((event.daddr, event.dport, event.sport), (to.ip(), to.port(), 0));
    }
    let metrics = daemon.metrics();
    let service = refused[0].service.clone().expect("a service");
    let labels = [
        ("netns", netns.name.as_str()),
        ("src", &refused[0].saddr.to_string()),
        ("dst", &to.ip().to_string()),
        ("dport", &to.port().to_string()),
        ("service", &service),
    ];
    let name = "tcpmon_connect_port_failures_total";
    let series: Vec<_> = metrics.series(name).collect();
    assert_eq!(metrics.count(name, &labels), FAILURES, "no {labels:?} in {series:?}");
    let own = series.iter().filter(|(labels, _)| labels["dst"] == to.ip().to_string());
    assert_eq!(own.count(), 1, "one destination, one series: {series:?}");
}

#[test]
fn by_connect() {
    five_hundred_times(Recipe::Exhausted, Addresses::Ipv4);
}

#[test]
fn by_connect_ipv6() {
    five_hundred_times(Recipe::Exhausted, Addresses::Ipv6);
}

#[test]
fn by_non_blocking_connect() {
    five_hundred_times(Recipe::ExhaustedNonblocking, Addresses::Ipv4);
}

#[test]
fn by_io_uring() {
    five_hundred_times(Recipe::ExhaustedIoUring, Addresses::Ipv4);
}

#[test]
fn nobody_need_watch() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].name.clone();
    lab::perform(&mut lab, Recipe::ExhaustedNonblocking, FAILURES).expect("failures");
    let metrics = daemon.metrics();
    let counted: u64 = metrics
        .series("tcpmon_connect_port_failures_total")
        .filter(|(labels, _)| labels["netns"] == netns)
        .map(|(_, count)| count.parse::<u64>().expect("a count"))
        .sum();
    assert_eq!(counted, FAILURES);
}
