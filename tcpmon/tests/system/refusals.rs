//! What cannot be done is refused with one line that names cause and mend, and the right code.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;

use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::program::{Finished, run, tcpmon};
use crate::support::turn::Turn;

const FAILED: Option<i32> = Some(1);
const MISUSED: Option<i32> = Some(2);

/// As an ordinary user would be: no capability, and not root.
const NOBODY: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
];

/// One line, of tcpmon's, in which all of these words stand.
fn assert_one_line(finished: &Finished, code: Option<i32>, words: &[&str]) {
    let told = &finished.stderr;
    assert_eq!(finished.code, code, "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("tcpmon: ") && told.ends_with('\n'), "{told}");
    assert!(!told.contains("panicked") && !told.contains("RUST_BACKTRACE"), "{told}");
    for word in words {
        assert!(told.contains(word), "no {word:?} in: {told}");
    }
}

/// A folder with room for a socket, that anybody may use.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), everybody).expect("rights");
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Runs a daemon that must not start, behind `before`.
fn daemon(before: &[&str], socket: &Path, more: &[&str]) -> Finished {
    let usual = ["daemon", "--socket", text(socket), "--web.listen-address", "127.0.0.1:0"];
    run(&mut tcpmon(before, &[&usual, more].concat()))
}

#[test]
fn a_daemon_without_privileges() {
    let folder = folder();
    let socket = folder.path().join("s");
    // The program may lie where an ordinary user may not look.
    let program = folder.path().join("tcpmon");
    fs::copy(crate::support::program::TCPMON, &program).expect("a copy");
    let mut command = std::process::Command::new(NOBODY[0]);
    command.args(&NOBODY[1..]).arg(&program).args(["daemon", "--socket", text(&socket)]);
    let refused = run(command.args(["--web.listen-address", "127.0.0.1:0"]));
    assert_one_line(&refused, FAILED, &["CAP_BPF and CAP_PERFMON", "--cap-add BPF"]);
    assert!(!socket.exists(), "a socket is left behind");
    let mut command = std::process::Command::new(NOBODY[0]);
    command.args(&NOBODY[1..]).arg(&program).args(["tail", "--socket", text(&socket)]);
    let refused = run(&mut command);
    assert_one_line(&refused, FAILED, &["no tcpmon daemon answers", "start `tcpmon daemon`"]);
}

#[test]
fn a_daemon_without_capabilities_that_it_could_have() {
    let folder = folder();
    // Root without capabilities, but with the right to have them: what a unit with a wrong
    // AmbientCapabilities= gives.
    let before = ["setpriv", "--securebits=+noroot,+noroot_locked", "--inh-caps=-all"];
    let refused = daemon(&before, &folder.path().join("s"), &[]);
    assert_one_line(&refused, FAILED, &["CAP_BPF and CAP_PERFMON", "setcap cap_bpf,cap_perfmon"]);
}

#[test]
fn a_kernel_without_btf() {
    let folder = folder();
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let before = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let refused = daemon(&before, &folder.path().join("s"), &[]);
    assert_one_line(&refused, FAILED, &["no BTF", "CONFIG_DEBUG_INFO_BTF"]);
}

#[test]
fn an_old_kernel() {
    let folder = folder();
    let refused = daemon(&["setarch", "--uname-2.6"], &folder.path().join("s"), &[]);
    assert_one_line(&refused, FAILED, &["kernel 2.6.", "5.15 or later"]);
}

/// Runs a daemon whose socket's folder is a mount of its own, made by `mount` (shell, in which
/// `$1` is the folder).
fn daemon_on(mount: &str, socket: &str) -> Finished {
    let folder = folder();
    let place = folder.path().join("run");
    fs::create_dir(&place).expect("a folder");
    let script = format!("{mount} && shift && exec \"$@\"");
    let before = ["unshare", "--mount", "sh", "-ec", &script, "sh", text(&place)];
    daemon(&before, &place.join(socket), &[])
}

#[test]
fn a_read_only_disk() {
    let mount = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";
    for socket in ["s", "sub/s"] {
        let refused = daemon_on(mount, socket);
        assert_one_line(&refused, FAILED, &["Read-only file system", "--socket"]);
    }
}

#[test]
fn a_full_disk() {
    // One inode is the folder's own.
    let mount = "mount -t tmpfs -o size=4k,nr_inodes=2 none \"$1\" && : > \"$1/full\"";
    for socket in ["s", "sub/s"] {
        let refused = daemon_on(mount, socket);
        assert_one_line(&refused, FAILED, &["No space left on device", "--socket"]);
    }
}

#[test]
fn a_port_in_use() {
    let _turn = Turn::shared();
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let socket = folder.path().join("s");
    let refused = daemon(&[], &socket, &["--web.listen-address", &address]);
    let words = [&*address, "Address already in use", "--web.listen-address"];
    assert_one_line(&refused, FAILED, &words);
    assert!(!socket.exists(), "a socket is left behind");
}

#[test]
fn a_broken_configuration() {
    let folder = folder();
    let file = folder.path().join("tcpmon.toml");
    for (content, words) in [
        ("top = ", &["tcpmon.toml:1:"][..]),
        ("\ntop = 5\nring-byte = 4096\n", &[":3:1", "ring-byte", "did you mean", "ring-bytes"]),
        ("top = \"many\"\n", &[":1:7", "top", "many"]),
        ("[web]\nlisten-address = [\"127.0.0.1:1\", \"nowhere\"]\n", &[":2:", "nowhere", "PORT"]),
    ] {
        fs::write(&file, content).expect("a file");
        let refused = daemon(&[], &folder.path().join("s"), &["--config", text(&file)]);
        assert_one_line(&refused, MISUSED, words);
    }
    let refused = daemon(&[], &folder.path().join("s"), &["--config", "/nowhere/tcpmon.toml"]);
    assert_one_line(&refused, MISUSED, &["/nowhere/tcpmon.toml", "No such file"]);
}

#[test]
fn a_second_daemon_on_the_same_socket() {
    let turn = Turn::shared();
    let first = Daemon::start(&turn, &[]);
    let refused = daemon(&[], first.socket(), &[]);
    let pid = format!("pid {}", first.pid());
    assert_one_line(&refused, FAILED, &["another tcpmon daemon", &pid, "--socket"]);
    assert_eq!(first.get("/healthz").status, 200);
}

#[test]
fn something_else_where_the_socket_should_be() {
    let folder = folder();
    let socket = folder.path().join("s");
    fs::write(&socket, "precious").expect("a file");
    let refused = daemon(&[], &socket, &[]);
    assert_one_line(&refused, FAILED, &["is not a socket", "--socket"]);
    assert_eq!(fs::read_to_string(&socket).expect("the file"), "precious");
}

#[test]
fn a_socket_file_that_nobody_listens_on() {
    let turn = Turn::shared();
    let folder = folder();
    let socket = folder.path().join("tcpmon.sock");
    // As a daemon leaves it that is killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&socket, everybody).expect("rights");
    let program = folder.path().join("tcpmon");
    fs::copy(crate::support::program::TCPMON, &program).expect("a copy");
    let mut tail = std::process::Command::new(NOBODY[0]);
    tail.args(&NOBODY[1..]).arg(&program).args(["tail", "--socket", text(&socket)]);
    let words = ["no tcpmon daemon answers", text(&socket), "Connection refused"];
    assert_one_line(&run(&mut tail), FAILED, &words);
    let daemon = Daemon::start_in(&turn, folder, &["--web.listen-address", "127.0.0.1:0"]);
    assert_eq!(daemon.socket(), socket);
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn output_that_cannot_be_written() {
    let turn = Turn::shared();
    let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
    let daemon = Daemon::start(&turn, &[]);
    let tail = ["tail", "--socket", daemon.socket_text()];
    for args in [&["check"][..], &["check", "--json"], &tail] {
        let mut command = tcpmon(&[], args);
        let child = crate::support::program::start(command.stdout(full()));
        let refused = crate::support::program::finish(child);
        let words = ["standard output", "No space left on device"];
        assert_one_line(&refused, FAILED, &words);
    }
}

#[test]
fn bad_arguments() {
    for (args, words) in [
        (&["tail", "--state", "open"][..], &["open", "time_wait"][..]),
        (&["tail", "--port", "70000"], &["70000", "65535"]),
        (&["tail", "--addr", "10.0.0.0/40"], &["10.0.0.0/40"]),
        (&["tail", "--pid", "me"], &["me"]),
        (&["tail", "--count", "0"], &["--count", "1 or more"]),
        (&["tail", "--staet", "close"], &["--staet", "--state"]),
        (&["daemon", "--ring-bytes", "1"], &["--ring-bytes", "4096"]),
        (&["daemon", "--web.listen-address", "nowhere"], &["nowhere", "PORT"]),
        (&["dæmon"], &["dæmon"]),
        (&[], &["Usage"]),
    ] {
        let refused = run(&mut tcpmon(&[], args));
        assert_eq!(refused.code, MISUSED, "{args:?}: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
        for word in words {
            assert!(refused.stderr.contains(word), "no {word:?} in: {}", refused.stderr);
        }
    }
}
