//! The families about port pressure: use by destination, how long it will last, and alerts.

use super::{
    families::{Family, to_f64},
    labels::OTHER,
    top::first,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// What the rules made of the facts, as far as metrics show it.
#[derive(Clone, Debug, Default)]
pub struct PressureSample {
    /// Routes on which ports are held.
    pub routes: Vec<RouteSample>,
    /// Alerts that fire, and those that have fired since the daemon began.
    pub alerts: Vec<AlertSample>,
}

/// Ports of one network namespace towards one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSample {
    /// Name of the network namespace.
    pub netns: Arc<str>,
    /// Local address.
    pub src: IpAddr,
    /// Remote address.
    pub dst: IpAddr,
    /// Remote port.
    pub dport: u16,
    /// Ports held by live sockets.
    pub live: u64,
    /// Ports in TIME_WAIT that block a connect().
    pub time_wait: u64,
    /// Ports in TIME_WAIT that a connect() may take over.
    pub time_wait_reusable: u64,
    /// Ports that block, over the capacity; `None` where that is not known.
    pub ratio: Option<f64>,
    /// Seconds until the ports run out at the present rate: infinite where they do not; `None`
    /// where that is not known.
    pub eta_seconds: Option<f64>,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertSample {
    /// Its name.
    pub alert: &'static str,
    /// `info`, `warning` or `critical`.
    pub severity: &'static str,
    /// Name of the network namespace.
    pub netns: Arc<str>,
    /// The route, empty where it is about none.
    pub route: [String; 3],
    /// Whether it fires now.
    pub firing: bool,
}

impl RouteSample {
    /// Ports that a connect() towards there does not get.
    fn blocking(&self) -> u64 {
        self.live + self.time_wait
    }

    /// As many of each of [`KINDS`].
    fn used(&self) -> [u64; 3] {
        [self.live, self.time_wait, self.time_wait_reusable]
    }
}

/// What is left of a namespace's routes that have no line of their own.
#[derive(Default)]
struct Rest {
    used: [u64; 3],
    ratio: Option<f64>,
    eta_seconds: Option<f64>,
}

/// All families of this module, with at most `top` routes.
pub(super) fn families(sample: PressureSample, top: usize) -> [Family; 4] {
    let mut used = Family::gauge(
        "tcpmon_ephemeral_ports_used",
        "Local ports that connect() chose and that are held towards a destination: by live \
         sockets, in TIME_WAIT, or in TIME_WAIT where a new connect() may take them over.",
    );
    let mut ratio = Family::gauge(
        "tcpmon_ephemeral_port_utilization_ratio",
        "Ports that block a new connect() towards a destination, over all that there are for it; \
         under other, the highest of the rest.",
    );
    let mut eta = Family::gauge(
        "tcpmon_port_exhaustion_eta_seconds",
        "Seconds until the ports towards a destination run out at the present rate, +Inf: they do \
         not; under other, the soonest of the rest.",
    );
    let mut routes = sample.routes;
    // The busiest first; of equal ones always the same, so that series do not come and go.
    first(&mut routes, top, |a, b| {
        let pressure = |it: &RouteSample| it.ratio.unwrap_or(0.0);
        pressure(b)
            .total_cmp(&pressure(a))
            .then_with(|| b.blocking().cmp(&a.blocking()))
            .then_with(|| (&a.netns, a.src, a.dst, a.dport).cmp(&(&b.netns, b.src, b.dst, b.dport)))
    });
    let mut rest: BTreeMap<Arc<str>, Rest> = BTreeMap::new();
    let mut add = |netns: &str, [src, dst, dport]: [&str; 3], line: &Rest| {
        let route = [("netns", netns), ("src", src), ("dst", dst), ("dport", dport)];
        for (kind, count) in KINDS.into_iter().zip(line.used) {
            let [a, b, c, d] = route;
            used.add_count(&[a, b, c, d, ("kind", kind)], count);
        }
        if let Some(value) = line.ratio {
            ratio.add(&route, value);
        }
        if let Some(value) = line.eta_seconds {
            eta.add(&route, value);
        }
    };
    for (place, route) in routes.into_iter().enumerate() {
        let counts = route.used();
        if place >= top {
            let rest = rest.entry(Arc::clone(&route.netns)).or_default();
            for (sum, count) in rest.used.iter_mut().zip(counts) {
                *sum += count;
            }
            rest.ratio = extreme(rest.ratio, route.ratio, f64::max);
            rest.eta_seconds = extreme(rest.eta_seconds, route.eta_seconds, f64::min);
            continue;
        }
        let words = [route.src.to_string(), route.dst.to_string(), route.dport.to_string()];
        let line = Rest { used: counts, ratio: route.ratio, eta_seconds: route.eta_seconds };
        add(&route.netns, [&words[0], &words[1], &words[2]], &line);
    }
    for (netns, line) in &rest {
        add(netns, [OTHER; 3], line);
    }
    [used, ratio, eta, alerts(sample.alerts, top)]
}

/// Kinds of use, in the order in which they are counted.
const KINDS: [&str; 3] = ["live", "time_wait", "time_wait_reusable"];

/// The worst first.
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

fn extreme(a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(choose(a, b)),
        (one, other) => one.or(other),
    }
}

/// At most `top` alerts, the most severe that fire first; the others by name, severity and network
/// namespace.
fn alerts(mut alerts: Vec<AlertSample>, top: usize) -> Family {
    let mut family =
        Family::gauge("tcpmon_alert_firing", "1: the alert fires; 0: it has, and does not now.");
    let rank = |it: &AlertSample| {
        (!it.firing, SEVERITIES.iter().position(|severity| *severity == it.severity))
    };
    alerts.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    // Two owners may have the same labels: it fires if one does, and that one comes first.
    let mut series: BTreeMap<AlertSample, bool> = BTreeMap::new();
    for alert in alerts {
        let firing = alert.firing;
        let mut key = AlertSample { firing: true, ..alert };
        if series.len() >= top
            && !series.contains_key(&key)
            && key.route != <[String; 3]>::default()
        {
            key.route = [OTHER; 3].map(str::to_owned);
        }
        *series.entry(key).or_default() |= firing;
    }
    for (alert, firing) in series {
        let [src, dst, dport] = &alert.route;
        let labels = [
            ("alert", alert.alert),
            ("severity", alert.severity),
            ("netns", &alert.netns),
            ("src", src),
            ("dst", dst),
            ("dport", dport),
        ];
        family.add(&labels, to_f64(firing.into()));
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder as _, TextEncoder};

    fn route(last: u8, live: u64, ratio: f64) -> RouteSample {
        RouteSample {
            netns: "shop".into(),
            src: "10.0.0.1".parse().expect("an address"),
            dst: [10, 0, 1, last].into(),
            dport: 443,
            live,
            time_wait: 2,
            time_wait_reusable: 3,
            ratio: Some(ratio),
            eta_seconds: Some(f64::from(last)),
        }
    }

    fn text(sample: PressureSample, top: usize) -> String {
        let families: Vec<_> =
            families(sample, top).into_iter().filter_map(Family::finish).collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("text");
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn the_fullest_have_lines_and_the_rest_is_added_up() {
        let routes = vec![route(1, 10, 0.1), route(2, 90, 0.9), route(3, 20, 0.2)];
        let text = text(PressureSample { routes, alerts: Vec::new() }, 1);
        for line in [
            r#"tcpmon_ephemeral_ports_used{netns="shop",src="10.0.0.1",dst="10.0.1.2",dport="443",kind="live"} 90"#,
            r#"tcpmon_ephemeral_ports_used{netns="shop",src="other",dst="other",dport="other",kind="live"} 30"#,
            r#"tcpmon_ephemeral_ports_used{netns="shop",src="other",dst="other",dport="other",kind="time_wait_reusable"} 6"#,
            r#"tcpmon_ephemeral_port_utilization_ratio{netns="shop",src="other",dst="other",dport="other"} 0.2"#,
            r#"tcpmon_port_exhaustion_eta_seconds{netns="shop",src="other",dst="other",dport="other"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(text.matches("kind=\"live\"").count(), 2);
    }

    #[test]
    fn what_is_not_known_is_not_shown_and_never_is_infinite() {
        let unknown = RouteSample { ratio: None, eta_seconds: None, ..route(1, 5, 0.0) };
        let never = RouteSample { eta_seconds: Some(f64::INFINITY), ..route(2, 5, 0.5) };
        let text = text(PressureSample { routes: vec![unknown, never], alerts: Vec::new() }, 9);
        assert_eq!(text.matches("tcpmon_ephemeral_port_utilization_ratio{").count(), 1, "{text}");
        assert!(text.contains("dport=\"443\"} inf"), "{text}");
    }

    #[test]
    fn an_alert_has_its_labels() {
        let alert = AlertSample {
            alert: "TcpPortExhausted",
            severity: "critical",
            netns: "shop".into(),
            route: ["10.0.0.1".into(), "10.0.1.2".into(), "443".into()],
            firing: true,
        };
        let text = text(PressureSample { routes: Vec::new(), alerts: vec![alert] }, 9);
        let line = r#"tcpmon_alert_firing{alert="TcpPortExhausted",severity="critical",netns="shop",src="10.0.0.1",dst="10.0.1.2",dport="443"} 1"#;
        assert!(text.contains(line), "{text}");
    }
}
