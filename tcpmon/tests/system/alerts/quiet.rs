//! What has to raise nothing, and looks for a minute as if it had to.

use std::thread;
use std::time::{Duration, Instant};

use super::own_alerts;
use crate::support::daemon::Daemon;
use crate::support::load::{Load, small};
use crate::support::turn::Turn;

/// A minute of TIME_WAIT, and some.
const LONG_ENOUGH: Duration = Duration::from_secs(70);

/// Twelve a second settle at 720 ports of 2,000; until the first of them come back, their number
/// only grows.
#[test]
fn a_steady_load_raises_nothing_while_its_level_rises_nor_after() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let (_lab, netns) = small(2_000, "0");
    let mut load = Load::start(&netns, 12);
    let begun = Instant::now();
    let mut level = 0.0;
    while begun.elapsed() < LONG_ENOUGH {
        assert_eq!(own_alerts(&daemon, &netns), [""; 0], "after {:?}", begun.elapsed());
        let metrics = daemon.metrics();
        let own = |name: &str| -> Option<f64> {
            let mut series = metrics.series(name).filter(|(labels, _)| labels["netns"] == netns);
            series.next().map(|(_, value)| value.parse().expect("a number"))
        };
        let eta = own("tcpmon_port_exhaustion_eta_seconds");
        assert!(eta.is_none_or(f64::is_infinite), "after {:?}: {eta:?}", begun.elapsed());
        level = own("tcpmon_ephemeral_port_utilization_ratio").unwrap_or(0.0);
        // As often as a scraper looks at its most eager.
        thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(load.failures(), 0);
    load.end();
    assert!((0.3..0.4).contains(&level), "it settled at {level}");
}
