//! Telling of alerts: in the journal when one begins or ends, and as rows for whoever shows them.

use crate::{
    export::{labels::label, pressure::AlertSample},
    model::report::{AlertRow, OwnerPorts, Severity},
    pressure::{
        Assessment,
        alerts::{Alert, Change, Subject},
        facts::Share,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Alerts that have ended and are still shown with 0, at most.
const PAST: usize = 200;

/// An alert as everybody shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its row in the report.
    pub row: AlertRow,
    /// Its metric.
    pub sample: AlertSample,
}

/// What is handed all alerts that fire, each time that they were judged.
pub type Push = Box<dyn Fn(&[AlertRow]) + Send + Sync>;

/// What has been told.
#[derive(Default)]
pub struct Alerting {
    /// Since when those that fire do, in RFC 3339.
    since: BTreeMap<(Subject, Severity), String>,
    /// Metrics of those that have ended, the oldest first.
    past: Vec<AlertSample>,
    push: Option<Push>,
}

impl std::fmt::Debug for Alerting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alerting").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Alerting {
    /// Tells `push` too.
    #[must_use]
    pub fn new(push: Option<Push>) -> Self {
        Self { push, ..Self::default() }
    }

    /// Tells what has changed, and returns all that fire and the metrics of those that have.
    pub fn tell(&mut self, assessment: &Assessment) -> Arc<Vec<Told>> {
        let now = jiff::Timestamp::now().to_string();
        for change in &assessment.changes {
            let (Change::Raised(alert) | Change::Resolved(alert)) = change;
            let sample = sample(alert);
            let is_raised = matches!(change, Change::Raised(_));
            let key = (alert.subject.clone(), alert.severity);
            if is_raised {
                self.past.retain(|it| *it != ended(&sample));
                self.since.insert(key, now.clone());
            } else if self.since.remove(&key).is_some() {
                self.past.retain(|it| *it != ended(&sample));
                self.past.push(ended(&sample));
                let excess = self.past.len().saturating_sub(PAST);
                self.past.drain(..excess);
            }
            journal(alert, is_raised);
        }
        let mut told: Vec<Told> = assessment
            .firing
            .iter()
            .map(|alert| {
                let sample = sample(alert);
                let key = (alert.subject.clone(), alert.severity);
                let since = self.since.get(&key).unwrap_or(&now).clone();
                Told { row: row(alert, since), sample }
            })
            .collect();
        if let Some(push) = &self.push {
            let rows: Vec<AlertRow> = told.iter().map(|it| it.row.clone()).collect();
            push(&rows);
        }
        // Of two owners with the same labels one may have ended and the other not.
        let firing: BTreeSet<AlertSample> = told.iter().map(|it| ended(&it.sample)).collect();
        let past = self.past.iter().filter(|it| !firing.contains(*it));
        told.extend(past.map(|sample| Told { row: AlertRow::default(), sample: sample.clone() }));
        Arc::new(told)
    }
}

fn ended(sample: &AlertSample) -> AlertSample {
    AlertSample { firing: false, ..sample.clone() }
}

/// The metric of an alert that fires.
fn sample(alert: &Alert) -> AlertSample {
    let words = alert.subject.route.map_or_else(Default::default, |route| {
        [route.src.to_string(), route.dst.to_string(), route.dport.to_string()]
    });
    AlertSample {
        alert: alert.subject.name.name(),
        severity: alert.severity.name(),
        netns: Arc::clone(&alert.subject.netns),
        route: words,
        firing: true,
    }
}

/// Owners with the names that metrics have for them.
#[must_use]
pub fn owners(shares: &[Share]) -> Vec<OwnerPorts> {
    let name = |share: &Share| label(share.owner.clone()).to_string();
    shares.iter().map(|it| OwnerPorts { service: name(it), ports: it.ports }).collect()
}

fn row(alert: &Alert, since: String) -> AlertRow {
    let [src, dst, _] = sample(alert).route;
    AlertRow {
        alert: alert.subject.name.name().to_owned(),
        severity: alert.severity,
        netns: alert.subject.netns.to_string(),
        src,
        dst,
        dport: alert.subject.route.map(|route| route.dport),
        service: alert.subject.owner.as_deref().unwrap_or_default().to_owned(),
        summary: alert.summary.clone(),
        since,
        owners: owners(&alert.owners),
        advice: alert.advice.clone(),
    }
}

/// One line, of words that a program can take apart: names are somebody else's, so they are quoted
/// and what is not to be printed is escaped.
fn journal(alert: &Alert, is_raised: bool) {
    let sample = sample(alert);
    let [src, dst, dport] = &sample.route;
    let owners: Vec<String> = owners(&alert.owners)
        .into_iter()
        .map(|it| format!("{}:{}", it.service, it.ports))
        .collect();
    let line = format!(
        "alert={} state={} severity={} netns={:?} src={src} dst={dst} dport={dport} summary={:?} \
         owners={:?} advice={:?}",
        sample.alert,
        if is_raised { "raised" } else { "resolved" },
        sample.severity,
        sample.netns,
        alert.summary,
        owners.join(" "),
        alert.advice.first().map_or("", String::as_str),
    );
    if is_raised {
        log::warn!("{line}");
    } else {
        log::info!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::{alerts::AlertName, facts::Route};
    use std::time::Duration;

    fn alert(severity: Severity) -> Alert {
        let ip = |last| [10, 0, 0, last].into();
        Alert {
            subject: Subject {
                name: AlertName::PortsNearlyExhausted,
                netns: "shop".into(),
                route: Some(Route { src: ip(1), dst: ip(2), dport: 443 }),
                owner: None,
            },
            severity,
            since: Duration::from_secs(5),
            summary: "80 of 100".into(),
            owners: vec![Share { owner: None, ports: 80 }],
            advice: vec!["one: command".into()],
        }
    }

    #[test]
    fn what_fires_has_a_row_and_what_has_ended_a_zero() {
        let mut alerting = Alerting::default();
        let warning = alert(Severity::Warning);
        let raised = Assessment {
            changes: vec![Change::Raised(warning.clone())],
            firing: vec![warning.clone()],
            ..Assessment::default()
        };
        let told = alerting.tell(&raised);
        assert_eq!(told.len(), 1);
        let row = &told[0].row;
        assert_eq!(
            (&*row.alert, &*row.dst, row.dport),
            ("TcpPortsNearlyExhausted", "10.0.0.2", Some(443))
        );
        assert_eq!(row.owners, [OwnerPorts { service: "unknown".into(), ports: 80 }]);
        assert!(told[0].sample.firing && !row.since.is_empty());
        // It gets worse: one series ends, another begins, and it fires since the change.
        let critical = alert(Severity::Critical);
        let told = alerting.tell(&Assessment {
            changes: vec![Change::Resolved(warning), Change::Raised(critical.clone())],
            firing: vec![critical.clone()],
            ..Assessment::default()
        });
        let series: Vec<_> = told.iter().map(|it| (it.sample.severity, it.sample.firing)).collect();
        assert_eq!(series, [("critical", true), ("warning", false)]);
        let told = alerting.tell(&Assessment {
            changes: vec![Change::Resolved(critical)],
            ..Assessment::default()
        });
        assert!(told.iter().all(|it| !it.sample.firing) && told.len() == 2);
        // And fires again.
        let told = alerting.tell(&raised);
        let series: Vec<_> = told.iter().map(|it| (it.sample.severity, it.sample.firing)).collect();
        assert_eq!(series, [("warning", true), ("critical", false)]);
    }

    #[test]
    fn whoever_is_to_be_pushed_to_has_all_that_fires() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let push: Push = Box::new(move |rows| {
            let _ = sender.send(rows.len());
        });
        let mut alerting = Alerting::new(Some(push));
        let firing = vec![alert(Severity::Info)];
        alerting.tell(&Assessment { firing, ..Assessment::default() });
        alerting.tell(&Assessment::default());
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 0]);
    }
}
