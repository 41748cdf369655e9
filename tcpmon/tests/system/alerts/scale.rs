//! Twenty thousand destinations at once: series are bounded, and nothing is lost.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{json, own_alerts};
use crate::support::daemon::Daemon;
use crate::support::exposition::Metrics;
use crate::support::lab::inside;
use crate::support::load::small;
use crate::support::turn::Turn;

const DESTINATIONS: u16 = 20_000;
const PORT: u16 = 907;
/// What the daemon shows of each, as it was told.
const TOP: &str = "50";
/// They stay for a minute: what is read by then was read before the first left.
const ALL_ARE_THERE: Duration = Duration::from_secs(55);

fn sum(metrics: &Metrics, name: &str, netns: &str) -> u64 {
    let series = metrics.series(name).filter(|(labels, _)| labels["netns"] == netns);
    series.map(|(_, value)| value.parse::<u64>().expect("a count")).sum()
}

#[test]
fn of_twenty_thousand_destinations_the_fullest_are_shown_and_all_are_counted() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &["--top", TOP]);
    let (lab, netns) = small(100, "0");
    lab.set_sysctl("ipv4/tcp_max_tw_buckets", "262144").expect("a sysctl");
    let begun = Instant::now();
    inside(&netns, || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a port");
        for number in 0..DESTINATIONS {
            let [high, low] = number.to_be_bytes();
            let to = SocketAddr::from((Ipv4Addr::new(127, 1, high, low), PORT));
            drop(TcpStream::connect(to).expect("a port"));
            let mut server = listener.accept().expect("a client").0;
            assert_eq!(server.read(&mut [0]).expect("an end"), 0);
        }
    });
    let metrics = daemon.metrics();
    let took = begun.elapsed();
    let top: usize = TOP.parse().expect("a number");
    for (name, most) in [
        ("tcpmon_ephemeral_ports_used", 3 * (top + 1)),
        ("tcpmon_ephemeral_port_utilization_ratio", top + 1),
        ("tcpmon_port_exhaustion_eta_seconds", top + 1),
        ("tcpmon_time_wait_sockets", top + 1),
    ] {
        let own = metrics.series(name).filter(|(labels, _)| labels["netns"] == netns);
        let own: Vec<_> = own.collect();
        assert!(own.len() <= most, "{} of {name}", own.len());
        assert!(own.iter().any(|(labels, _)| labels["dst"] == "other"), "{name} has no rest");
    }
    let all = u64::from(DESTINATIONS);
    if took < ALL_ARE_THERE {
        for name in ["tcpmon_ephemeral_ports_used", "tcpmon_time_wait_sockets"] {
            assert_eq!(sum(&metrics, name, &netns), all, "{name}");
        }
    }
    assert_eq!(sum(&metrics, "tcpmon_time_wait_entered_total", &netns), all);
    // Twelve ports of a hundred would be much towards one destination; here each has one.
    assert_eq!(own_alerts(&daemon, &netns), [""; 0]);
    let report = json(&daemon, "/api/v1/report").to_string();
    assert!(report.len() < 200_000, "a report of {} bytes", report.len());
}
