//! Tar, by the system's tar, without anything that differs from one machine to the next.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Release, output, tree::Tree};

/// Packs what is in a folder: owned by root, with one time, in the order of names.
pub(super) fn tar(folder: &Path, time: u64, to: &Path, gzip: bool) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    command.arg("--format=ustar").arg(format!("--mtime=@{time}"));
    if gzip {
        command.arg("--use-compress-program=gzip -9n");
    }
    command.arg("--file").arg(to).arg("--directory").arg(folder).args(entries(folder)?);
    output(&mut command).map(|_| ())
}

/// What is in the folder itself, so that names do not begin with `./`.
fn entries(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// The package's files below one folder, for whoever has no package manager.
pub(super) fn tarball(release: &Release, tree: &Tree) -> Result<()> {
    let name = format!("tcpmon-{}-{}-linux", release.version, Release::machine());
    let work = release.out.join(".tarball");
    let top = work.join(&name);
    fs::create_dir_all(&top).context("a folder")?;
    tree.write(&top)?;
    tar(&work, release.time, &release.out.join(format!("{name}.tar.gz")), true)?;
    fs::remove_dir_all(work)?;
    Ok(())
}
