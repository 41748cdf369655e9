//! Toolchains that rustup manages: which there are, and adding `rust-src` to
//! the one in use. No toolchain is ever installed, removed or made default.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::process::{capture, find_program, run_within};

/// How long rustup may take to fetch the source of the standard library
/// (3 MB): a server that answers needs a second or two.
const FETCH_LIMIT: Duration = Duration::from_secs(90);

/// Whether rustup is there at all.
pub(super) fn is_installed() -> bool {
    find_program("rustup").is_some()
}

/// The names of the installed toolchains, the one in use first.
pub(super) fn toolchains() -> Result<Vec<String>> {
    Ok(order(&capture(rustup().args(["toolchain", "list"]))?))
}

/// Orders the output of `rustup toolchain list`: active, default, the rest.
fn order(list: &str) -> Vec<String> {
    let mut named: Vec<(u8, &str)> = list
        .lines()
        .filter_map(|line| {
            // "no installed toolchains" is all that rustup says without any.
            let name = line.split_whitespace().next().filter(|_| !line.starts_with("no "))?;
            let rank =
                if line.contains("active") { 0 } else { u8::from(!line.contains("(default")) + 1 };
            Some((rank, name))
        })
        .collect();
    named.sort_by_key(|(rank, _)| *rank);
    named.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// The compiler of an installed toolchain.
pub(super) fn rustc(toolchain: &str) -> Result<PathBuf> {
    let path = capture(rustup().args(["which", "--toolchain", toolchain, "rustc"]))
        .with_context(|| format!("rustup has no toolchain {toolchain}"))?;
    Ok(PathBuf::from(path.trim()))
}

/// Adds the source of the standard library to an installed toolchain.
pub(super) fn add_source(toolchain: &str) -> Result<()> {
    run_within(
        rustup().args(["component", "add", "rust-src", "--toolchain", toolchain]),
        FETCH_LIMIT,
    )
}

/// rustup, told not to install a toolchain that it is asked about.
fn rustup() -> Command {
    let mut command = Command::new("rustup");
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn the_toolchain_in_use_comes_first() {
        let list = "nightly-x86_64-unknown-linux-gnu\n\
            stable-x86_64-unknown-linux-gnu (default)\n\
            1.95.0-x86_64-unknown-linux-gnu (active)\n";
        assert_eq!(
            order(list),
            [
                "1.95.0-x86_64-unknown-linux-gnu",
                "stable-x86_64-unknown-linux-gnu",
                "nightly-x86_64-unknown-linux-gnu"
            ]
        );
        assert_eq!(order("stable (active, default)\nbeta\n"), ["stable", "beta"]);
        assert!(order("no installed toolchains\n").is_empty());
        assert!(order("").is_empty());
    }
}
