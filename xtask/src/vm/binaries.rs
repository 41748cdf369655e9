//! What is tested, and what tests it, both linked statically: the program as it would be copied
//! to a machine with such a kernel.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build::{cargo, host};

/// Name of the program, and of the test program of its system tests.
const PROGRAM: &str = "tcpmon";
const TESTS: &str = "system";

/// The built programs.
#[derive(Debug)]
pub(super) struct Binaries {
    /// The program. The tests know it by this path, so it must have the same in the machine.
    pub(super) program: PathBuf,
    /// The test program.
    pub(super) tests: PathBuf,
}

/// Builds both in release mode: emulation is slow.
pub(super) fn build() -> Result<Binaries> {
    let mut command = cargo();
    command
        .args(["test", "--no-run", "--locked", "--release", "--message-format"])
        .args(["json-render-diagnostics", "--package", PROGRAM, "--test", TESTS])
        // With `--target` the flags go to these alone: build scripts and procedural macros cannot
        // be linked statically.
        .args(["--target", &host()?])
        .env("RUSTFLAGS", flags(env::var("RUSTFLAGS").ok().as_deref()))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let (mut program, mut tests) = (None, None);
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read cargo's messages")?;
        match artifact(&line) {
            Some((name, path)) if name == PROGRAM => program = Some(path),
            Some((name, path)) if name == TESTS => tests = Some(path),
            _ => {}
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test --no-run ({status}); a static build needs libc.a (libc6-dev)");
    }
    match (program, tests) {
        (Some(program), Some(tests)) => Ok(Binaries { program, tests }),
        _ => bail!("cargo built no {PROGRAM} or no test {TESTS}"),
    }
}

/// The compiler's flags, after those the user has set.
fn flags(set: Option<&str>) -> String {
    format!("{} -C target-feature=+crt-static", set.unwrap_or_default()).trim().to_owned()
}

/// Target and file of the program that one of cargo's messages announces.
fn artifact(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message.pointer("/target/name")?.as_str()?;
    let path = message.get("executable")?.as_str()?;
    Some((name.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"system"},
            "executable":"/w/target/release/deps/system-1"}"#;
        let expected = ("system".to_owned(), "/w/target/release/deps/system-1".into());
        assert_eq!(artifact(message), Some(expected));
        for other in [
            r#"{"reason":"compiler-artifact","target":{"name":"tcpmon"},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "not JSON",
        ] {
            assert_eq!(artifact(other), None, "{other}");
        }
    }
}
