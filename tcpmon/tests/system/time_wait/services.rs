//! Who made these sixty thousand TIME_WAIT sockets, and towards what?

use std::collections::BTreeMap;

use xtask::lab::{Addresses, Recipe, Role};

use crate::support::books::{Auditor, PROMPT, sum};
use crate::support::daemon::Daemon;
use crate::support::expected::service_of;
use crate::support::exposition::Metrics;
use crate::support::turn::{SteadyProbes, Turn};
use crate::support::{eventually, lab, slowness};

/// Of the first service; the others leave twice and three times as many.
const FEWEST: u64 = 10_000;

/// Whose, where, towards what: address and port, which at an accepting end is every client's own.
type Key = (String, String, String, String);

fn figures(metrics: &Metrics, namespaces: &[String]) -> BTreeMap<Key, u64> {
    let series = metrics.series("tcpmon_time_wait_sockets");
    let own = series.filter(|(labels, _)| namespaces.contains(&labels["netns"]));
    own.map(|(labels, value)| {
        let [service, netns, dst, dport] =
            ["service", "netns", "dst", "dport"].map(|name| labels[name].clone());
        ((service, netns, dst, dport), value.parse().expect("a count"))
    })
    .filter(|(_, count)| *count > 0)
    .collect()
}

fn are_named_with_their_figures(fewest: u64, addresses: Addresses) {
    // The first must not have left before the last has come: they wait for a minute.
    let fewest = fewest / u64::from(slowness());
    let turn = Turn::shared();
    // Other tests' destinations must not crowd ours out.
    let daemon = Daemon::start(&turn, &[&PROMPT[..], &["--top", "10000"]].concat());
    let mut lab = lab::open(addresses);
    let namespaces = lab.prepare(Recipe::ThreeServices).expect("two namespaces");
    let mut auditor = Auditor::new(&daemon);
    for netns in &namespaces {
        auditor.begin(netns);
    }
    let steady = SteadyProbes::hold();
    let done = lab.perform(Recipe::ThreeServices, Some(fewest)).expect("three services");
    drop(steady);
    auditor.check_now("three services", &namespaces);

    let mut wanted: BTreeMap<Key, u64> = BTreeMap::new();
    for service in &done.services {
        let dport = match service.role {
            Role::Active => service.port.to_string(),
            Role::Passive | Role::Listener => "any".to_owned(),
        };
        for (ip, count) in &service.time_wait {
            let name = service_of(&service.process);
            let key = (name, service.netns.name.clone(), ip.to_string(), dport.clone());
            *wanted.entry(key).or_default() += count;
        }
    }
    let names: Vec<String> = namespaces.iter().map(|netns| netns.name.clone()).collect();
    let mut told = BTreeMap::new();
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the figures", || {
            told = figures(&daemon.metrics(), &names);
            (told == wanted).then_some(())
        });
    }));
    assert!(reached.is_ok(), "told {told:#?}, wanted {wanted:#?}");
    // Who entered is counted as well, in the same names.
    let metrics = daemon.metrics();
    for service in &done.services {
        let name = service_of(&service.process);
        let ours = done
            .services
            .iter()
            .filter(|other| service_of(&other.process) == name && other.netns == service.netns);
        let wanted: u64 = ours.flat_map(|service| service.time_wait.values()).sum();
        let labels = [("service", name.as_str())];
        let entered = sum(&metrics, "tcpmon_time_wait_entered_total", &service.netns.name, &labels);
        assert_eq!(entered, wanted, "{service:?}");
    }
}

#[test]
fn three_services_are_named_with_their_figures() {
    are_named_with_their_figures(FEWEST, Addresses::Ipv4);
}

#[test]
fn three_services_are_named_with_their_figures_ipv6() {
    are_named_with_their_figures(FEWEST / 10, Addresses::Ipv6);
}
