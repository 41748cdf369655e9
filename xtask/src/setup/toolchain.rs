//! What makes a Rust toolchain fit to build the probes, and where such
//! toolchains are looked for without installing anything.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process::{capture, find_program};

/// The LLVM releases that the pinned bpf-linker can be built for.
pub(super) const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// The oldest Rust that builds this workspace, from its `rust-version`.
pub(super) const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// A compiler that can build the probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Toolchain {
    pub(super) rustc: PathBuf,
    pub(super) cargo: PathBuf,
    /// The folder of the standard library's source.
    pub(super) source: PathBuf,
    /// The line that `rustc -V` prints.
    pub(super) version: String,
    /// Major release of the LLVM that the compiler writes bitcode with.
    pub(super) llvm: u32,
}

/// Why a compiler cannot build the probes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// All it lacks is the source of the standard library.
    NoSource(String),
    /// Something that cannot be added to it.
    Other(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoSource(why) | Self::Other(why)) = self;
        f.write_str(why)
    }
}

/// What `rustc -vV` says about a compiler.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) line: String,
    pub(super) release: (u32, u32),
    pub(super) llvm: u32,
}

impl Version {
    /// Reads the output of `rustc -vV`; `None` if a line is missing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some(Self {
            line: text.lines().next()?.trim().to_owned(),
            release: major_minor(field("release")?)?,
            llvm: field("LLVM version")?.split('.').next()?.trim().parse().ok()?,
        })
    }
}

/// The first two numbers of a version such as `1.96.0-nightly` or
/// `1.96.0+dfsg1-1~deb12u2`.
pub(super) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim().split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether a release is as new as this workspace needs.
pub(super) fn new_enough(release: (u32, u32)) -> bool {
    major_minor(OLDEST_RUST).is_some_and(|oldest| release >= oldest)
}

/// The line that `rustc -V` prints.
pub(super) fn version_line(rustc: &Path) -> Result<String> {
    Ok(capture(command(rustc).arg("-V"))?.trim().to_owned())
}

/// Looks at a compiler, which may be rustup's proxy, and says whether it can
/// build the probes.
pub(super) fn examine(rustc: &Path) -> Result<Toolchain, Unfit> {
    let other = |error: anyhow::Error| {
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        Unfit::Other(first)
    };
    let said = capture(command(rustc).arg("-vV")).map_err(other)?;
    let sysroot = capture(command(rustc).args(["--print", "sysroot"])).map_err(other)?;
    let sysroot = PathBuf::from(sysroot.trim());
    let version = Version::parse(&said)
        .with_context(|| format!("{} -vV: no release or LLVM version", rustc.display()))
        .map_err(other)?;
    judge(&version, &sysroot, rustc)
}

fn judge(version: &Version, sysroot: &Path, asked: &Path) -> Result<Toolchain, Unfit> {
    let at = sysroot.display();
    let line = &version.line;
    if !new_enough(version.release) {
        return Err(Unfit::Other(format!("{line} in {at}: older than {OLDEST_RUST}")));
    }
    if !LLVM_MAJORS.contains(&version.llvm) {
        return Err(Unfit::Other(format!(
            "{line} in {at}: its LLVM is {}, bpf-linker knows {} to {}",
            version.llvm,
            LLVM_MAJORS.start(),
            LLVM_MAJORS.end()
        )));
    }
    let tool = |name: &str| Some(sysroot.join("bin").join(name)).filter(|path| path.is_file());
    let beside = |name: &str| Some(asked.with_file_name(name)).filter(|path| path.is_file());
    let rustc = tool("rustc").unwrap_or_else(|| asked.to_owned());
    let Some(cargo) = tool("cargo").or_else(|| beside("cargo")) else {
        return Err(Unfit::Other(format!("{line} in {at}: has no cargo")));
    };
    let source = sysroot.join("lib/rustlib/src/rust/library");
    if !source.join("core/Cargo.toml").is_file() {
        return Err(Unfit::NoSource(format!("{line} in {at}: has no rust-src")));
    }
    Ok(Toolchain { rustc, cargo, source, version: line.clone(), llvm: version.llvm })
}

/// Compilers that came with the distribution, installed already.
pub(super) fn of_the_system() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = find_program("rustc")
        .into_iter()
        .chain([PathBuf::from("/usr/bin/rustc")])
        .filter(|path| path.is_file() && !is_rustup_proxy(path))
        .collect();
    found.dedup();
    found
}

/// rustup's proxies are links to rustup itself, or copies of it beside it.
fn is_rustup_proxy(rustc: &Path) -> bool {
    let links_to_rustup = rustc
        .canonicalize()
        .is_ok_and(|path| path.file_name().is_some_and(|name| name == "rustup"));
    links_to_rustup || rustc.with_file_name("rustup").is_file()
}

/// The compiler that a path names: itself, or the one of a sysroot.
pub(super) fn at_path(path: &Path) -> Result<PathBuf> {
    let path =
        path.canonicalize().with_context(|| format!("the eBPF toolchain {}", path.display()))?;
    let rustc = if path.is_dir() { path.join("bin/rustc") } else { path };
    if !rustc.is_file() {
        bail!("the eBPF toolchain: there is no {}", rustc.display());
    }
    Ok(rustc)
}

/// A compiler run apart from what this build says about its own: rustup and
/// cargo tell their children which one to use.
fn command(rustc: &Path) -> Command {
    let mut command = Command::new(rustc);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
        commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\ncommit-date: 2026-04-14\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn the_compiler_tells_its_release_and_llvm() {
        assert_eq!(
            Version::parse(STABLE),
            Some(Version {
                line: "rustc 1.95.0 (59807616e 2026-04-14)".into(),
                release: (1, 95),
                llvm: 22
            })
        );
        assert_eq!(Version::parse(&STABLE.replace("release", "")), None);
        assert_eq!(Version::parse("rustc 1.95.0\nrelease: 1.95.0\n"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn versions_begin_with_two_numbers() {
        for (text, expected) in [
            ("1.96.0+dfsg1-1~deb12u2", Some((1, 96))),
            ("1.97.0-nightly", Some((1, 97))),
            ("1.95", Some((1, 95))),
            ("1", None),
            ("(none)", None),
            ("", None),
        ] {
            assert_eq!(major_minor(text), expected, "{text}");
        }
        assert!(new_enough((1, 95)) && new_enough((2, 0)) && !new_enough((1, 94)));
    }

    #[test]
    fn a_toolchain_is_refused_for_the_reason_that_matters() {
        let fit = Version::parse(STABLE).expect("a whole output");
        let nowhere = Path::new("/nonexistent");
        let why = |version: &Version| {
            judge(version, nowhere, Path::new("/nonexistent/bin/rustc")).expect_err("unfit")
        };
        let old = Version { release: (1, 94), ..Version::parse(STABLE).expect("whole") };
        assert!(why(&old).to_string().ends_with("older than 1.95"), "{}", why(&old));
        let strange = Version { llvm: 99, ..Version::parse(STABLE).expect("whole") };
        assert!(why(&strange).to_string().contains("its LLVM is 99"), "{}", why(&strange));
        assert!(why(&fit).to_string().ends_with("has no cargo"), "{}", why(&fit));
    }
}
