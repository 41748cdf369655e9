//! The .rpm, read, unpacked and taken through its life by the real rpm.

use std::{collections::BTreeSet, process::Command};

use super::{dist, has, lives, only, said};

/// What rpm tells of a package's file, one line each.
fn asked(out: &std::path::Path, question: &str) -> BTreeSet<String> {
    let mut command = Command::new("rpm");
    command.args(["-qp", "--nosignature", "--queryformat", question]).arg(only(out, ".rpm"));
    said(&mut command).lines().map(str::to_owned).collect()
}

#[test]
fn the_rpm_has_the_files_of_the_deb() {
    if !has("dpkg-deb") || !has("rpm") {
        return;
    }
    let out = dist("files");
    let digests = said(Command::new("rpm").args(["-K", "--nosignature"]).arg(only(&out, ".rpm")));
    assert!(digests.contains("digests OK"), "{digests}");

    // Modes and sizes too; folders are the .deb's alone where they are not tcpmon's.
    let listed = said(Command::new("dpkg-deb").arg("--contents").arg(only(&out, ".deb")));
    let of_deb: BTreeSet<String> = listed
        .lines()
        .filter(|line| line.starts_with('-'))
        .map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let path = columns[5].trim_start_matches('.');
            // Debian's place for it is not everybody's.
            let path = path.replace("zsh/vendor-completions", "zsh/site-functions");
            format!("{} {} {} {path}", columns[0], columns[1], columns[2])
        })
        .collect();
    let mut of_rpm = asked(
        &out,
        "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILESIZES} %{FILENAMES}\\n]",
    );
    of_rpm.retain(|line| line.starts_with('-'));
    assert_eq!(of_rpm, of_deb);
    for file in ["usr/bin/tcpmon", "share/man/man1/tcpmon.1.gz", "site-functions/_tcpmon"] {
        assert!(of_rpm.iter().any(|line| line.ends_with(file)), "{file}: {of_rpm:?}");
    }

    let flags = asked(&out, "[%{FILEFLAGS:fflags} %{FILENAMES}\\n]");
    let marked: Vec<_> = flags.iter().filter(|line| line.starts_with('c')).collect();
    assert_eq!(marked, ["cn /etc/tcpmon/tcpmon.toml"], "configuration that is not replaced");
    assert!(flags.contains("l /usr/share/doc/tcpmon/LICENSE-MIT"), "{flags:?}");

    let about = asked(&out, "%{NAME} %{RELEASE} %{ARCH} %{LICENSE}\\n%{SUMMARY}\\n");
    let name = format!("tcpmon 1 {} MIT OR Apache-2.0", std::env::consts::ARCH);
    assert!(about.contains(&name), "{about:?}");
    assert!(about.contains("who holds the TCP ports, and for how long"), "{about:?}");
    let provided = asked(&out, "[%{PROVIDES}\\n]");
    assert!(provided.contains("group(tcpmon)"), "rpm 4.19 makes users itself: {provided:?}");
    let needed = asked(&out, "[%{REQUIRES}\\n]");
    let foreign = |name: &&String| !name.starts_with("rpmlib(") && *name != "config(tcpmon)";
    let needed: Vec<_> = needed.iter().filter(foreign).collect();
    assert_eq!(needed, ["/bin/sh"], "the program is linked statically");
}

/// As the .deb's. There is no systemd in the copy: what it is asked is written down, and what
/// concerns files alone is done by the real systemctl.
const LIFE: &str = r#"
set -eux
rpm=$1
never() { if "$@"; then exit 1; fi; }
# Debian's rpm wants to be told that it is meant, and knows no packages that are needed.
rpm() { /usr/bin/rpm --force-debian --nodeps "$@"; }
wanted=/etc/systemd/system/multi-user.target.wants/tcpmon.service
asked=/tmp/asked
never getent passwd tcpmon
mv /usr/bin/systemctl /usr/bin/systemctl.real
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
echo "$*" >>/tmp/asked
case "$*" in
*preset*|*disable*) exec systemctl.real --root=/ "$@" ;;
esac
END
chmod 755 /usr/bin/systemctl
mkdir -p /run/systemd/system /etc/systemd/system-preset
# Fedora's rule for services that nobody has decided on.
echo 'disable *' >/etc/systemd/system-preset/99-default-disable.preset

: >$asked
rpm --install "$rpm"
getent passwd tcpmon | grep ':/usr/sbin/nologin$'
getent group tcpmon
test "$(stat -c '%U %a' /usr/bin/tcpmon)" = 'root 755'
test "$(stat -c '%U %a' /etc/tcpmon/tcpmon.toml)" = 'root 644'
never test -e $wanted
grep preset $asked
grep daemon-reload $asked
never grep start $asked
rpm --verify tcpmon

# An upgrade keeps what the administrator has written and enabled, and restarts what runs.
echo 'top = 7' >>/etc/tcpmon/tcpmon.toml
systemctl.real --root=/ enable tcpmon.service
: >$asked
rpm --upgrade --force "$rpm"
grep 'top = 7' /etc/tcpmon/tcpmon.toml
test -e $wanted
grep try-restart $asked
never grep -E 'preset|stop|disable' $asked

: >$asked
mkdir -p /run/tcpmon /var/lib/tcpmon
rpm --erase tcpmon
grep stop $asked
never test -e $wanted
never test -e /usr/bin/tcpmon
# rpm's own way to keep what was changed.
grep 'top = 7' /etc/tcpmon/tcpmon.toml.rpmsave
getent passwd tcpmon
rm -r /etc/tcpmon
left=$(find /etc /usr/bin /usr/lib/systemd /usr/lib/sysusers.d /usr/share /var/lib/systemd /run \
    /var/lib/tcpmon -xdev -maxdepth 5 -name '*tcpmon*' || true)
test -z "$left"
"#;

#[test]
fn the_rpm_comes_goes_and_leaves_nothing_but_the_user() {
    if !has("dpkg-deb") || !has("rpm") || !has("systemctl") || !has("systemd-sysusers") {
        return;
    }
    lives("rpm-life", &only(&dist("rpm-life"), ".rpm"), LIFE);
}
