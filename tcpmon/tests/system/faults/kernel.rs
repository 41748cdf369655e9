//! A kernel that lacks what the probes need: told by its type information, in which one name is
//! another.

use std::fs;

use tempfile::TempDir;

use crate::support::program::{run, tcpmon};

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
