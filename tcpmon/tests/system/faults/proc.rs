//! /proc that cannot be read: partly from the start, or not at all for a while.

use std::process::Command;
use std::time::{Duration, Instant};

use xtask::lab::{Addresses, Recipe};

use crate::support::books::{Auditor, PROMPT, await_levels};
use crate::support::daemon::Daemon;
use crate::support::exposition::Labels;
use crate::support::lab;
use crate::support::program::run;
use crate::support::turn::Turn;

/// In a mount namespace of its own.
const PRIVATE: [&str; 5] = ["unshare", "--mount", "sh", "-ec", "exec \"$@\""];

/// Does something where the daemon is.
fn beside(daemon: &Daemon, words: &[&str]) {
    let pid = daemon.pid().to_string();
    let done = run(Command::new("nsenter").args(["--mount", "--target", &pid, "--"]).args(words));
    assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
}

#[test]
fn while_proc_is_gone_it_counts_on_and_afterwards_all_is_right() {
    let turn = Turn::shared();
    // Before the daemon gets its copy of the mounts, which namespaces are found by.
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let daemon = Daemon::start_behind(&turn, &[&PRIVATE[..], &["sh"]].concat(), &PROMPT);
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    let before = daemon.metrics().count("tcpmon_events_total", &[]);

    beside(&daemon, &["mount", "-t", "tmpfs", "none", "/proc"]);
    lab::perform(&mut lab, Recipe::TimeWait, 300);
    // It answers, with what it counts itself: ten transitions a connection, and the listener's.
    for route in ["/healthz", "/api/v1/report", "/api/v1/alerts"] {
        assert_eq!(daemon.get(route).status, 200, "{route}");
    }
    let counted = daemon.metrics().count("tcpmon_events_total", &[]) - before;
    assert!(counted >= 3_000, "{counted}");

    // What the kernel has there is compared once there is something to read again.
    beside(&daemon, &["umount", "/proc"]);
    let back = Instant::now();
    await_levels(&daemon, &netns);
    // Not only once its sockets leave TIME_WAIT.
    assert!(back.elapsed() < Duration::from_secs(30), "after {:?}", back.elapsed());
    auditor.check_now("after /proc was gone", std::slice::from_ref(&netns));
    let ended = daemon.end(rustix::process::Signal::TERM);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.log.iter().all(|line| !line.contains("panicked")), "{ended:?}");
}

#[test]
fn garbage_in_place_of_a_sysctl_is_not_taken_for_one() {
    let turn = Turn::shared();
    // Before the daemon gets its copy of the mounts, which namespaces are found by.
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let script = "printf 'many\\n' > \"$1\" && shift && \
                  mount --bind \"$0\" /proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("garbage");
    let file = file.to_str().expect("UTF-8");
    let before = ["unshare", "--mount", "sh", "-ec", script, file, file];
    let daemon = Daemon::start_behind(&turn, &before, &PROMPT);
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    lab::perform(&mut lab, Recipe::TimeWait, 300);
    auditor.check_now("without a port range", std::slice::from_ref(&netns));
    // Not known, and not told: no other number is made up for it. The file is the host's; each
    // namespace has its own.
    let metrics = daemon.metrics();
    for name in ["tcpmon_ephemeral_ports", "tcpmon_ephemeral_port_utilization_ratio"] {
        let of_host = |(labels, _): &(&Labels, &str)| labels["netns"] == "host";
        assert_eq!(metrics.series(name).filter(of_host).count(), 0, "{name}");
    }
    assert_eq!(daemon.get("/api/v1/report").status, 200);
}

#[test]
fn with_processes_alone_in_proc_it_starts_and_the_ledger_is_right() {
    let turn = Turn::shared();
    // Before the daemon gets its copy of the mounts, which namespaces are found by.
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    // No /proc/sys and no /proc/kallsyms.
    let script = "mount -t proc -o subset=pid proc /proc && exec \"$@\"";
    let before = ["unshare", "--mount", "sh", "-ec", script, "sh"];
    let daemon = Daemon::start_behind(&turn, &before, &PROMPT);
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    lab::perform(&mut lab, Recipe::TimeWait, 300);
    auditor.check_now("with processes alone in /proc", std::slice::from_ref(&netns));
    let metrics = daemon.metrics();
    assert_eq!(metrics.count("tcpmon_time_wait_mode", &[("mode", "exact")]), 1);
    assert_eq!(metrics.series("tcpmon_sysctl").count(), 0);
}
