//! The package for Debian and its kin, by dpkg-deb.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Release, output,
    tree::{Kind, Tree},
};
use crate::setup;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes it; returns its path.
pub(super) fn make(release: &Release, tree: &Tree) -> Result<PathBuf> {
    let root = release.out.join(".deb");
    fs::create_dir_all(&root)?;
    tree.write(&root)?;
    let about = root.join("DEBIAN");
    fs::create_dir(&about)?;
    fs::set_permissions(&about, fs::Permissions::from_mode(0o755))?;
    let read = |name: &str| setup::read_source(Path::new("deploy/debian").join(name));
    let size: usize = tree.entries().iter().map(|entry| entry.bytes.len().div_ceil(1024)).sum();
    let control = read("control")?
        .replace("@VERSION@", &release.version)
        .replace("@ARCHITECTURE@", Release::architecture())
        .replace("@SIZE@", &size.to_string());
    put(&about.join("control"), &control, 0o644)?;
    for script in SCRIPTS {
        put(&about.join(script), &read(script)?, 0o755)?;
    }
    let configuration = tree.entries().iter().filter(|entry| entry.kind == Kind::Configuration);
    let names: String = configuration.flat_map(|entry| ["/", &entry.path, "\n"]).collect();
    put(&about.join("conffiles"), &names, 0o644)?;
    let paths = tree.entries().iter().map(|entry| &entry.path);
    let sums = output(Command::new("md5sum").args(paths).current_dir(&root))?;
    put(&about.join("md5sums"), &String::from_utf8(sums)?, 0o644)?;

    let name = format!("tcpmon_{}_{}.deb", release.version, Release::architecture());
    let package = release.out.join(name);
    let mut command = Command::new("dpkg-deb");
    command.args(["--build", "--root-owner-group", "-Zxz"]).arg(&root);
    command.arg(&package).env("SOURCE_DATE_EPOCH", release.time.to_string());
    output(&mut command).context("dpkg-deb (package dpkg) makes the .deb")?;
    fs::remove_dir_all(root)?;
    Ok(package)
}

fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
