//! The distribution: which one this is, its packages where it is Debian, and
//! the commands to type where it is another.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::toolchain::{LLVM_MAJORS, OLDEST_RUST, major_minor, new_enough};
use crate::process::{as_root, capture, find_program, is_root, step};

/// Debian's names for compiler, source and cargo, in the order of preference:
/// `rustc-web` is the newer Rust that a stable Debian keeps for its browsers.
const DEBIAN_SETS: [[&str; 3]; 2] =
    [["rustc-web", "rust-web-src", "cargo-web"], ["rustc", "rust-src", "cargo"]];

/// A family of distributions with the same package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Debian,
    Fedora,
    Arch,
    Other,
}

impl Family {
    /// The family of the machine this runs on.
    pub(super) fn of_this_machine() -> Self {
        // os-release(5): the second is read where the first does not exist.
        ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .map_or(Self::Other, |text| Self::parse(&text))
    }

    /// Reads os-release(5): `ID`, then `ID_LIKE`, closest relative first.
    pub(super) fn parse(os_release: &str) -> Self {
        let value = |key: &str| {
            os_release
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']))
                .unwrap_or_default()
        };
        value("ID")
            .split_whitespace()
            .chain(value("ID_LIKE").split_whitespace())
            .find_map(|id| match id {
                "debian" | "ubuntu" => Some(Self::Debian),
                "fedora" | "rhel" | "centos" => Some(Self::Fedora),
                "arch" | "archarm" => Some(Self::Arch),
                _ => None,
            })
            .unwrap_or(Self::Other)
    }

    /// What to type to get a toolchain that [`super::ensure`] will find.
    pub(super) fn advice(self) -> String {
        const FEDORA: &str = "Fedora:  sudo dnf install rust cargo rust-src gcc";
        const ARCH: &str = "Arch:    sudo pacman -S --needed rust rust-src gcc";
        const RUSTUP: &str = "rustup:  rustup component add rust-src";
        let system = match self {
            Self::Debian => String::from(
                "Debian:  sudo apt-get install --no-remove rustc-web rust-web-src cargo-web gcc",
            ),
            Self::Fedora => FEDORA.into(),
            Self::Arch => ARCH.into(),
            Self::Other => format!("{FEDORA}\n  {ARCH}"),
        };
        format!(
            "what to type (Rust {OLDEST_RUST} or newer, with LLVM {} to {}):\n  {RUSTUP}\n  {system}",
            LLVM_MAJORS.start(),
            LLVM_MAJORS.end()
        )
    }
}

/// Installs Debian's compiler, its source and its cargo.
pub(super) fn install_debian_rust() -> Result<()> {
    let mut set = find_set()?;
    if set.is_none() {
        update()?;
        set = find_set()?;
    }
    let set =
        set.with_context(|| format!("no Debian package offers Rust {OLDEST_RUST} or newer here"))?;
    install_debian(&set)
}

/// Gets new lists of packages.
pub(super) fn update() -> Result<()> {
    step("package lists (apt-get update)", || apt(&["update"]))
}

/// Installs Debian packages, and never removes one for their sake.
pub(super) fn install_debian(packages: &[&str]) -> Result<()> {
    let names = packages.join(", ");
    step(&format!("Debian packages {names} (apt-get install)"), || {
        let mut words = vec!["install", "-y", "--no-install-recommends", "--no-remove"];
        words.extend(packages);
        let Err(first) = apt(&words) else { return Ok(()) };
        // Lists that are out of date name files the mirror has replaced.
        if !first.to_string().contains("404") && !first.to_string().contains("Unable to locate") {
            return Err(first);
        }
        apt(&["update"])?;
        apt(&words)
    })
}

/// What Debian's packages ask before they start a service; 101 says no
/// (invoke-rc.d(8), `/usr/share/doc/init-system-helpers/README.policy-rc.d.gz`).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs a Debian package without its service: it is neither started now nor at the next boot.
pub(super) fn install_debian_idle(package: &str, service: &str) -> Result<()> {
    // Whoever has a policy of his own keeps it, and his services as he wants them.
    let ours = !Path::new(POLICY).exists();
    let script = |text: &str| capture(as_root("sh").args(["-c", text])).map(drop);
    if ours {
        script(&format!("printf '#!/bin/sh\\nexit 101\\n' >{POLICY} && chmod 755 {POLICY}"))?;
    }
    let installed = install_debian(&[package]);
    if ours {
        script(&format!("rm -f {POLICY}"))?;
    }
    installed?;
    // Where there is no systemd nothing starts it either.
    let _ = script(&format!("systemctl --quiet disable {service}"));
    Ok(())
}

/// The first set of packages whose compiler is new enough, as far as the
/// package lists of this machine tell.
fn find_set() -> Result<Option<[&'static str; 3]>> {
    let names = DEBIAN_SETS.map(|[compiler, ..]| compiler);
    let policy = capture(Command::new("apt-cache").env("LC_ALL", "C").arg("policy").args(names))?;
    Ok(choose_set(&policy))
}

/// Chooses by the output of `apt-cache policy` for the compilers of all sets.
fn choose_set(policy: &str) -> Option<[&'static str; 3]> {
    DEBIAN_SETS.into_iter().find(|[compiler, ..]| {
        policy
            .lines()
            .skip_while(|line| line.strip_suffix(':') != Some(compiler))
            .skip(1)
            .take_while(|line| line.starts_with(' '))
            .find_map(|line| line.trim().strip_prefix("Candidate:"))
            .and_then(major_minor)
            .is_some_and(new_enough)
    })
}

fn apt(words: &[&str]) -> Result<()> {
    if !is_root() && find_program("sudo").is_none() {
        bail!("this needs root and there is no sudo; as root: apt-get {}", words.join(" "));
    }
    let mut command = as_root("env");
    command.args(["LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command.args(["-q", "-o", "DPkg::Lock::Timeout=120"]).args(words);
    capture(&mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_told_by_id_then_by_likeness() {
        for (text, expected) in [
            ("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n", Family::Debian),
            ("ID=ubuntu\nID_LIKE=debian\n", Family::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Family::Debian),
            ("ID=fedora\nVARIANT_ID=server\n", Family::Fedora),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Family::Fedora),
            ("ID=arch\n", Family::Arch),
            ("ID=manjaro\nID_LIKE=arch\n", Family::Arch),
            ("ID=nixos\nID_LIKE=\"\"\n", Family::Other),
            ("VARIANT_ID=debian\n", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(Family::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn advice_names_the_packages_of_fedora_and_arch() {
        let other = Family::Other.advice();
        assert!(other.contains("dnf install rust cargo rust-src"), "{other}");
        assert!(other.contains("pacman -S --needed rust rust-src"), "{other}");
        assert!(!Family::Fedora.advice().contains("pacman"));
        assert!(!Family::Arch.advice().contains("dnf"));
    }

    #[test]
    fn the_first_debian_set_that_is_new_enough_is_chosen() {
        let policy = |web: &str, plain: &str| {
            format!(
                "rustc-web:\n  Installed: (none)\n  Candidate: {web}\n  Version table:\n     \
                 1.85.0+dfsg3-1 500\nrustc:\n  Installed: 1.63.0\n  Candidate: {plain}\n  \
                 Version table:\n *** 1.63.0 500\n"
            )
        };
        let [web, plain] = DEBIAN_SETS;
        for (text, expected) in [
            (policy("1.96.0+dfsg1-1~deb12u2", "1.63.0+dfsg1-2"), Some(web)),
            (policy("1.85.0+dfsg3-1~deb12u3", "1.63.0+dfsg1-2"), None),
            (policy("(none)", "1.97.0+dfsg1-1"), Some(plain)),
            ("rustc:\n  Installed: (none)\n  Candidate: 1.95.0\n".into(), Some(plain)),
            (String::new(), None),
        ] {
            assert_eq!(choose_set(&text), expected, "{text}");
        }
    }
}
