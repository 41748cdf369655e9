//! The ledger while thousands of sockets a second come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use xtask::lab::{Addresses, Recipe};

use crate::support::books::{Auditor, PROMPT};
use crate::support::daemon::Daemon;
use crate::support::lab;
use crate::support::turn::{SteadyProbes, Turn};

/// Connections of each piece of a load.
const PIECE: u64 = 4000;

fn under(recipe: Recipe, addresses: Addresses, pieces: u32) {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(addresses);
    let netns = lab.namespaces()[0].clone();
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    for piece in 0..pieces {
        let _meanwhile = SteadyProbes::hold();
        let over = AtomicBool::new(false);
        let looks = thread::scope(|scope| {
            let load = scope.spawn(|| {
                let done = lab.perform(recipe, Some(PIECE));
                over.store(true, Ordering::Release);
                done.unwrap_or_else(|why| panic!("{}: {why}", recipe.name()))
            });
            let mut looks = 0;
            while !over.load(Ordering::Acquire) {
                auditor.check_in_passing(&netns);
                looks += 1;
            }
            let done = load.join().expect("a load");
            assert_eq!(done.time_wait_overflowed > 0, recipe == Recipe::Churn, "{done:?}");
            looks
        });
        assert!(looks > 1, "the load was over before it was looked at");
        auditor.check_now(&format!("piece {piece}"), std::slice::from_ref(&netns));
    }
}

#[test]
fn that_overflows() {
    under(Recipe::Churn, Addresses::Ipv4, 3);
}

#[test]
fn that_fills_the_table() {
    under(Recipe::TimeWait, Addresses::Ipv4, 3);
}

#[test]
fn that_fills_the_table_ipv6() {
    under(Recipe::TimeWait, Addresses::Ipv6, 2);
}
