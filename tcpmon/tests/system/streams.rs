//! `tail --json` shows, for each recipe of the lab, exactly the transitions of both ends, each
//! with the right owner, addresses and ports.

use jiff::Timestamp;
use serde_json::Value;
use xtask::lab::{Addresses, Recipe};

use crate::support::daemon::Daemon;
use crate::support::measure::watch;
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{expected, lab};

/// How often each recipe is carried out.
fn connections(recipe: Recipe) -> u64 {
    match recipe {
        recipe if recipe.is_once_only() => 1,
        Recipe::Churn | Recipe::TimeWait => 300,
        Recipe::ThreeServices => 50,
        // The hundred that find room, and some.
        Recipe::TableFull => 105,
        Recipe::Prefork | Recipe::Reuseport => 6,
        _ => 3,
    }
}

fn every_recipe(addresses: Addresses) {
    let left_out = |recipe: Recipe| {
        // It has a test of its own.
        recipe == Recipe::NamespaceRemoved || addresses == Addresses::Ipv4Mapped && recipe.is_load()
    };
    let recipes = Recipe::all().iter().copied().filter(|recipe| !left_out(*recipe));
    recipes_are_shown_exactly(&Turn::shared(), addresses, recipes);
}

fn recipes_are_shown_exactly(
    turn: &Turn,
    addresses: Addresses,
    recipes: impl Iterator<Item = Recipe> + Clone,
) {
    let daemon = Daemon::start(turn, &[]);
    let mut lab = lab::open(addresses);
    // All namespaces that the lab has not made yet.
    for recipe in recipes.clone() {
        lab.prepare(recipe).expect("namespaces");
    }
    let inodes: Vec<String> = lab.inodes().iter().map(ToString::to_string).collect();
    let tail = Tail::start(&daemon, &["--netns", &inodes.join(",")]);
    // The last comes again, so that whatever is too much before it is noticed.
    for recipe in recipes.chain([Recipe::Refused]) {
        if let Some((done, seen)) = watch(&daemon, &tail, &mut lab, recipe, connections(recipe)) {
            expected::compare(&done, &seen);
        }
    }
}

#[test]
fn every_recipe_is_shown_exactly_ipv4() {
    every_recipe(Addresses::Ipv4);
}

#[test]
fn every_recipe_is_shown_exactly_ipv6() {
    every_recipe(Addresses::Ipv6);
}

#[test]
fn every_recipe_is_shown_exactly_ipv4_mapped() {
    every_recipe(Addresses::Ipv4Mapped);
}

#[test]
fn the_end_of_a_namespace_is_shown_exactly() {
    // The namespace's number is free from then on, and another test's namespace would get it.
    let turn = Turn::alone();
    for addresses in [Addresses::Ipv4, Addresses::Ipv6, Addresses::Ipv4Mapped] {
        if addresses == Addresses::Ipv4Mapped && Recipe::NamespaceRemoved.is_load() {
            continue;
        }
        recipes_are_shown_exactly(&turn, addresses, [Recipe::NamespaceRemoved].into_iter());
    }
}

#[test]
fn a_line_has_every_member_of_the_contract_and_the_time_of_day() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let tail = Tail::start(&daemon, &["--netns", &lab.namespaces()[0].name.clone()]);
    let begun = Timestamp::now();
    let done = lab.perform(Recipe::ClientFirst, None).expect("a connection");
    for _ in 0..done.shown_transitions() {
        let line: Value = serde_json::from_str(&tail.lines.next().expect("a line")).expect("JSON");
        let members: Vec<&str> =
            line.as_object().expect("an object").keys().map(String::as_str).collect();
        let wanted = "ts netns family saddr sport daddr dport old new duration_us role pid comm \
                      service cookie port_exhausted";
        for member in wanted.split_whitespace() {
            assert!(members.contains(&member), "no {member}: {line}");
        }
        let text = line["ts"].as_str().expect("text");
        assert_eq!(text.len(), "2026-11-22T08:00:00.123456Z".len(), "{text}");
        let ts: Timestamp = text.parse().expect("RFC 3339");
        // The text has whole microseconds, rounded down.
        assert!(ts.as_microsecond() >= begun.as_microsecond() && ts <= Timestamp::now(), "{text}");
    }
}
