//! Situations, and which advice is given in each and which is not.

use super::*;
use crate::{
    model::{
        ports::{PortRange, PortSet},
        sysctls::Sysctls,
    },
    pressure::{
        Pressure,
        usage::tests::{holder, namespace, route},
    },
};
use std::time::Duration;

fn sysctls(reuse: u8, timestamps: u8) -> Sysctls {
    Sysctls {
        tcp_tw_reuse: Some(reuse),
        tcp_timestamps: Some(timestamps),
        tcp_fin_timeout: Some(60),
        tcp_max_tw_buckets: Some(65_536),
        ip_local_port_range: PortRange::new(32_768, 60_999),
        ip_local_reserved_ports: Some(PortSet::default()),
        ..Sysctls::default()
    }
}

/// Twenty thousand waiting and some live, over the wire.
fn waiting(sysctls: &Sysctls) -> Shortage<'_> {
    Shortage {
        sysctls,
        route: Some(route("10.0.0.1", "10.0.0.2")),
        capacity: 28_232,
        live: 100,
        time_wait: 20_000,
        fin_wait2: 0,
        without_timestamps: 0,
        rate: Some(333.0),
    }
}

fn ids(short: &Shortage<'_>) -> Vec<String> {
    short_of_ports(short).into_iter().map(|it| it.id).collect()
}

#[test]
fn each_situation_has_what_helps_and_nothing_else() {
    const ALWAYS: &str = "more-sources more-destinations own-range";
    let near = Some(route("127.0.0.1", "127.0.0.1"));
    let (off, on, local, bare) = (sysctls(0, 1), sysctls(1, 1), sysctls(2, 1), sysctls(0, 0));
    let wide = Sysctls { ip_local_port_range: PortRange::new(1_024, 65_535), ..sysctls(0, 1) };
    let quick = Sysctls { tcp_fin_timeout: Some(10), ..sysctls(0, 1) };
    let unknown = Sysctls::default();
    for (what, short, wanted) in [
        ("waiting", waiting(&off), "keep-alive other-side-first tcp-tw-reuse wider-range"),
        ("taken over already", waiting(&on), "keep-alive other-side-first wider-range"),
        ("2, over a wire", waiting(&local), "keep-alive other-side-first tcp-tw-reuse wider-range"),
        (
            "2, on loopback",
            Shortage { route: near, ..waiting(&local) },
            "keep-alive other-side-first wider-range",
        ),
        (
            "timestamps off here",
            Shortage { without_timestamps: 20_000, ..waiting(&bare) },
            "keep-alive other-side-first tcp-timestamps wider-range",
        ),
        (
            "timestamps off there",
            Shortage { without_timestamps: 20_000, ..waiting(&off) },
            "keep-alive other-side-first wider-range",
        ),
        ("wide already", waiting(&wide), "keep-alive other-side-first tcp-tw-reuse"),
        (
            "FINs awaited",
            Shortage { fin_wait2: 20_000, ..waiting(&off) },
            "keep-alive other-side-first tcp-fin-timeout wider-range",
        ),
        (
            "FINs awaited, not for long",
            Shortage { fin_wait2: 20_000, ..waiting(&quick) },
            "keep-alive other-side-first wider-range",
        ),
        (
            "open connections",
            Shortage { live: 20_000, time_wait: 100, ..waiting(&off) },
            "fewer-open wider-range",
        ),
        ("nothing is known", waiting(&unknown), "keep-alive other-side-first"),
    ] {
        let wanted: Vec<&str> = wanted.split(' ').chain(ALWAYS.split(' ')).collect();
        assert_eq!(ids(&short), wanted, "{what}");
    }
}

#[test]
fn the_figures_are_those_of_the_machine() {
    let off = sysctls(0, 1);
    let advice = short_of_ports(&waiting(&off));
    let find = |id: &str| advice.iter().find(|it| it.id == id).expect(id);
    let reuse = find("tcp-tw-reuse");
    assert_eq!(reuse.command, "sysctl -w net.ipv4.tcp_tw_reuse=1");
    assert!(reuse.effect.contains("up to 20000 ports at once"), "{}", reuse.effect);
    assert!(reuse.effect.contains("28232 connections a second instead of 471"), "{}", reuse.effect);
    let wider = find("wider-range");
    assert_eq!(wider.command, "sysctl -w net.ipv4.ip_local_port_range=\"2048 65001\"");
    assert!(wider.effect.starts_with("34722 ports more"), "{}", wider.effect);
    assert!(find("keep-alive").reason.contains("333 new connections a second"));
    for it in &advice {
        for part in [&it.title, &it.reason, &it.effect, &it.risk, &it.unless] {
            assert!(!part.is_empty() && !part.contains('\n') && !part.contains("  "), "{it:?}");
        }
    }
}

#[test]
fn a_host_at_ease_gets_no_advice_and_a_server_is_left_alone() {
    let facts = |netns| Facts { at: Duration::ZERO, namespaces: vec![netns] };
    let told = |netns| {
        let mut pressure = Pressure::default();
        let told = pressure.step(&facts(netns)).advice;
        told.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    let mut calm = holder(route("10.0.0.1", "10.0.0.2"), true);
    calm.live = 1;
    assert_eq!(told(namespace(0, vec![calm])), [""; 0]);
    let server = NamespaceFacts { time_wait: Some(900_000), ..namespace(0, Vec::new()) };
    let server = NamespaceFacts {
        sysctls: Sysctls { tcp_max_tw_buckets: Some(2_000_000), ..server.sysctls },
        ..server
    };
    assert_eq!(told(server), ["server-time-wait"]);
}

#[test]
fn advice_is_for_the_namespace_whose_sysctls_it_is_about() {
    let full = |inode, name: &str, first| {
        let mut holder = holder(route("10.0.0.1", "10.0.0.2"), true);
        (holder.live, holder.time_wait) = (10, 70);
        let mut netns = NamespaceFacts { inode, netns: name.into(), ..namespace(0, vec![holder]) };
        netns.sysctls.ip_local_port_range = PortRange::new(first, first + 99);
        netns
    };
    let namespaces = vec![full(1, "host", 20_000), full(2, "blue", 20_000)];
    let facts = Facts { at: Duration::ZERO, namespaces };
    let told = Pressure::default().step(&facts).advice;
    for name in ["host", "blue"] {
        for id in ["wider-range", "tcp-tw-reuse"] {
            let those = told.iter().filter(|it| it.netns == name && it.id == id);
            assert_eq!(those.count(), 1, "{name} {id}: {told:?}");
        }
    }
    assert!(told.iter().all(|it| ["host", "blue"].contains(&&*it.netns)), "{told:?}");
}

#[test]
fn ports_that_may_be_taken_over_are_no_reason() {
    let mut reusable = holder(route("10.0.0.1", "10.0.0.2"), true);
    (reusable.live, reusable.time_wait, reusable.time_wait_young, reusable.fin_wait2) =
        (1, 88, 0, 0);
    let mut pressure = Pressure::default();
    for second in 0..30 {
        let netns = namespace(1, vec![reusable.clone()]);
        let facts = Facts { at: Duration::from_secs(second), namespaces: vec![netns] };
        let told = pressure.step(&facts);
        assert!(told.firing.is_empty() && told.advice.is_empty(), "{told:?}");
    }
}

#[test]
fn a_refusal_has_advice_though_nobody_is_seen_to_hold_a_port() {
    let far = route("10.0.0.1", "10.0.0.2");
    let advised = |bound_ports| {
        let netns =
            NamespaceFacts { bound_ports, sysctls: sysctls(0, 1), ..namespace(0, Vec::new()) };
        nobody_seen(&netns, far).into_iter().map(|it| it.id).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(advised(None), "wider-range more-sources more-destinations own-range");
    assert_eq!(advised(Some(100)), "wider-range more-sources more-destinations own-range");
    assert_eq!(advised(Some(28_232)), "wider-range", "bind() has taken them all");
}
