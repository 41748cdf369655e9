//! `cargo xtask vm`: the system tests on other kernels than this machine's.
//!
//! What the probes may do is for the verifier of the running kernel to say, and what they read
//! lies elsewhere in each: only booting a kernel tells. Kernels come as Debian's packages, each is
//! booted once in QEMU from an initial RAM disk that holds the statically linked program and its
//! system tests, and what the tests say and how they end is passed on.

mod binaries;
mod cpio;
mod image;
mod machine;
mod package;
mod programs;

use std::{
    ffi::OsString,
    fs::{self, File},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use self::{
    binaries::Binaries,
    machine::{Boot, Machine},
    package::{Kernel, Series},
};
use crate::{
    process::{attempt, step},
    setup,
};

/// Debian 12's kernel, and the newest that lets an accepted socket make its first transition
/// before its addresses are set.
const USUAL: [Series; 2] = [Series { major: 6, minor: 1 }, Series { major: 6, minor: 12 }];

/// Where kernels are kept and images made, below the workspace.
const FOLDER: &str = "target/vm";

/// The exit code of tests that the machine had to end (timeout(1): 128 and SIGKILL).
const KILLED: i32 = 137;

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel to boot, as MAJOR.MINOR, or `all` for 6.1 and 6.12; repeatable. One that is named
    /// must be there, of `all` those that cannot be had are skipped
    #[arg(long, value_name = "SERIES", default_value = "all")]
    kernel: Vec<Wanted>,
    /// Seconds that the tests may take on one kernel
    #[arg(long, value_name = "SECONDS", default_value_t = 900,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Arguments of the test program: run only the tests whose names contain this
    #[arg(last = true)]
    tests: Vec<OsString>,
}

/// One word of `--kernel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    One(Series),
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word == "all" { Ok(Self::All) } else { word.parse().map(Self::One) }
    }
}

/// Boots each kernel and runs the tests in it; an error if they fail on any.
pub fn main(args: &Args) -> Result<()> {
    let folder = setup::workspace().join(FOLDER);
    let kernels = kernels(&args.kernel, &folder)?;
    if kernels.is_empty() {
        return Ok(());
    }
    // Another run would write the same images.
    let _turn = turn(&folder)?;
    setup::ensure(None)?;
    let binaries = step("program and system tests (release, static)", binaries::build)?;
    let limit = Duration::from_secs(args.timeout);
    let mut failed = Vec::new();
    for kernel in &kernels {
        let what = format!("system tests on {}", kernel.package);
        let done = step(&what, || run(kernel, &binaries, &args.tests, limit, &folder));
        if let Err(error) = done {
            eprintln!("xtask: {what}: {error:#}");
            failed.push(kernel.package.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("the system tests failed on {}", failed.join(", "));
    }
    Ok(())
}

/// Waits for the end of other runs, and holds the next off.
fn turn(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let held = File::create(&path).and_then(|file| file.lock().map(|()| file));
    held.with_context(|| format!("cannot lock {}", path.display()))
}

/// Fetches what is wanted. What cannot be had ends it if it was named, else is skipped.
fn kernels(wanted: &[Wanted], folder: &Path) -> Result<Vec<Kernel>> {
    let (named, unnamed) = choose(wanted);
    if let Err(error) = programs::ensure() {
        if named.is_empty() {
            eprintln!("xtask: virtual machines: skipped: {error:#}");
            return Ok(Vec::new());
        }
        return Err(error);
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut kernels = Vec::new();
    for series in named {
        kernels.push(package::fetch(series, folder)?);
    }
    for series in unnamed {
        match attempt(&format!("kernel {series}"), || package::fetch(series, folder)) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => eprintln!("xtask: kernel {series}: skipped: {error:#}"),
        }
    }
    Ok(kernels)
}

/// The series that are named, each once, and those that are not but are wanted too.
fn choose(wanted: &[Wanted]) -> (Vec<Series>, Vec<Series>) {
    let mut named = Vec::new();
    for word in wanted {
        if let Wanted::One(series) = word
            && !named.contains(series)
        {
            named.push(*series);
        }
    }
    let usual: &[Series] = if wanted.contains(&Wanted::All) { &USUAL } else { &[] };
    let unnamed = usual.iter().copied().filter(|series| !named.contains(series)).collect();
    (named, unnamed)
}

fn run(
    kernel: &Kernel,
    binaries: &Binaries,
    tests: &[OsString],
    limit: Duration,
    folder: &Path,
) -> Result<()> {
    let image = folder.join(format!("{}.cpio", kernel.package));
    image::write(&image, kernel, binaries, tests, limit)?;
    let machine =
        Machine { kernel: &kernel.image, disk: &image, console: &image.with_extension("log") };
    let code = match machine.boot(limit)? {
        Boot::Ended(code) => code,
        Boot::Mute(last_words) => bail!(
            "the machine ended without a word on the tests; the end of its console ({}):\n\
             {last_words}",
            machine.console.display()
        ),
    };
    match code {
        0 => Ok(()),
        KILLED => bail!("the tests did not end within {} s", limit.as_secs()),
        code => bail!("exit code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_by_its_series() {
        assert_eq!("all".parse(), Ok(Wanted::All));
        assert_eq!("6.12".parse(), Ok(Wanted::One(Series { major: 6, minor: 12 })));
        for word in ["", "6", "6.", "6.1.2", "six", "6.x", "All"] {
            assert!(word.parse::<Wanted>().is_err(), "{word}");
        }
    }

    #[test]
    fn a_kernel_is_booted_once_however_it_is_wanted() {
        let [old, new] = USUAL;
        let other = Series { major: 6, minor: 17 };
        let one = Wanted::One;
        assert_eq!(choose(&[Wanted::All]), (vec![], vec![old, new]));
        assert_eq!(choose(&[one(new), Wanted::All, one(new)]), (vec![new], vec![old]));
        assert_eq!(choose(&[one(other), one(old)]), (vec![other, old], vec![]));
    }
}
