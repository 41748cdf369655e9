//! A socket whose rights somebody has loosened is still nobody else's.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::daemon::Daemon;
use crate::support::program::{Finished, TCPMON, run};
use crate::support::turn::Turn;

/// Asks for a report as somebody without capabilities, with these ids.
fn ask(program: &Path, ids: &[&str], socket: &str) -> Finished {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--inh-caps=-all", "--bounding-set=-all"]).args(ids);
    command.arg(program).args(["report", "--json", "--socket", socket]);
    run(command.stdout(Stdio::piped()))
}

#[test]
fn strangers_are_turned_away_counted_and_told_whatever_the_files_rights() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &["--log-level", "debug"]);
    let everybody = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("rights");
    };
    let folder = daemon.socket().parent().expect("a folder");
    everybody(folder, 0o755);
    let program = folder.join("tcpmon");
    fs::copy(TCPMON, &program).expect("a copy");
    let socket = daemon.socket_text().to_owned();
    let refused = |daemon: &Daemon| daemon.metrics().count("tcpmon_socket_refused_total", &[]);
    let stranger = ["--regid=65534", "--clear-groups"];

    // The file's rights come first.
    let told = ask(&program, &stranger, &socket);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("join the group tcpmon"), "{told:?}");
    assert_eq!(refused(&daemon), 0);

    everybody(daemon.socket(), 0o666);
    let told = ask(&program, &stranger, &socket);
    assert_eq!((told.code, told.stderr.lines().count()), (Some(1), 1), "{told:?}");
    assert!(told.stderr.contains("403") && told.stderr.contains("join the group"), "{told:?}");
    assert_eq!(refused(&daemon), 1);

    // Whose group it is, by the first or by a further one.
    let group = fs::metadata(daemon.socket()).expect("the socket").gid();
    let further = format!("--groups={group}");
    let first = format!("--regid={group}");
    for ids in [&["--regid=65534", &further][..], &[&first, "--clear-groups"]] {
        let told = ask(&program, ids, &socket);
        assert_eq!(told.code, Some(0), "{ids:?}: {told:?}");
        assert!(told.stdout.starts_with('{'), "{ids:?}: {told:?}");
    }
    assert_eq!(refused(&daemon), 1);
    let ended = daemon.end(Signal::TERM);
    let lines = ended.log.iter().filter(|line| line.contains("turned uid 65534, gid 65534 away"));
    assert_eq!(lines.count(), 1, "{ended:?}");
}
