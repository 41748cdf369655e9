//! `cargo xtask build`: set-up, then one file that can be copied elsewhere.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    process::{capture, step},
    setup,
};

/// What to build, and how.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Args {
    /// Link everything in, so that the binary runs on any distribution
    #[arg(long = "static")]
    is_static: bool,
    /// Build without optimisation, with debug assertions
    #[arg(long)]
    debug: bool,
}

impl Args {
    /// A binary for any distribution.
    pub fn for_others() -> Self {
        Self { is_static: true, debug: false }
    }
}

/// Builds and prints the path of the binary, its size on standard error.
pub fn main(args: &Args) -> Result<()> {
    let binary = build(args)?;
    let size =
        fs::metadata(&binary).with_context(|| format!("cannot read {}", binary.display()))?.len();
    let tenths = size / 100_000;
    eprintln!("xtask: {}.{} MB", tenths / 10, tenths % 10);
    println!("{}", short(&binary).display());
    Ok(())
}

/// The program at that path, whole, or without one a `tcpmon` that is built now for release.
pub fn given_or_built(path: Option<&Path>) -> Result<PathBuf> {
    match path {
        Some(path) => fs::canonicalize(path)
            .with_context(|| format!("cannot find the program {}", path.display())),
        None => build(&Args::default()),
    }
}

/// Sets up what is missing and builds `tcpmon`; returns the binary's path.
pub fn build(args: &Args) -> Result<PathBuf> {
    setup::ensure(None)?;
    let profile = if args.debug { "debug" } else { "release" };
    let kind = if args.is_static { ", static" } else { "" };
    step(&format!("probes and program ({profile}{kind})"), || {
        let mut command = cargo();
        command.args(["build", "--package", "tcpmon", "--bin", "tcpmon"]);
        command.arg("--message-format=json-render-diagnostics");
        if !args.debug {
            command.arg("--release");
        }
        if args.is_static {
            // With `--target` the flags go to the program alone: build scripts
            // and procedural macros cannot be linked statically.
            command.args(["--target", &host()?]);
            command.env("RUSTFLAGS", static_flags(env::var("RUSTFLAGS").ok().as_deref()));
            command.env_remove("CARGO_ENCODED_RUSTFLAGS");
        }
        executable(&mut command).with_context(|| {
            let hint = "; a static build needs libc.a (libc6-dev, glibc-static)";
            format!("the build failed{}", if args.is_static { hint } else { "" })
        })
    })
}

/// The cargo that runs this task, at the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(setup::workspace());
    command
}

/// A path as one would type it here: relative to the current folder if below.
pub fn short(path: &Path) -> PathBuf {
    env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf))
        .unwrap_or_else(|| path.to_owned())
}

/// The target triple of this machine.
pub(crate) fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = capture(Command::new(rustc).arg("-vV"))?;
    said.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc -vV names no host")
}

/// The compiler's flags of a static build, after those the user has set.
fn static_flags(set: Option<&str>) -> String {
    format!("{} -C target-feature=+crt-static", set.unwrap_or_default()).trim().to_owned()
}

/// Runs a build and picks the path of the binary out of cargo's messages;
/// errors and warnings of the compiler go to the terminal.
fn executable(command: &mut Command) -> Result<PathBuf> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut found = None;
    for line in BufReader::new(stdout).lines() {
        found = artifact(&line.context("cannot read cargo's messages")?).or(found);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo build ({status})");
    }
    found.context("cargo built no binary `tcpmon`")
}

/// The binary that one of cargo's messages announces.
fn artifact(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_tcpmon = message.pointer("/target/name").and_then(Value::as_str) == Some("tcpmon");
    let path = message.get("executable")?.as_str()?;
    is_tcpmon.then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"tcpmon"},
            "executable":"/w/target/release/tcpmon"}"#;
        assert_eq!(artifact(message), Some("/w/target/release/tcpmon".into()));
        for other in [
            r#"{"reason":"compiler-artifact","target":{"name":"tcpmon"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/w/other"}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "not JSON",
        ] {
            assert_eq!(artifact(other), None, "{other}");
        }
    }

    #[test]
    fn a_static_build_keeps_the_users_flags() {
        assert_eq!(static_flags(None), "-C target-feature=+crt-static");
        assert_eq!(
            static_flags(Some("-C target-cpu=native")),
            "-C target-cpu=native -C target-feature=+crt-static"
        );
    }
}
