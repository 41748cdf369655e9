//! `cargo xtask vm --systemd`: the .deb under a real systemd.
//!
//! Whether the unit's sandbox lets the daemon work, whether systemd restarts it, and whether a
//! package leaves nothing behind is for a systemd to say that is PID 1, with a kernel that nobody
//! else uses. So a Debian root is booted in QEMU, the package installed there, and the service led
//! through its life: scripts in `checks/`, one line for each thing that they look at.

mod disk;
mod root;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use self::disk::Content;
use super::{Ready, Wanted, kernel::Kernel};
use crate::dist;

/// What is checked.
const WHAT: &str = "the service under systemd";

/// What `--systemd` takes beside it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SystemdArgs {
    /// Boot a Debian root with systemd instead, install the .deb there, and check the service's
    /// life: start, privileges, scrape, alerts, kills, upgrade, removal
    #[arg(long)]
    pub(super) systemd: bool,
    /// The package to install, instead of one that is made now
    #[arg(long, value_name = "FILE", requires = "systemd")]
    deb: Option<PathBuf>,
    /// Debian's release in the machine, as `trixie`; else the one that this machine's apt uses
    #[arg(long, value_name = "NAME", requires = "systemd", value_parser = suite)]
    suite: Option<String>,
}

/// The name of a release, which becomes one of a file.
fn suite(word: &str) -> Result<String, String> {
    let is_name = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    is_name.then(|| word.to_owned()).ok_or_else(|| "a release is named as bookworm".to_owned())
}

/// Checks the package on each kernel; an error if something is not as it should be on any.
pub(super) fn main(args: &SystemdArgs, wanted: &[Wanted], limit: Duration) -> Result<()> {
    let Some(ready) = Ready::to_boot(wanted)? else { return Ok(()) };
    let folder = ready.folder.join("systemd");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let package = match &args.deb {
        Some(package) => package.clone(),
        None => dist::deb(&folder.join("package"))?,
    };
    let root = root::fetch(&folder, &ready.programs.busybox, args.suite.as_deref())?;
    let content = Content { root: &root, package: &package, busybox: &ready.programs.busybox };
    ready.on_each(WHAT, |kernel| boot(kernel, &ready, content, &folder, limit))
}

/// Checks the package on one kernel.
fn boot(
    kernel: &Kernel,
    ready: &Ready,
    content: Content<'_>,
    folder: &Path,
    limit: Duration,
) -> Result<()> {
    let disk = folder.join(format!("{}.cpio", kernel.package));
    disk::write(&disk, kernel, content)?;
    let told = ready.boot(WHAT, kernel, &disk, limit);
    // It is made anew each time, and as large as the root.
    fs::remove_file(&disk).with_context(|| format!("cannot remove {}", disk.display()))?;
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_a_name_and_no_path() {
        assert_eq!(suite("trixie"), Ok("trixie".to_owned()));
        for word in ["", "../root", "bookworm-updates", "Trixie"] {
            assert!(suite(word).is_err(), "{word}");
        }
    }
}
