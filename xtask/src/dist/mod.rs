//! `cargo xtask dist`: what is handed to others. A .deb, an .rpm, a tarball, a container image, the
//! list of what is in the binary (SBOM), and checksums of all.
//!
//! The binary is linked statically, so one package does for every distribution. Everything has the
//! time of the commit, and files are in the order of their names: the same commit, built by the
//! same compiler, gives the same bytes.

mod archive;
mod deb;
mod oci;
mod rpm;
mod sbom;
mod tree;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    build,
    process::{capture, step},
    setup,
};

/// Arguments of `cargo xtask dist`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to put what is made; what is there of an earlier time is removed
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Pack this binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// What all parts are made with.
struct Release {
    binary: PathBuf,
    version: String,
    /// Seconds since 1970 of the commit.
    time: u64,
    out: PathBuf,
}

impl Release {
    /// With the binary built, and nothing yet where all will be put.
    fn new(args: &Args) -> Result<Self> {
        let binary = match &args.binary {
            Some(binary) => binary.clone(),
            None => build::build(&build::Args::for_others())?,
        };
        let out = setup::workspace().join(&args.out);
        if out.exists() {
            fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
        }
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        Ok(Self { binary, version: version()?, time: commit_time(), out })
    }

    /// The architecture as Linux has it.
    fn machine() -> &'static str {
        std::env::consts::ARCH
    }

    /// As Debian and Go have it.
    fn architecture() -> &'static str {
        match Self::machine() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }
}

/// Makes all, and prints what was made.
pub fn main(args: &Args) -> Result<()> {
    let release = Release::new(args)?;
    let tree = step("files of the package", || tree::Tree::of(&release))?;
    step("the .deb", || deb::make(&release, &tree))?;
    step("the .rpm", || rpm::make(&release, &tree))?;
    step("the tarball", || archive::tarball(&release, &tree))?;
    step("the container image", || oci::make(&release))?;
    step("the list of parts", || sbom::make(&release))?;
    let made = checksums(&release.out)?;
    for file in made {
        println!("{}", build::short(&file).display());
    }
    Ok(())
}

/// Makes nothing but the .deb; returns it.
pub fn deb(out: &Path) -> Result<PathBuf> {
    let release = Release::new(&Args { out: out.to_owned(), binary: None })?;
    let tree = step("files of the package", || tree::Tree::of(&release))?;
    step("the .deb", || deb::make(&release, &tree))
}

/// The version of the workspace.
fn version() -> Result<String> {
    let manifest = fs::read_to_string(setup::workspace().join("Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    Ok(line.context("Cargo.toml has no version")?.trim_matches('"').to_owned())
}

/// When the commit was made; 1970 where there is no git.
fn commit_time() -> u64 {
    let mut git = Command::new("git");
    git.current_dir(setup::workspace()).args(["log", "-1", "--format=%ct"]);
    capture(&mut git).ok().and_then(|time| time.trim().parse().ok()).unwrap_or(0)
}

/// Writes `SHA256SUMS`; returns all files.
fn checksums(out: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(out)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    let mut text = String::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        text.extend([&sha256(&fs::read(file)?), "  ", &*name, "\n"]);
    }
    let sums = out.join("SHA256SUMS");
    fs::write(&sums, text)?;
    files.push(sums);
    Ok(files)
}

/// As hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// What a program writes to standard output.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    let told = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !told.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&told.stderr).trim());
    }
    Ok(told.stdout)
}
