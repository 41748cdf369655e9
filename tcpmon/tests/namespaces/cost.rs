//! What looking and visiting cost. Figures and no judgement: of use in a release build, on a quiet
//! machine (`cargo test --release -p tcpmon --test namespaces -- --ignored --nocapture cost`).

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tcpmon::kernel::namespaces::{ContainerNames, Namespaces, Scope};
use tcpmon::kernel::net_counters::NetCounters;
use tcpmon::kernel::sysctls::Sysctls;
use tcpmon::kernel::visit::Visitor;

use crate::place::{Named, ready};

/// Idle processes that end with their standard input.
struct Crowd(Child);

impl Crowd {
    fn of(processes: u32) -> Self {
        // Background jobs would have /dev/null for standard input.
        let script = "i=0; while [ $i -lt $1 ]; do cat <&3 & i=$((i+1)); done; echo ready; wait";
        let script = format!("exec 3<&0; {script}");
        Self(ready(Command::new("sh").args(["-ec", &script, "sh", &processes.to_string()])))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _reaped = self.0.wait();
    }
}

/// The least and the middle of so many runs.
fn times(runs: usize, mut work: impl FnMut()) -> (Duration, Duration) {
    let mut all: Vec<Duration> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .collect();
    all.sort_unstable();
    (all[0], all[runs / 2])
}

#[test]
#[ignore = "a measurement, of use in a release build only"]
fn of_a_pass_over_2000_processes() {
    let _crowd = Crowd::of(2_000);
    let mut namespaces = Namespaces::new(Scope::All, ContainerNames::new(), usize::MAX);
    let mut now = Instant::now();
    let mut processes = 0;
    let (least, middle) = times(51, || {
        now += Duration::from_secs(10);
        processes = namespaces.refresh(now).processes;
    });
    assert!(processes >= 2_000);
    println!("a pass over {processes} processes: {least:?} at least, {middle:?} in the middle");
}

#[test]
#[ignore = "a measurement, of use in a release build only"]
fn of_a_visit() {
    let named = Named::new();
    let mut namespaces = Namespaces::new(Scope::All, ContainerNames::new(), usize::MAX);
    while !namespaces.refresh(Instant::now()).complete {}
    let there = namespaces.get(named.inode()).expect("a namespace");
    let visitor = Visitor::new().expect("a visitor");
    let visit = times(1_001, || visitor.visit(there, || ()).expect("a visit"));
    println!("there and back: {:?} at least, {:?} in the middle", visit.0, visit.1);
    let inside = || {
        let counters = times(1_001, || {
            NetCounters::of_this_thread().expect("counters");
        });
        let sysctls = times(1_001, || {
            let _values = Sysctls::of_this_thread();
        });
        (counters, sysctls)
    };
    let (counters, sysctls) = visitor.visit(there, inside).expect("a visit");
    println!("counters: {:?} at least, {:?} in the middle", counters.0, counters.1);
    println!("sysctls: {:?} at least, {:?} in the middle", sysctls.0, sysctls.1);
}
