//! Debian's packages, fetched and unpacked without being installed: no root is needed, and the
//! machine stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{capture, run_within},
    setup,
};

/// How long a download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(5);

/// Does what asks apt for something; if that fails, again with new lists of packages, which this
/// gets once at most: there may be none yet, or they name files that the mirror has replaced.
pub(super) fn with_new_lists<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let first = match work() {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    if ASKED.swap(true, Ordering::Relaxed) {
        return Err(first);
    }
    match setup::update_package_lists() {
        Ok(()) => work(),
        Err(error) => bail!("{first:#}; and {error:#}"),
    }
}

/// The names of packages that begin so.
pub(super) fn names(prefix: &str) -> Result<Vec<String>> {
    let names = capture(Command::new("apt-cache").args(["pkgnames", prefix]))
        .context("apt tells no packages")?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// What apt would add to this machine to have a package: the package itself, and those it needs
/// that are not here.
pub(super) fn additions(package: &str) -> Result<Vec<String>> {
    let mut apt = Command::new("apt-get");
    apt.env("LC_ALL", "C").args(["-q", "--simulate", "--no-install-recommends", "install"]);
    let added = added(&capture(apt.arg(package))?);
    // A package that is here, but without the program it was wanted for.
    Ok(if added.is_empty() { vec![package.to_owned()] } else { added })
}

/// The new packages in what a simulation of apt-get(8) prints: `Inst NAME (VERSION ...)`. With an
/// old version in brackets before the new one it is an upgrade: what is here will have to do.
fn added(simulation: &str) -> Vec<String> {
    let new = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        rest.starts_with('(').then(|| name.to_owned())
    };
    simulation.lines().filter_map(new).collect()
}

/// Downloads packages and unpacks them all into an empty folder.
pub(super) fn unpack(packages: &[String], into: &Path) -> Result<()> {
    let archives = into.with_extension("archives");
    for folder in [&archives, into] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "download"]).args(packages).current_dir(&archives);
    run_within(&mut apt, DOWNLOAD_LIMIT)?;
    for archive in files(&archives) {
        capture(Command::new("dpkg").arg("-x").args([archive.as_path(), into]))?;
    }
    fs::remove_dir_all(&archives)?;
    Ok(())
}

/// What is in a folder; nothing if it cannot be read.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_packages_are_added() {
        let simulation = "\
Reading package lists...
The following packages will be REMOVED:
  qemu-utils
Remv qemu-utils [1:10.0.2]
Inst libnl-3-200 (3.7.0-0.2+b1 Debian:12.15/oldstable [amd64])
Inst libc6 [2.36-9] (2.36-10 Debian:12.15/oldstable [amd64]) []
Inst qemu-system-x86 (1:7.2 Debian:12.15/oldstable [amd64])
Conf qemu-system-x86 (1:7.2 Debian:12.15/oldstable [amd64])
";
        assert_eq!(added(simulation), ["libnl-3-200", "qemu-system-x86"]);
        assert_eq!(added("busybox-static is already the newest version.\n"), [""; 0]);
    }

    #[test]
    fn lists_are_asked_for_once_and_only_where_something_failed() {
        assert_eq!(with_new_lists(|| Ok(1)).expect("done"), 1);
    }
}
