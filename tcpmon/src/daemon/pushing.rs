//! Handing alerts to Alertmanager.

use super::{alerting::Push, settings::Settings};
use crate::{
    export::alertmanager::{self, Alert, AlertPusher, Annotations, Labels},
    model::report::{AlertRow, OwnerPorts},
};
use jiff::Timestamp;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// Where the page about an alert is.
const RUNBOOKS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "docs/runbooks/");

/// Starts telling the Alertmanagers of the settings, if there are any.
pub(super) fn start(
    settings: &Settings,
    listeners: &[(SocketAddr, TcpListener)],
) -> Option<Arc<AlertPusher>> {
    if settings.alertmanagers.is_empty() {
        return None;
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let port = listeners.first().map(|(address, _)| address.port());
    let mut told = alertmanager::Settings::new(settings.alertmanagers.clone(), host.clone().into());
    told.generator_url = port.map(|port| format!("http://{host}:{port}/").into());
    Some(Arc::new(AlertPusher::start(told)))
}

/// What hands it the alerts that fire.
pub(super) fn to(pusher: &Arc<AlertPusher>) -> Push {
    let pusher = Arc::clone(pusher);
    Box::new(move |rows| pusher.set(rows.iter().map(alert).collect()))
}

fn alert(row: &AlertRow) -> Alert {
    Alert {
        labels: Labels {
            alertname: row.alert.as_str().into(),
            severity: row.severity,
            netns: row.netns.as_str().into(),
            src: row.src.parse().ok(),
            dst: row.dst.parse().ok(),
            dport: row.dport,
            service: (!row.service.is_empty()).then(|| row.service.as_str().into()),
        },
        annotations: Annotations {
            summary: row.summary.clone(),
            description: row.summary.clone(),
            owners: owners(&row.owners, if row.dst.is_empty() { "sockets" } else { "ports" }),
            advice: row.advice.join("\n"),
            runbook_url: format!("{RUNBOOKS}{}.md", row.alert),
        },
        starts_at: row.since.parse().unwrap_or_else(|_| Timestamp::now()),
    }
}

fn owners(owners: &[OwnerPorts], of_what: &str) -> String {
    let text = owners.iter().map(|it| format!("{} ({} {of_what})", it.service, it.ports));
    text.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Severity;

    #[test]
    fn a_row_becomes_an_alert() {
        let row = AlertRow {
            alert: "TcpPortExhausted".into(),
            severity: Severity::Critical,
            netns: "shop".into(),
            src: "10.0.0.1".into(),
            dst: "10.0.0.2".into(),
            dport: Some(443),
            service: String::new(),
            summary: "refused".into(),
            since: "2026-01-01T00:00:00Z".into(),
            owners: vec![OwnerPorts { service: "api".into(), ports: 7 }],
            advice: vec!["one".into(), "two".into()],
        };
        let alert = alert(&row);
        assert_eq!(alert.labels.dst, Some([10, 0, 0, 2].into()));
        assert_eq!(alert.annotations.owners, "api (7 ports)");
        assert_eq!(alert.annotations.advice, "one\ntwo");
        assert!(alert.annotations.runbook_url.ends_with("docs/runbooks/TcpPortExhausted.md"));
        assert_eq!(alert.starts_at.to_string(), row.since);
        let odd = AlertRow { src: String::new(), since: "never".into(), ..row };
        assert_eq!(super::alert(&odd).labels.src, None);
    }
}
