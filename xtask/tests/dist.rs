//! What `cargo xtask dist` makes, and the packages through their lives: installed, configured,
//! upgraded, removed, by the real dpkg and rpm, on a copy of this system that is thrown away.
//!
//! The program in it is a stand-in, so that nothing has to be built; with the real one only the
//! size differs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "dist/rpm.rs"]
mod rpm;

/// Tells what the real program would.
const STAND_IN: &str = "\
#!/bin/sh
case $1 in
example-config) echo '#top = 50' ;;
generate)
    case $2 in
    man) mkdir -p $3 && echo .TH > $3/tcpmon.1 ;;
    *) echo completions for $3 ;;
    esac ;;
*) exit 1 ;;
esac
";

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("not looked at: there is no {program}");
    }
    there
}

/// Runs the task; returns where its work is.
fn dist(name: &str) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-tcpmon"));
    fs::write(&binary, STAND_IN).expect("written");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("dist").arg("--out").arg(&out).arg("--binary").arg(&binary);
    let output = command.output().expect("xtask");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

fn only(out: &Path, end: &str) -> PathBuf {
    let found = fs::read_dir(out).expect("a folder").flatten().map(|entry| entry.path());
    let found: Vec<_> = found.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{end}: {found:?}");
    found[0].clone()
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{error}");
    text
}

#[test]
fn the_same_commit_gives_the_same_bytes() {
    if !has("dpkg-deb") {
        return;
    }
    let (one, other) = (dist("one"), dist("other"));
    let sums = |out: &Path| fs::read_to_string(out.join("SHA256SUMS")).expect("sums");
    assert_eq!(sums(&one), sums(&other));
    assert!(
        said(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&one)).contains("OK")
    );

    let listed = said(Command::new("tar").arg("-tzf").arg(only(&one, ".tar.gz")));
    for file in ["usr/bin/tcpmon", "etc/tcpmon/tcpmon.toml", "usr/lib/sysusers.d/tcpmon.conf"] {
        assert!(listed.lines().any(|line| line.ends_with(&format!("-linux/{file}"))), "{listed}");
    }
    let image = only(&one, "-oci.tar");
    let index = said(Command::new("tar").arg("-xOf").arg(&image).arg("index.json"));
    let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    let blob = |digest: &serde_json::Value| {
        let digest = digest.as_str().expect("a digest").replace(':', "/");
        let mut command = Command::new("tar");
        command.arg("-xOf").arg(&image).arg(format!("blobs/{digest}"));
        serde_json::from_str::<serde_json::Value>(&said(&mut command)).expect("JSON")
    };
    let manifest = blob(&index["manifests"][0]["digest"]);
    assert_eq!(blob(&manifest["config"]["digest"])["config"]["Entrypoint"][0], "/tcpmon");
    let bom = fs::read_to_string(only(&one, ".cdx.json")).expect("a list");
    let bom: serde_json::Value = serde_json::from_str(&bom).expect("JSON");
    let names: Vec<_> = bom["components"].as_array().expect("a list").iter().collect();
    let has = |name: &str| names.iter().any(|component| component["name"] == name);
    assert!(has("aya") && has("rustls") && has("aya-ebpf"), "what is in the binary");
    assert!(!has("tempfile") && !has("xtask") && !has("rcgen"), "what only tests need");
}

/// What happens in the copy; ends at the first thing that is not as it should be.
const LIFE: &str = r#"
set -eux
deb=$1
# What set -e lets pass: a command that must fail, and does not.
never() { if "$@"; then exit 1; fi; }
export DEBIAN_FRONTEND=noninteractive
never getent passwd tcpmon
# Or the index of all man pages would be made anew at every step, which takes minutes.
rm -f /var/lib/man-db/auto-update

dpkg --install "$deb"
getent passwd tcpmon | grep ':/usr/sbin/nologin$'
getent group tcpmon
test "$(stat -c '%U %a' /usr/bin/tcpmon)" = 'root 755'
test "$(stat -c '%U %a' /etc/tcpmon/tcpmon.toml)" = 'root 644'
test -e /etc/systemd/system/multi-user.target.wants/tcpmon.service

test -z "$(dpkg --verify tcpmon)"

# An upgrade keeps what the administrator has written, and what she has switched off.
echo 'top = 7' >> /etc/tcpmon/tcpmon.toml
rm /etc/systemd/system/multi-user.target.wants/tcpmon.service
dpkg --install "$deb"
grep 'top = 7' /etc/tcpmon/tcpmon.toml
never test -e /etc/systemd/system/multi-user.target.wants/tcpmon.service

dpkg --remove tcpmon
never test -e /usr/bin/tcpmon
grep 'top = 7' /etc/tcpmon/tcpmon.toml
getent passwd tcpmon
dpkg --purge tcpmon
never test -e /etc/tcpmon
never getent passwd tcpmon
never getent group tcpmon
left=$(find /etc /usr/bin /usr/lib/systemd /usr/lib/sysusers.d /usr/share /var/lib/systemd /run \
    -xdev -maxdepth 5 -name '*tcpmon*')
test -z "$left"
"#;

#[test]
fn the_deb_comes_goes_and_leaves_nothing() {
    if !has("dpkg-deb")
        || !has("deb-systemd-helper") && !Path::new("/usr/bin/deb-systemd-helper").exists()
    {
        return;
    }
    lives("life", &only(&dist("life"), ".deb"), LIFE);
}

/// Runs a script as root in a copy of this system, with a package as its argument.
fn lives(name: &str, package: &Path, life: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not looked at: this takes root");
        return;
    }
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-root"));
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.sh"));
    fs::write(&script, life).expect("written");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).expect("made");
    // The upper folder is in memory, and gone with the mount namespace.
    let enter = "set -e
        mount -t tmpfs tmpfs $1
        mkdir $1/upper $1/work $1/root
        mount -t overlay overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work $1/root
        mount -t proc proc $1/root/proc
        mount -t tmpfs tmpfs $1/root/run
        mkdir -p $1/root/tmp && mount -t tmpfs tmpfs $1/root/tmp
        cp $2 $1/root/tmp/package; cp $3 $1/root/tmp/life.sh
        exec chroot $1/root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /tmp/life.sh /tmp/package";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--net", "sh", "-c", enter, "sh"])
        .arg(&work)
        .arg(package)
        .arg(&script);
    let output = command.output().expect("unshare");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{told}", String::from_utf8_lossy(&output.stdout));
    let _ = fs::remove_dir_all(&work);
}
