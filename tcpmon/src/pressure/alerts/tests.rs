//! Moments in a row, and what must be raised and resolved in each.

use super::*;
use crate::{
    model::sysctls::Sysctls,
    pressure::{
        Pressure,
        facts::{CloseWait, NamespaceFacts, PortFailures},
        usage::tests::{holder, namespace, route},
    },
};

fn far() -> Route {
    route("10.0.0.1", "10.0.0.2")
}

/// A namespace of 88 ports with so many live sockets on one route.
fn live(sockets: u64) -> NamespaceFacts {
    let mut holder = holder(far(), true);
    (holder.live, holder.time_wait, holder.time_wait_young, holder.fin_wait2) = (sockets, 0, 0, 0);
    namespace(0, vec![holder])
}

/// What has changed at each second: `+` raised, `-` resolved, the severity's first letter, the name.
fn changes(moments: impl IntoIterator<Item = NamespaceFacts>) -> Vec<Vec<String>> {
    let mut pressure = Pressure::default();
    let step = |(second, netns): (usize, NamespaceFacts)| {
        let at = Duration::from_secs(second as u64);
        let facts = Facts { at, namespaces: vec![netns] };
        let told = pressure.step(&facts).changes.into_iter().map(|change| {
            let (sign, alert) = match change {
                Change::Raised(alert) => ('+', alert),
                Change::Resolved(alert) => ('-', alert),
            };
            let severity = &alert.severity.name()[..1];
            format!("{sign}{severity}{}", &alert.subject.name.name()[3..])
        });
        told.collect()
    };
    moments.into_iter().enumerate().map(step).collect()
}

/// The seconds at which a change comes.
fn seconds(changes: &[Vec<String>], wanted: &str) -> Vec<usize> {
    let is_there = |(second, told): (usize, &Vec<String>)| {
        told.iter().any(|it| it == wanted).then_some(second)
    };
    changes.iter().enumerate().filter_map(is_there).collect()
}

#[test]
fn levels_are_raised_after_a_while_and_resolved_below_where_they_began() {
    // 88 ports: 44 are half, 71 are 0.81, 84 are 0.954.
    let levels = [vec![10; 5], vec![71; 8], vec![84; 8], vec![81; 10], vec![78; 15], vec![60; 30]];
    let told = changes(levels.concat().into_iter().map(live));
    assert_eq!(seconds(&told, "+iPortSearchSlow"), [8]);
    assert_eq!(seconds(&told, "+wPortsNearlyExhausted"), [8, 41], "{told:?}");
    assert_eq!(seconds(&told, "+cPortsNearlyExhausted"), [16]);
    // 81 are 0.92: still critical. 78 are 0.886, and so for ten seconds.
    assert_eq!(seconds(&told, "-cPortsNearlyExhausted"), [41]);
    assert_eq!(seconds(&told, "-wPortsNearlyExhausted"), [16, 56], "60 are 0.68");
    assert_eq!(seconds(&told, "-iPortSearchSlow"), [0usize; 0], "which is above 0.45");
}

#[test]
fn noise_does_not_flap() {
    let level = |second: u64| if second.is_multiple_of(2) { 70 } else { 71 };
    let told = changes((0..120).map(|second| live(level(second))));
    assert!(seconds(&told, "+wPortsNearlyExhausted").len() <= 1, "{told:?}");
    // Around what resolves: once raised it stays.
    let level = |second: u64| if second < 10 { 75 } else { 65 + second % 3 };
    let told = changes((0..120).map(|second| live(level(second))));
    assert_eq!(seconds(&told, "+wPortsNearlyExhausted").len(), 1);
    assert_eq!(seconds(&told, "-wPortsNearlyExhausted").len(), 0);
}

fn refused(total: u64) -> NamespaceFacts {
    let failures = vec![PortFailures { route: far(), owner: Some("api".into()), total }];
    NamespaceFacts { failures, ..live(88) }
}

#[test]
fn a_refusal_is_raised_at_once_and_resolved_a_minute_after_the_last() {
    let totals = [vec![0; 3], vec![4; 10], vec![9; 80]];
    let told = changes(totals.concat().into_iter().map(refused));
    assert_eq!(seconds(&told, "+cPortExhausted"), [3]);
    assert_eq!(seconds(&told, "-cPortExhausted"), [13 + 60]);
}

#[test]
fn an_owner_that_is_missing_from_a_look_raises_nothing_when_it_is_there_again() {
    let both = || {
        let mut both = refused(9);
        both.failures.push(PortFailures { owner: Some("web".into()), ..both.failures[0].clone() });
        both
    };
    // A minute later the trouble is over; then one of the two is missing for a moment.
    let looks = (0..70).map(|_| both()).chain([refused(9)]).chain((0..9).map(|_| both()));
    let told = changes(looks);
    assert_eq!(seconds(&told, "+cPortExhausted"), [0]);
    assert_eq!(seconds(&told, "-cPortExhausted"), [60]);
    // In the middle of it nothing is over because of that.
    let told = changes([both(), refused(9), both()]);
    assert_eq!(
        (seconds(&told, "+cPortExhausted").len(), seconds(&told, "-cPortExhausted").len()),
        (1, 0)
    );
}

#[test]
fn refusals_before_the_first_look_are_news_too() {
    // The probes count from when the daemon begins: these came a moment ago.
    let told = changes([7, 7, 8].map(refused));
    assert_eq!(seconds(&told, "+cPortExhausted"), [0]);
    // A route that was not there before begins at 0.
    let told = changes([live(88), refused(2)]);
    assert_eq!(seconds(&told, "+cPortExhausted"), [1]);
}

#[test]
fn a_refusal_names_who_holds_the_ports() {
    let mut pressure = Pressure::default();
    for (second, total) in [(0, 0), (1, 5)] {
        let facts = Facts { at: Duration::from_secs(second), namespaces: vec![refused(total)] };
        let told = pressure.step(&facts);
        if second == 1 {
            let alert = &told.firing[0];
            assert_eq!(alert.subject.name.name(), "TcpPortExhausted");
            assert_eq!(alert.subject.route, Some(far()));
            assert_eq!(alert.owners, [Share { owner: Some("api".into()), ports: 88 }]);
            assert_eq!(
                alert.summary,
                "5 connect() calls of api to 10.0.0.2:443 were refused for want of a local port"
            );
            assert!(!told.advice.is_empty());
        }
    }
}

/// A load that opens so many connections a second, each of which waits for a minute.
fn load(rate: u64, second: u64) -> NamespaceFacts {
    let mut holder = holder(far(), true);
    holder.live = 0;
    (holder.time_wait, holder.time_wait_young, holder.fin_wait2) = (rate * second.min(60), 0, 0);
    holder.time_wait_entered = rate * second;
    let mut netns = namespace(0, vec![holder]);
    netns.sysctls = Sysctls { tcp_max_tw_buckets: Some(100_000), ..netns.sysctls };
    netns
}

#[test]
fn a_load_that_will_not_fit_is_predicted_and_one_that_fits_is_not() {
    // One a second: 60 of 88 ports.
    let told = changes((0..200).map(|second| load(1, second)));
    assert_eq!(seconds(&told, "+wPortExhaustionPredicted"), [0usize; 0]);
    // Two a second: the 88 ports are gone at 44 s.
    let told = changes((0..44).map(|second| load(2, second)));
    let predicted = seconds(&told, "+wPortExhaustionPredicted");
    assert!(predicted.len() == 1 && predicted[0] <= 8, "{predicted:?}");
}

#[test]
fn the_table_warns_when_it_is_nearly_full_and_cries_when_it_was() {
    let table = |sockets, overflow| NamespaceFacts {
        time_wait: Some(sockets),
        time_wait_overflow: Some(overflow),
        ..namespace(0, Vec::new())
    };
    let moments = [vec![(800, 0); 3], vec![(900, 0); 10], vec![(1_000, 1); 90], vec![(10, 1); 90]];
    let told = changes(moments.concat().into_iter().map(|(level, lost)| table(level, lost)));
    let name = "TimeWaitBucketsNearlyFull";
    assert_eq!(seconds(&told, &format!("+w{name}")), [6, 83], "{told:?}");
    assert_eq!(seconds(&told, &format!("+c{name}")), [13]);
    // A minute after, it is nearly full still; then for ten seconds it is not.
    assert_eq!(seconds(&told, &format!("-c{name}")), [83]);
    assert_eq!(seconds(&told, &format!("-w{name}")), [13, 113]);
}

#[test]
fn a_full_table_names_who_fills_it() {
    let share = |owner: Option<&str>, ports| Share { owner: owner.map(Into::into), ports };
    let owners = vec![share(Some("api"), 900), share(None, 90), share(Some("web"), 10)];
    let facts = |second, overflow| Facts {
        at: Duration::from_secs(second),
        namespaces: vec![NamespaceFacts {
            time_wait: Some(1_000),
            time_wait_overflow: Some(overflow),
            time_wait_owners: owners.clone(),
            ..namespace(0, Vec::new())
        }],
    };
    let mut pressure = Pressure::default();
    pressure.step(&facts(0, 0));
    let told = pressure.step(&facts(1, 1));
    let named: Vec<_> =
        told.firing[0].owners.iter().map(|it| (it.owner.as_deref(), it.ports)).collect();
    assert_eq!(named, [(Some("api"), 900), (None, 90), (Some("web"), 10)]);
}

#[test]
fn close_wait_that_grows_is_a_leak_and_that_stays_is_none() {
    let waiting = |old| NamespaceFacts {
        close_wait: vec![CloseWait { owner: Some("api".into()), sockets: old + 2, old }],
        ..namespace(0, Vec::new())
    };
    let told = changes((0..300).map(|_| waiting(500)));
    assert_eq!(seconds(&told, "+wCloseWaitLeak"), [0usize; 0]);
    let told = changes((0..300).map(|second| waiting(second / 4)));
    let raised = seconds(&told, "+wCloseWaitLeak");
    assert!(raised.len() == 1 && (120..=140).contains(&raised[0]), "{raised:?}");
    let told = changes((0..400).map(|second| waiting(if second < 300 { second / 4 } else { 0 })));
    assert_eq!(seconds(&told, "-wCloseWaitLeak"), [310]);
}

#[test]
fn what_goes_away_is_resolved() {
    let there = (0..20).map(|_| vec![live(88)]);
    let gone = (0..20).map(|_| Vec::new());
    let mut pressure = Pressure::default();
    let mut fired = 0;
    for (second, namespaces) in there.chain(gone).enumerate() {
        let facts = Facts { at: Duration::from_secs(second as u64), namespaces };
        fired = pressure.step(&facts).firing.len().max(if second < 20 { fired } else { 0 });
    }
    assert_eq!(fired, 0);
}

#[test]
fn twenty_thousand_routes_are_no_burden() {
    let holders = (0..20_000_u32).map(|number| {
        let dst = std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
        holder(Route { dst, ..far() }, true)
    });
    let netns = namespace(0, holders.collect());
    let mut pressure = Pressure::default();
    for second in 0..5 {
        let facts = Facts { at: Duration::from_secs(second), namespaces: vec![netns.clone()] };
        assert_eq!(pressure.step(&facts).ports.len(), 20_000);
    }
}
