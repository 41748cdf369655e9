//! Looks in a row at namespaces that go missing, and which failures are news in each.

use super::*;
use crate::pressure::{
    Pressure,
    alerts::{AlertName, Change},
    facts::PortFailures,
    usage::tests::{namespace, route},
};

/// A namespace in which so many were refused on a route whose last byte that is.
fn refused(inode: u32, name: &str, counts: &[(u8, u64)]) -> NamespaceFacts {
    let failures = counts.iter().map(|&(last, total)| {
        let route = Route { dst: [10, 0, 0, last].into(), ..route("10.0.0.1", "::") };
        PortFailures { route, owner: Some("api".into()), total }
    });
    NamespaceFacts {
        inode,
        netns: name.into(),
        failures: failures.collect(),
        ..namespace(0, Vec::new())
    }
}

/// The moments, in seconds, at which failures were told, with the namespace's name and what was
/// said to have been refused.
fn told(looks: Vec<(u64, Vec<NamespaceFacts>)>) -> Vec<(u64, String, String)> {
    let mut pressure = Pressure::default();
    let mut told = Vec::new();
    for (second, namespaces) in looks {
        let facts = Facts { at: Duration::from_secs(second), namespaces };
        for change in pressure.step(&facts).changes {
            if let Change::Raised(alert) = change
                && alert.subject.name == AlertName::PortExhausted
            {
                let count = alert.summary.split(' ').next().unwrap_or_default().to_owned();
                told.push((second, alert.subject.netns.to_string(), count));
            }
        }
    }
    told
}

#[test]
fn a_look_without_a_namespace_makes_no_news_of_old_failures() {
    let shop = |counts: &[(u8, u64)]| vec![refused(7, "shop", counts)];
    let day = 86_400;
    for (what, looks, wanted) in [
        ("never missing", vec![(0, shop(&[(2, 5)])), (100, shop(&[(2, 5)]))], vec![(0, "5")]),
        (
            "missing once",
            vec![(0, shop(&[(2, 5)])), (100, vec![]), (101, shop(&[(2, 5)]))],
            vec![(0, "5")],
        ),
        (
            "missing once, and more since",
            vec![(0, shop(&[(2, 5)])), (100, vec![]), (101, shop(&[(2, 7)]))],
            vec![(0, "5"), (101, "2")],
        ),
        (
            "missing for a day: the counts of its number stay",
            vec![(0, shop(&[(2, 5)])), (100, vec![]), (day, vec![]), (day + 1, shop(&[(2, 5)]))],
            vec![(0, "5")],
        ),
        (
            "first seen late",
            vec![(0, vec![]), (100, shop(&[(2, 5)])), (200, shop(&[(2, 5)]))],
            vec![(100, "5")],
        ),
        (
            "one of its routes is missing once",
            vec![
                (0, shop(&[(2, 5), (3, 4)])),
                (100, shop(&[(3, 4)])),
                (101, shop(&[(2, 5), (3, 4)])),
            ],
            vec![(0, "5"), (0, "4")],
        ),
        (
            "missing in one look before a long rest, and in none after it",
            vec![
                (0, shop(&[(2, 5)])),
                (100, shop(&[])),
                (day, shop(&[(2, 5)])),
                (day + 1, shop(&[])),
                (day + 2, shop(&[(2, 5)])),
            ],
            vec![(0, "5")],
        ),
        (
            "a route that has gone begins anew",
            vec![(0, shop(&[(2, 5)])), (100, shop(&[])), (800, shop(&[])), (900, shop(&[(2, 5)]))],
            vec![(0, "5"), (900, "5")],
        ),
    ] {
        let mut told: Vec<(u64, String)> =
            told(looks).into_iter().map(|(second, _, count)| (second, count)).collect();
        told.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        let wanted: Vec<(u64, String)> =
            wanted.into_iter().map(|(second, count)| (second, count.to_owned())).collect();
        assert_eq!(told, wanted, "{what}");
    }
}

#[test]
fn a_namespace_with_another_name_is_the_same() {
    let counts = &[(2, 5)][..];
    let looks = vec![
        (0, vec![refused(7, "4026532000", counts), refused(8, "blue", &[])]),
        (100, vec![refused(7, "shop", counts), refused(8, "blue", &[])]),
        // Another of that name is another.
        (200, vec![refused(7, "shop", counts), refused(9, "4026532000", &[(2, 3)])]),
    ];
    let wanted = [(0, "4026532000", "5"), (200, "4026532000", "3")];
    let wanted = wanted.map(|(second, name, count)| (second, name.to_owned(), count.to_owned()));
    assert_eq!(told(looks), wanted);
}

#[test]
fn a_full_table_is_no_news_after_a_look_without_its_namespace() {
    let full = || NamespaceFacts { time_wait_overflow: Some(9), ..refused(7, "shop", &[]) };
    let mut pressure = Pressure::default();
    let mut raised = Vec::new();
    for (second, namespaces) in
        [(0, vec![full()]), (100, vec![]), (101, vec![full()]), (200, vec![full()])]
    {
        let facts = Facts { at: Duration::from_secs(second), namespaces };
        let changes = pressure.step(&facts).changes;
        let is_raised = changes.iter().any(|change| matches!(change, Change::Raised(_)));
        raised.extend(is_raised.then_some(second));
    }
    assert_eq!(raised, [0]);
}

#[test]
fn memory_is_bounded_and_what_tells_nothing_is_dropped() {
    let mut memory = Memory::default();
    let many = u32::try_from(MISSING).expect("few") + 10;
    for inode in 0..many {
        let netns = refused(inode, "some", &[(2, 5)]);
        let of = &netns.failures[0];
        memory.of(&netns).failures.entry((of.route, of.owner.clone())).or_default();
        let none = refused(many + inode, "none", &[]);
        memory.of(&none);
        // Each is there in one look, and missing from the next.
        memory.forget(&Facts { at: Duration::from_secs(inode.into()), namespaces: vec![netns] });
    }
    // The last one is not missing.
    assert_eq!(memory.0.len(), MISSING + 1);
    assert!(!memory.0.contains_key(&0) && memory.0.contains_key(&(many - 1)));
}
