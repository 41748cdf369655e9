//! The Debian root that systemd boots: made by debootstrap from the mirror that this machine's apt
//! uses, and kept as an archive that the kernel unpacks into memory, which takes no disk and no
//! driver for one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::super::debian::{self, files};
use crate::{
    dist::sha256,
    process::{as_root, capture, run_within, step},
    setup,
};

/// What the checks call, beside what every Debian has.
const PACKAGES: [&str; 8] =
    ["bpftool", "curl", "dbus", "iproute2", "libpam-systemd", "procps", "systemd", "systemd-sysv"];

/// Makes the archive, as root.
const MAKE: &str = include_str!("root.sh");

/// How long that may take: some 150 packages are fetched and installed.
const LIMIT: Duration = Duration::from_mins(20);

const PREFIX: &str = "root-";
const SUFFIX: &str = ".cpio";

/// A release of Debian and where it is to be had.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    mirror: String,
    suite: String,
}

/// The archive of a root of `suite`, or else of the release that this machine's apt uses; made if
/// there is none yet.
pub(super) fn fetch(folder: &Path, busybox: &Path, suite: Option<&str>) -> Result<PathBuf> {
    let release = debian::with_new_lists(|| {
        let format = "$(LABEL)|$(COMPONENT)|$(REPO_URI)|$(CODENAME)";
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", format, "Created-By: Packages"]);
        release(&capture(&mut apt)?, suite)
    })?;
    let image = folder.join(name(&release.suite));
    if image.exists() {
        return Ok(image);
    }
    setup::ensure_program("debootstrap", "debootstrap")?;
    step(&format!("a root of Debian {} (debootstrap)", release.suite), || {
        let mut command = as_root("unshare");
        command.args(["--mount", "sh", "-c", MAKE, "sh"]).arg(folder.join("stage"));
        command.args([&release.suite, &release.mirror]).arg(PACKAGES.join(","));
        command.args([busybox, &image]);
        run_within(&mut command, LIMIT).inspect_err(|_| discard(folder, &image))
    })
    .with_context(|| format!("no root of Debian {} from {}", release.suite, release.mirror))?;
    // Those of other packages, a hundred megabytes and more each.
    for old in files(folder) {
        if old != image && is_root_of(&old, &release.suite) {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    Ok(image)
}

/// Removes what a root that came to nothing has left: out here nothing is mounted in it.
fn discard(folder: &Path, image: &Path) {
    let mut command = as_root("rm");
    command.args(["-rf", "--one-file-system"]).arg(folder.join("stage"));
    // If this fails, the next run begins with it.
    let _ = capture(command.arg(image.with_extension("cpio.part")));
}

/// The release among what apt uses, by lines of label, component, mirror and code name.
fn release(listing: &str, suite: Option<&str>) -> Result<Release> {
    let first = listing.lines().find_map(|line| {
        let mut words = line.split('|');
        let own = words.next()? == "Debian" && words.next()? == "main";
        let (mirror, suite) = (words.next()?, words.next()?);
        // Others are additions to a release: `bookworm-updates`.
        (own && !suite.contains('-')).then_some((mirror, suite))
    });
    let Some((mirror, own)) = first else {
        bail!("apt uses no mirror of Debian: see the sources in /etc/apt");
    };
    Ok(Release { mirror: mirror.to_owned(), suite: suite.unwrap_or(own).to_owned() })
}

/// The archive's name: another for other packages, or if it is made in another way.
fn name(suite: &str) -> String {
    let digest = sha256([&PACKAGES.join(","), MAKE].concat().as_bytes());
    format!("{PREFIX}{suite}-{}{SUFFIX}", &digest[..12])
}

/// Whether that is a root of this suite, whatever packages it has.
fn is_root_of(path: &Path, suite: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix(suite))
        .is_some_and(|rest| rest.starts_with('-') && rest.ends_with(SUFFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
Debian-Security|main|http://mirror.example/security/|bookworm-security
$(LABEL)|main|http://other.example/|nodistro
Debian|contrib|http://mirror.example/contrib/|bookworm
Debian|main|http://mirror.example/debian/|bookworm-updates
Debian|main|http://mirror.example/debian/|bookworm
Debian|main|http://second.example/debian/|trixie
";

    #[test]
    fn the_release_is_the_one_that_apt_uses() {
        let mirror = "http://mirror.example/debian/".to_owned();
        let of = |suite: Option<&str>| release(LISTING, suite).expect("a release");
        assert_eq!(of(None), Release { mirror: mirror.clone(), suite: "bookworm".into() });
        assert_eq!(of(Some("trixie")), Release { mirror, suite: "trixie".into() });
        let none = release("Ubuntu|main|http://mirror.example/|noble\n", None);
        assert!(none.expect_err("none").to_string().contains("no mirror of Debian"));
    }

    #[test]
    fn a_root_is_known_by_its_release_and_packages() {
        let name = name("bookworm");
        assert!(is_root_of(Path::new(&name), "bookworm"), "{name}");
        assert!(!is_root_of(Path::new(&name), "book"), "{name}");
        assert!(!is_root_of(Path::new("root-bookworm-1.cpio.part"), "bookworm"));
    }
}
