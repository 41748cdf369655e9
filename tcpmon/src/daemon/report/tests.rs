//! The report's figures against those of the metrics.

use super::*;
use crate::export::levels::{Holder, KernelCounts};
use tcpmon_common::TimeWaits;

#[test]
fn entries_that_no_probe_saw_are_in_the_report_as_in_the_metrics() {
    let holder = |service: Option<&str>| Holder {
        service: service.map(Arc::from),
        dst: [10, 0, 0, 2].into(),
        dport: Some(443),
    };
    let named = |netns: &str| NamespaceSample { netns: netns.into(), ..Default::default() };
    let sample = TimeWaitSample {
        counts: vec![("blue".into(), TimeWaits { nameless: 8, ..TimeWaits::default() })],
        entered: vec![(("shop".into(), Some("api".into())), 10), (("shop".into(), None), 2)],
        namespaces: vec![
            NamespaceSample {
                missed_entered: 3,
                holders: vec![(holder(Some("api")), 4), (holder(None), 1)],
                ..named("shop")
            },
            // The kernel alone has counted.
            NamespaceSample {
                kernel: Some(KernelCounts { entered: 7, reused: 0 }),
                holders: vec![(holder(None), 6)],
                ..named("blue")
            },
            NamespaceSample { missed_entered: 1, ..named("gone") },
            NamespaceSample {
                kernel: Some(KernelCounts { entered: 0, reused: 0 }),
                ..named("idle")
            },
        ],
        ..TimeWaitSample::default()
    };
    let rows = time_wait(&sample, &Growth::default());
    let told: Vec<_> = rows
        .iter()
        .map(|row| (&*row.netns, &*row.service, row.sockets, row.entered_total))
        .collect();
    let wanted = [
        ("blue", "unknown", Some(6), 7),
        ("shop", "api", Some(4), 10),
        ("shop", "unknown", Some(1), 5),
        ("blue", "other", None, 8),
        ("gone", "unknown", None, 1),
    ];
    assert_eq!(told, wanted);
}
