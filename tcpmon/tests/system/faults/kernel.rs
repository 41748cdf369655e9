//! A kernel that lacks what the probes need: told by its type information, in which one name is
//! another.

use std::fs;

use tempfile::TempDir;
use xtask::lab::{Addresses, Recipe};

use crate::support::books::{Auditor, PROMPT, await_levels, sum};
use crate::support::daemon::Daemon;
use crate::support::program::{run, tcpmon};
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Lays what is in `$1` over the kernel's type information, for the program alone.
const OVERLAY: &str = "mount --bind \"$1\" /sys/kernel/btf/vmlinux && shift && exec \"$@\"";

/// A copy of the kernel's type information without a name.
fn without(name: &str) -> (TempDir, String) {
    let mut types = fs::read(VMLINUX).expect("this kernel's BTF");
    let wanted = [b"\0", name.as_bytes(), b"\0"].concat();
    let at = types.windows(wanted.len()).position(|bytes| bytes == wanted);
    types[at.unwrap_or_else(|| panic!("no {name} in {VMLINUX}")) + 1] = b'?';
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vmlinux");
    fs::write(&path, types).expect("a copy");
    let path = path.to_str().expect("UTF-8").to_owned();
    (folder, path)
}

fn before(path: &str) -> [&str; 7] {
    ["unshare", "--mount", "sh", "-ec", OVERLAY, "sh", path]
}

#[test]
fn without_a_field_that_the_probes_read_it_refuses_and_names_it() {
    let (_folder, path) = without("inet_sport");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let arguments = ["daemon", "--socket", socket.to_str().expect("UTF-8")];
    let refused = run(&mut tcpmon(&before(&path), &arguments));
    assert_eq!((refused.code, refused.stderr.lines().count()), (Some(1), 1), "{refused:?}");
    for word in ["inet_sport", "look for a tcpmon that is newer than this kernel"] {
        assert!(refused.stderr.contains(word), "no {word:?} in {refused:?}");
    }
    assert!(!socket.exists(), "a socket is left behind");
}

#[test]
fn without_probes_on_timers_it_says_so_and_levels_are_right() {
    let (_folder, path) = without("btf_trace_timer_start");
    let check = run(tcpmon(&before(&path), &["check"]).stdout(std::process::Stdio::piped()));
    assert!(check.stdout.contains("limited  probe tp_btf/timer_*"), "{check:?}");
    assert!(check.stdout.contains("tcpmon daemon would start here"), "{check:?}");

    let turn = Turn::shared();
    // Before the daemon gets its copy of the mounts, which namespaces are found by.
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let daemon = Daemon::start_behind(&turn, &before(&path), &PROMPT);
    let told = daemon.first_words();
    assert!(told.contains("cannot load the probe tcpmon_timer_start"), "{told}");
    assert!(told.contains("as by --time-wait sampled"), "{told}");
    let done = lab::perform(&mut lab, Recipe::TimeWait, 300).expect("a load");
    // As exact as ever: each of the 300 was seen to be opened, and named. They are there for a minute,
    // which is not long on an emulated machine.
    let by = done.load.expect("a load").process.comm;
    let service = [("service", by.as_str())];
    eventually("the next list of sockets to name them", || {
        let held = sum(&daemon.metrics(), "tcpmon_time_wait_sockets", &netns.name, &service);
        (held == 300).then_some(())
    });
    await_levels(&daemon, &netns);
    let metrics = daemon.metrics();
    assert_eq!(metrics.count("tcpmon_time_wait_mode", &[("mode", "sampled")]), 1);
}

#[test]
fn without_the_iterator_over_files_it_says_so_and_new_sockets_have_owners() {
    let (_folder, path) = without("bpf_iter_task_file");
    let turn = Turn::shared();
    // Before the daemon gets its copy of the mounts, which namespaces are found by.
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let daemon = Daemon::start_behind(&turn, &before(&path), &PROMPT);
    let told = daemon.first_words();
    assert!(told.contains("sockets older than the daemon have no owner"), "{told}");
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    lab::perform(&mut lab, Recipe::TimeWait, 300);
    auditor.check_now("without owners of older sockets", std::slice::from_ref(&netns));
}
