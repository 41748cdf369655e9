//! The lab keeps its word: every recipe, with every kind of address, against the kernel's own
//! tracepoint. Needs root, as the lab does; `cargo xtask test` sees to it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use xtask::lab::verify::perform_verified;
use xtask::lab::{
    Addresses, Checkpoint, Ending, Expectation, Lab, LabError, Ledger, Options, Recipe, Role,
    Substate,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xtask");

fn open(addresses: Addresses) -> Lab {
    let program = Some(PROGRAM.into());
    Lab::open(Options { addresses, program, narrate: None }).unwrap_or_else(|why| panic!("{why}"))
}

/// All in one lab, one after the other: no recipe may disturb the next.
fn every_recipe(addresses: Addresses) {
    let mut lab = open(addresses);
    for recipe in Recipe::all().iter().copied() {
        let connections = match recipe {
            recipe if recipe.is_once_only() => 1,
            recipe if recipe.is_load() && addresses == Addresses::Ipv4Mapped => continue,
            Recipe::ThreeServices => 250,
            Recipe::Churn | Recipe::TimeWait => 1500,
            // The hundred that find room, and some.
            Recipe::TableFull => 110,
            // Each takes a second.
            Recipe::SynAfterClose => 1,
            _ => 4,
        };
        let expected = match perform_verified(&mut lab, recipe, Some(connections)) {
            Ok(expected) => expected,
            Err(LabError::Unsupported(why)) => {
                eprintln!("{} {addresses:?} is not tested: {why}", recipe.name());
                continue;
            }
            Err(why) => panic!("{} {addresses:?}: {why}", recipe.name()),
        };
        assert_eq!(expected.recipe, recipe);
        assert!(expected.transitions() > 0);
        assert_namespaces(&expected);
    }
}

fn assert_namespaces(expected: &Expectation) {
    let inodes: Vec<u64> = expected.netns.iter().map(|netns| netns.inode).collect();
    for socket in &expected.sockets {
        assert!(inodes.contains(&socket.netns));
    }
}

#[test]
fn every_recipe_is_what_the_kernel_reports_ipv4() {
    every_recipe(Addresses::Ipv4);
}

#[test]
fn every_recipe_is_what_the_kernel_reports_ipv6() {
    every_recipe(Addresses::Ipv6);
}

#[test]
fn every_recipe_is_what_the_kernel_reports_ipv4_mapped() {
    every_recipe(Addresses::Ipv4Mapped);
}

#[test]
fn five_hundred_connects_find_no_port_by_each_way_to_connect() {
    let mut lab = open(Addresses::Ipv4);
    for recipe in [Recipe::Exhausted, Recipe::ExhaustedNonblocking, Recipe::ExhaustedIoUring] {
        let expected = perform_verified(&mut lab, recipe, Some(500))
            .unwrap_or_else(|why| panic!("{}: {why}", recipe.name()));
        assert_eq!(expected.port_failures(), 500);
        let owners: Vec<&str> = expected
            .sockets
            .iter()
            .filter(|socket| socket.port_exhausted)
            .map(|socket| socket.owner.comm.as_str())
            .collect();
        assert!(owners.iter().all(|comm| *comm == "lab-client"));
    }
}

#[test]
fn workers_and_servers_are_told_apart() {
    let mut lab = open(Addresses::Ipv4);
    let expected = lab.perform(Recipe::Prefork, Some(6)).expect("prefork");
    let passive = || expected.sockets.iter().filter(|socket| socket.role == Role::Passive);
    assert!(passive().all(|socket| socket.owner.comm == "lab-server"));
    let workers: Vec<u32> =
        passive().filter_map(|socket| socket.accepted_by.as_ref()).map(|who| who.pid).collect();
    assert_eq!(workers.len(), 6);
    assert_eq!(workers[..3], workers[3..]);
    assert!(workers[0] != workers[1] && workers[1] != workers[2] && workers[0] != workers[2]);

    // With this many connections the kernel's hash leaves no server of three without any, but
    // for one case in 10^10.
    let expected = lab.perform(Recipe::Reuseport, Some(60)).expect("reuseport");
    let mut pids: Vec<u32> = expected
        .sockets
        .iter()
        .filter(|socket| socket.role == Role::Passive)
        .map(|socket| socket.owner.pid)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3);
}

#[test]
fn time_wait_sockets_are_there_to_the_unit() {
    let mut lab = open(Addresses::Ipv4);
    let expected = lab.perform(Recipe::TimeWait, Some(3000)).expect("time-wait");
    assert_eq!(expected.time_wait_entered, 3000);
    assert_eq!(expected.load.map(|load| load.time_wait), Some(3000));
    let expected = lab.perform(Recipe::HalfClose, None).expect("half-close");
    assert_eq!(expected.sockets[0].time_wait, Some(Substate::TimeWait));
}

/// Growth of a count of the kernel's from the first checkpoint to the last, all namespaces
/// together.
fn growth(checkpoints: &[Checkpoint], count: impl Fn(&Ledger) -> u64) -> u64 {
    let sum = |at: &Checkpoint| at.ledgers.iter().map(|(_, ledger)| count(ledger)).sum::<u64>();
    match checkpoints {
        [first, .., last] => sum(last) - sum(first),
        _ => panic!("a checkpoint at the beginning and one at the end: {checkpoints:?}"),
    }
}

/// In a lab of its own each: so nothing of an earlier one expires meanwhile.
fn every_recipe_against_the_ledger(addresses: Addresses) {
    for recipe in Recipe::all().iter().copied() {
        let mut lab = open(addresses);
        let connections = recipe.is_load().then_some(300);
        let mut seen = Vec::new();
        let mut watch = |at: &Checkpoint| seen.push(at.clone());
        let told = match lab.perform_watched(recipe, connections, &mut watch) {
            Ok(told) => told,
            Err(LabError::Unsupported(why)) => {
                eprintln!("{} is not tested: {why}", recipe.name());
                continue;
            }
            Err(why) => panic!("{} {addresses:?}: {why}", recipe.name()),
        };
        let what = format!("{} {addresses:?}: {seen:#?}", recipe.name());
        assert_eq!(growth(&seen, Ledger::entered), told.time_wait_entered, "{what}");
        assert_eq!(growth(&seen, |at| at.overflowed), told.time_wait_overflowed, "{what}");
        let exited = |how| told.time_wait_exited.get(&how).copied().unwrap_or(0);
        assert_eq!(growth(&seen, |at| at.recycled), exited(Ending::Reused), "{what}");
        let gone = if recipe == Recipe::NamespaceRemoved {
            // There is nothing to look at when it is done.
            0
        } else {
            told.time_wait_exited.values().sum()
        };
        assert_eq!(growth(&seen, |at| at.level), told.time_wait_entered - gone, "{what}");
        let short = growth(&seen, |at| at.entered_short);
        assert_eq!(short > 0, recipe == Recipe::FinTimeoutShort, "{what}");
        let overflows = matches!(recipe, Recipe::TableFull);
        assert_eq!(told.time_wait_overflowed, if overflows { 20 } else { 0 }, "{what}");
    }
}

#[test]
fn what_enters_and_leaves_the_time_wait_table_is_what_the_kernel_counts_ipv4() {
    every_recipe_against_the_ledger(Addresses::Ipv4);
}

#[test]
fn what_enters_and_leaves_the_time_wait_table_is_what_the_kernel_counts_ipv6() {
    every_recipe_against_the_ledger(Addresses::Ipv6);
}

#[test]
fn three_services_leave_what_they_are_said_to_leave() {
    let mut lab = open(Addresses::Ipv4);
    let told = lab.perform(Recipe::ThreeServices, Some(500)).expect("three services");
    let figures: Vec<u64> =
        told.services.iter().map(|service| service.time_wait.values().sum()).collect();
    assert_eq!(figures, [500, 1000, 1500]);
    let levels: Vec<u64> =
        told.netns.iter().map(|netns| Ledger::of(netns).expect("a ledger").level).collect();
    assert_eq!(levels, [2000, 1000]);
    for service in &told.services {
        let lives = Path::new("/proc").join(service.process.pid.to_string()).exists();
        assert_eq!(lives, !service.exited, "{service:?}");
    }
}

#[test]
fn the_json_is_the_expectation() {
    let output = Command::new(PROGRAM)
        .args(["lab", "server-first", "--json", "--connections", "2"])
        .output()
        .expect("xtask runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Expectation = serde_json::from_slice(&output.stdout).expect("an expectation");
    assert_eq!(expected.recipe, Recipe::ServerFirst);
    assert_eq!(expected.sockets.len(), 5);
    assert!(!Path::new("/run/netns").join(&expected.netns[0].name).exists());
}

#[test]
fn nothing_is_left_whatever_ends_the_lab() {
    for signal in ["INT", "TERM", "KILL"] {
        let mut lab = Command::new(PROGRAM)
            .args(["lab", "client-first", "--json", "--connections", "100000"])
            .stdout(Stdio::null())
            .spawn()
            .expect("xtask runs");
        let namespace = Path::new("/run/netns").join(format!("tcpmon-lab-{}-0", lab.id()));
        let before = wait_until(|| namespace.exists());
        let sent = Command::new("/bin/sh")
            .args(["-c", &format!("kill -{signal} {}", lab.id())])
            .status()
            .expect("kill runs");
        let ended = end_of(&mut lab);
        let after = wait_until(|| !namespace.exists());
        assert!(before && sent.success() && ended, "{signal}: it did not run or did not end");
        assert!(after, "{signal}: {} is still there", namespace.display());
    }
}

/// Waits for the program; kills it if it does not end by itself.
fn end_of(child: &mut Child) -> bool {
    let ended = wait_until(|| matches!(child.try_wait(), Ok(Some(_))));
    if !ended {
        let _gone = child.kill();
        let _gone = child.wait();
    }
    ended
}

fn wait_until(reached: impl FnMut() -> bool) -> bool {
    let mut reached = reached;
    let begun = Instant::now();
    while !reached() {
        if begun.elapsed() > Duration::from_secs(10) {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}
