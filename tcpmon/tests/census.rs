//! A census of the lab's namespaces, held against what `ss` and /proc tell of them. Needs root.

#[path = "system/support/lab.rs"]
mod lab;
#[path = "system/support/turn.rs"]
mod turn;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tcpmon::kernel::census::{Census, Taken};
use tcpmon::kernel::probes::{MapSizes, Probes};
use tcpmon::model::census::{KindCount, SocketGroup, SocketKind};
use tcpmon_common::{Family, TcpState};
use turn::Turn;
use xtask::lab::{Addresses, Lab, Recipe};

/// Does `work` in the lab's first namespace.
fn inside<T: Send>(lab: &Lab, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/run/netns/{}", lab.namespaces()[0].name);
    thread::scope(|scope| {
        let done = scope.spawn(move || {
            let netns = File::open(&path).expect("the lab's namespace");
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&netns),
                Some(LinkNameSpaceType::Network),
            )
            .expect("to enter it");
            work()
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn take(lab: &Lab, census: &mut Census) -> Taken {
    inside(lab, || census.take().expect("a census"))
}

/// CPU seconds of this process's children that have ended.
fn children_cpu() -> f64 {
    let mut u: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut u) };
    let t = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    t(u.ru_utime) + t(u.ru_stime)
}

#[test]
fn speed() {
    let n: u64 = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let mut probes = Probes::start(MapSizes {
        sockets: std::env::var("S").ok().and_then(|n| n.parse().ok()).unwrap_or(2 * n as u32),
        ..MapSizes::default()
    })
    .expect("probes");
    let mut lab = lab::open(Addresses::Ipv4);
    lab.perform(Recipe::TimeWait, Some(n)).expect("load");
    for _ in 0..std::env::var("R").ok().and_then(|n| n.parse().ok()).unwrap_or(5) {
        let ss = inside(&lab, || {
            let before = children_cpu();
            Command::new("ss").arg("-Htan").stdout(std::process::Stdio::null()).status().unwrap();
            children_cpu() - before
        });
        let taken = take(&lab, &mut probes.census);
        println!(
            "ss {ss:.3} s; census {:?} wall {:?} {} sockets {} groups {} unplaced; {:.0} ns/socket; ratio {:.3}",
            taken.cpu,
            taken.wall,
            taken.sockets(),
            taken.groups.len(),
            taken.unplaced.len(),
            taken.cpu.as_secs_f64() * 1e9 / taken.sockets() as f64,
            taken.cpu.as_secs_f64() / ss
        );
        println!(
            "{:?} {:?}",
            taken.totals,
            taken
                .groups
                .iter()
                .map(|g| (g.dst, g.dport, g.owner.is_some(), g.sockets))
                .take(10)
                .collect::<Vec<_>>()
        );
    }
}
