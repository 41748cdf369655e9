//! `cargo xtask test`: every check and test, from a clone with nothing set up.
//!
//! The first step that fails ends it; the one that takes longest, other kernels in virtual
//! machines, is the last. Integration tests load probes and make
//! network namespaces, so they run as root: an ordinary user's are compiled as
//! that user, and only their finished programs run through sudo.

use std::{ffi::OsString, process::Command};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    again,
    build::cargo,
    fuzz,
    process::{capture, find_program, is_root, run, step},
    setup, vm,
};

/// The release of cargo-deny that `--deny` installs.
const DENY_VERSION: &str = "0.20.2";

/// How cargo starts the programs of integration tests for an ordinary user.
/// sudo clears the environment: what tests may ask for is handed over by name.
const RUNNER: &str = r#"target."cfg(all())".runner=["sh","-c","exec sudo -- env CARGO_MANIFEST_DIR=\"$CARGO_MANIFEST_DIR\" RUST_BACKTRACE=\"${RUST_BACKTRACE:-1}\" TCPMON_BROWSER=required TCPMON_TMUX=required TCPMON_ALERTMANAGER=required \"$@\"","sh"]"#;

/// What set-up has installed: tests that need it may not be left out. Handed over by [`RUNNER`] too.
const REQUIRED: [(&str, &str); 3] = [
    ("TCPMON_BROWSER", "required"),
    ("TCPMON_TMUX", "required"),
    ("TCPMON_ALERTMANAGER", "required"),
];

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check for security advisories too, which asks the network; install cargo-deny first if
    /// it is missing (minutes)
    #[arg(long)]
    deny: bool,
    /// Leave out the tests on other kernels, in virtual machines; `cargo xtask vm` has all of them
    #[arg(long)]
    no_vm: bool,
    /// Run only the tests whose names contain this, without the other checks; what follows
    /// another `--` goes to the test programs
    #[arg(last = true)]
    filter: Vec<OsString>,
}

/// Runs everything, or the tests that the filter names.
pub fn main(args: &Args) -> Result<()> {
    setup::ensure(None)?;
    setup::ensure_program("ip", "iproute2")?;
    for (program, package) in [
        ("promtool", "prometheus"),
        ("prometheus", "prometheus"),
        ("prometheus-alertmanager", "prometheus-alertmanager"),
    ] {
        setup::ensure_idle_program(program, package, package)?;
    }
    for (program, package) in [
        ("chromium", "chromium"),
        ("chromedriver", "chromium-driver"),
        ("rpm", "rpm"),
        ("tmux", "tmux"),
    ] {
        setup::ensure_program(program, package)?;
    }
    if !is_root() && find_program("sudo").is_none() {
        bail!("the integration tests need root and there is no sudo: run this as root");
    }
    if args.filter.is_empty() {
        step("formatting (cargo fmt --check)", || run(cargo().args(["fmt", "--all", "--check"])))?;
        step("lints (cargo clippy)", || {
            run(cargo()
                .args(["clippy", "--quiet", "--workspace", "--all-targets", "--locked"])
                .args(["--", "--deny", "warnings"]))
        })?;
        deny(args.deny)?;
    }
    step("tests (cargo test)", || {
        if is_root() {
            let test = || {
                let mut command = cargo();
                command.arg("test").envs(REQUIRED);
                command
            };
            let mut all = test();
            all.args(["--workspace", "--locked"]);
            return again::run_tests(all, &args.filter, test);
        }
        let test = |targets: &[&str]| {
            let mut command = cargo();
            command.args(["test", "--workspace", "--locked"]).args(targets);
            command
        };
        run(test(&["--lib", "--bins"]).args(&args.filter))?;
        if has_integration_tests()? {
            let all = test(&["--test", "*", "--config", RUNNER]);
            again::run_tests(all, &args.filter, || {
                let mut command = cargo();
                command.args(["test", "--config", RUNNER]);
                command
            })?;
        }
        run(test(&["--doc"]).args(&args.filter))
    })?;
    if args.filter.is_empty() {
        step("fuzz targets, for a moment each (longer: cargo xtask fuzz)", fuzz::for_the_tests)?;
    }
    if args.filter.is_empty() && !args.no_vm {
        step(
            "the essence of the system tests on other kernels (all: cargo xtask vm)",
            vm::essence,
        )?;
    }
    Ok(())
}

/// Checks licences and sources of all dependencies where cargo-deny is
/// installed; where it is not, building it would take longer than all tests.
/// `wanted` says to install it, and to fetch and check security advisories.
fn deny(wanted: bool) -> Result<()> {
    if find_program("cargo-deny").is_none() {
        if !wanted {
            eprintln!("xtask: licences and sources: skipped, no cargo-deny (--deny installs it)");
            return Ok(());
        }
        step("cargo-deny", || {
            let version = format!("--version=={DENY_VERSION}");
            run(cargo().args(["install", "--quiet", "--locked", &version, "cargo-deny"]))
        })?;
    }
    let mut checks = vec!["bans", "licenses", "sources"];
    if wanted {
        checks.push("advisories");
    }
    step("licences and sources (cargo deny)", || {
        run(cargo().args(["deny", "--log-level", "error", "check"]).args(&checks))
    })
}

/// Whether any crate has integration tests; cargo refuses `--test '*'` if not.
fn has_integration_tests() -> Result<bool> {
    let mut command: Command = cargo();
    command.args(["metadata", "--no-deps", "--format-version=1"]);
    let metadata: Value =
        serde_json::from_str(&capture(&mut command)?).context("cargo metadata")?;
    Ok(names_a_test(&metadata))
}

fn names_a_test(metadata: &Value) -> bool {
    let items = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    items(metadata, "packages")
        .iter()
        .flat_map(|package| items(package, "targets"))
        .flat_map(|target| items(&target, "kind"))
        .any(|kind| kind == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_are_told_by_their_kind() {
        let with = |kind: &str| serde_json::json!({"packages": [{"targets": [{"kind": ["bin"]}, {"kind": [kind]}]}]});
        assert!(names_a_test(&with("test")));
        assert!(!names_a_test(&with("lib")));
        assert!(!names_a_test(&Value::Null));
    }

    #[test]
    fn what_is_required_is_handed_over_by_sudo() {
        for (name, value) in REQUIRED {
            assert!(RUNNER.contains(&format!("{name}={value}")), "{name}");
        }
    }
}
