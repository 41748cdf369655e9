//! The end: within a second, whoever still listens, and nothing is left behind.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::Daemon;
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{as_quick_as, eventually};

/// The ids of the BPF programs and maps that a process holds, as its descriptors tell
/// (`bpf_prog_show_fdinfo()` and `bpf_map_show_fdinfo()` in kernel/bpf/syscall.c).
fn bpf_objects(pid: u32) -> BTreeSet<String> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("descriptors").flatten() {
        // A descriptor may be closed while we look.
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let ids = text.lines().filter(|line| line.contains("_id:"));
        found.extend(ids.map(|line| line.split_whitespace().collect::<Vec<_>>().concat()));
    }
    found
}

/// Whether the kernel still has the program of that id.
pub(crate) fn is_loaded(id: u32) -> bool {
    aya::programs::loaded_programs().flatten().any(|program| program.id() == id)
}

pub(crate) fn program_ids(pid: u32) -> Vec<u32> {
    let ids: Vec<u32> = bpf_objects(pid)
        .iter()
        .filter_map(|line| line.strip_prefix("prog_id:")?.parse().ok())
        .collect();
    assert!(!ids.is_empty(), "the daemon holds no program");
    ids
}

fn ends_well(daemon: Daemon, by: Signal) {
    let socket = daemon.socket().to_owned();
    let programs = program_ids(daemon.pid());
    for id in &programs {
        assert!(is_loaded(*id));
    }
    assert!(std::fs::metadata(&socket).is_ok_and(|file| file.file_type().is_socket()));
    let ended = daemon.end(by);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.took < as_quick_as(Duration::from_secs(1)), "{ended:?}");
    let last = ended.log.last().expect("a line");
    assert!(last.contains("detached"), "{last}");
    assert!(!ended.left_socket, "{ended:?}");
    eventually("the programs to be unloaded", || {
        programs.iter().all(|id| !is_loaded(*id)).then_some(())
    });
}

#[test]
fn by_sigterm() {
    let turn = Turn::shared();
    ends_well(Daemon::start(&turn, &[]), Signal::TERM);
}

#[test]
fn by_sigint() {
    let turn = Turn::shared();
    ends_well(Daemon::start(&turn, &[]), Signal::INT);
}

#[test]
fn while_clients_stream_hang_and_sleep() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let tail = Tail::start(&daemon, &[]);
    let asleep = daemon.stream("");
    // One that has asked half a question, and one that has asked none.
    let mut hanging = TcpStream::connect(daemon.address()).expect("the daemon's port");
    hanging.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("half a question");
    let silent = daemon.connect();
    ends_well(daemon, Signal::TERM);
    let told = tail.finish();
    assert_eq!(told.code, Some(1), "{told:?}");
    assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
    assert!(told.stderr.contains("the daemon ended the stream"), "{told:?}");
    drop((asleep, hanging, silent));
}

#[test]
fn a_tail_that_is_interrupted() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    for signal in [Signal::INT, Signal::TERM] {
        let told = Tail::start(&daemon, &[]).end(signal);
        // It may leave the signal to end it, as `cat` does, or handle it.
        assert!(matches!(told.code, None | Some(0)), "{signal:?}: {told:?}");
        assert_eq!(told.stderr, "", "{signal:?}");
    }
    daemon.await_streams(0);
}
