//! `cargo xtask soak`, for seconds: what it measures is there, and the verdict is good. What only
//! an hour shows is for the hour ([docs/soak.md](../../../docs/soak.md)).

use std::time::Duration;

use xtask::soak::{Plan, soak};

use crate::support::lab;
use crate::support::program::TCPMON;
use crate::support::turn::Turn;

#[test]
fn a_short_soak_ends_well() {
    // It attaches probes, and makes connections, beside nobody who counts.
    let _turn = Turn::alone();
    let plan = Plan {
        binary: TCPMON.into(),
        lab: Some(lab::program()),
        duration: Duration::from_secs(15),
        every: Duration::from_secs(5),
        rate: 500,
    };
    let report = soak(&plan).expect("a soak");
    let verdict = report.verdict();
    assert!(verdict.faults.is_empty(), "{verdict:#?}\n{:#?}", report.samples);
    // At the beginning, each five seconds, and at the end.
    assert_eq!(report.samples.len(), 5, "{:#?}", report.samples);
    let last = report.samples.last().expect("a sample");
    assert!(last.memory.resident > 0 && last.descriptors > 3 && last.threads > 1, "{last:#?}");
    assert!(last.kernel > 0 && last.load.namespaces > 0, "{last:#?}");
    // The one slept, and the other did not.
    let accounts = &report.accounts;
    assert!(accounts.sleeper.subscriber > 0, "{accounts:#?}");
    assert!(accounts.tail.shown > accounts.sleeper.shown, "{accounts:#?}");
}
