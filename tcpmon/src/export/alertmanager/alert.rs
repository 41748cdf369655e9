//! An alert, and how Alertmanager wants it written.

use crate::model::report::Severity;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::{fmt::Display, net::IpAddr, sync::Arc};

/// Bytes of an annotation at most: more than anybody reads.
const LONGEST: usize = 4096;

/// An alert that fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Which it is.
    pub labels: Labels,
    /// What people are told.
    pub annotations: Annotations,
    /// Since when it fires.
    pub starts_at: Timestamp,
}

/// What tells one alert from another. What is not known, or not meant, is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Labels {
    /// Its name.
    #[serde(serialize_with = "shown")]
    pub alertname: Arc<str>,
    /// How bad it is. An alert that gets worse is another one, and the first has ended.
    pub severity: Severity,
    /// The network namespace.
    #[serde(skip_serializing_if = "is_empty", serialize_with = "shown")]
    pub netns: Arc<str>,
    /// Local address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Remote address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Remote port.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown_option")]
    pub dport: Option<u16>,
    /// The service, where the alert is about one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown_option")]
    pub service: Option<Arc<str>>,
}

/// What people are told. What is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Annotations {
    /// One line.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "shortened")]
    pub summary: String,
    /// What is the matter, in figures.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "shortened")]
    pub description: String,
    /// Who holds most ports.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "shortened")]
    pub owners: String,
    /// What to do.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "shortened")]
    pub advice: String,
    /// The page about this alert.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "shortened")]
    pub runbook_url: String,
}

/// An alert as the API takes it (`postableAlert`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Postable<'a> {
    pub(super) labels: PostableLabels<'a>,
    pub(super) annotations: &'a Annotations,
    #[serde(serialize_with = "shown")]
    pub(super) starts_at: Timestamp,
    /// In the past: it has ended.
    #[serde(serialize_with = "shown")]
    pub(super) ends_at: Timestamp,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    pub(super) generator_url: Option<&'a str>,
}

/// The labels, and whose they are.
#[derive(Debug, Serialize)]
pub(super) struct PostableLabels<'a> {
    #[serde(flatten)]
    pub(super) own: &'a Labels,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) instance: &'a str,
}

// serde hands over a reference to what it is.
fn is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

/// Writes what serde knows nothing of, and what has to become a text, as all labels do.
fn shown<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The same, of what is there.
#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn shown_option<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Cuts what is too long.
fn shortened<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels() -> Labels {
        Labels {
            alertname: "TcpPortExhausted".into(),
            severity: Severity::Critical,
            netns: "host".into(),
            src: Some([10, 0, 0, 1].into()),
            dst: Some([10, 0, 0, 2].into()),
            dport: Some(5432),
            service: None,
        }
    }

    #[test]
    fn an_alert_is_written_as_the_api_wants_it() {
        let annotations = Annotations { summary: "no \"port\"\n".into(), ..Default::default() };
        let postable = Postable {
            labels: PostableLabels { own: &labels(), instance: "db-7" },
            annotations: &annotations,
            starts_at: Timestamp::from_second(1_700_000_000).expect("a time"),
            ends_at: Timestamp::from_millisecond(1_700_000_240_500).expect("a time"),
            generator_url: Some("http://db-7:10066/"),
        };
        assert_eq!(
            serde_json::to_value(&postable).expect("JSON"),
            json!({
                "labels": {
                    "alertname": "TcpPortExhausted", "severity": "critical", "netns": "host",
                    "src": "10.0.0.1", "dst": "10.0.0.2", "dport": "5432", "instance": "db-7",
                },
                "annotations": {"summary": "no \"port\"\n"},
                "startsAt": "2023-11-14T22:13:20Z",
                "endsAt": "2023-11-14T22:17:20.5Z",
                "generatorURL": "http://db-7:10066/",
            })
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let own = Labels { netns: "".into(), src: None, dst: None, dport: None, ..labels() };
        let labels = PostableLabels { own: &own, instance: "" };
        assert_eq!(
            serde_json::to_value(&labels).expect("JSON"),
            json!({"alertname": "TcpPortExhausted", "severity": "critical"})
        );
    }

    #[test]
    fn an_endless_annotation_is_cut_between_two_characters() {
        let annotations = Annotations { advice: "ä".repeat(LONGEST), ..Default::default() };
        let value = serde_json::to_value(&annotations).expect("JSON");
        assert_eq!(value["advice"].as_str().expect("a text").len(), LONGEST);
        let annotations =
            Annotations { advice: format!("x{}", "ä".repeat(LONGEST)), ..Default::default() };
        let value = serde_json::to_value(&annotations).expect("JSON");
        assert_eq!(value["advice"].as_str().expect("a text").len(), LONGEST - 1);
    }
}
