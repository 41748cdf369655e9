//! The families about pushing alerts.

use super::{super::families::Family, Counts};

/// What became of the alerts, by Alertmanager.
#[must_use]
pub fn families(counts: &[Counts]) -> Vec<Family> {
    let family = |mut family: Family, value: fn(&Counts) -> u64| {
        for count in counts {
            family.add_count(&[("alertmanager", &count.alertmanager)], value(count));
        }
        family
    };
    vec![
        family(
            Family::counter(
                "tcpmon_alertmanager_alerts_sent_total",
                "Alerts that an Alertmanager took, repetitions and ends included.",
            ),
            |counts| counts.sent,
        ),
        family(
            Family::counter(
                "tcpmon_alertmanager_push_failures_total",
                "Pushes of alerts that an Alertmanager did not take.",
            ),
            |counts| counts.failed,
        ),
        family(
            Family::counter(
                "tcpmon_alertmanager_alerts_dropped_total",
                "Alerts that were not pushed, since there were too many at once.",
            ),
            |counts| counts.dropped,
        ),
        family(
            Family::gauge(
                "tcpmon_alertmanager_queue_length",
                "Alerts that an Alertmanager has still to be told.",
            ),
            |counts| counts.queued,
        ),
    ]
}
