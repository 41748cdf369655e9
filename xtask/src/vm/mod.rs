//! `cargo xtask vm`: the system tests on other kernels than this machine's.
//!
//! What the probes may do is for the verifier of the running kernel to say, and what they read
//! lies elsewhere in each: only booting a kernel tells. Kernels come as Debian's packages, each is
//! booted once in QEMU from an initial RAM disk that holds the statically linked program and its
//! system tests, and what the tests say and how they end is passed on. All run side by side: a
//! machine that waits leaves the processors to the others. With `--systemd` the machine is a whole
//! Debian, and what is tested is the package.

mod binaries;
mod cpio;
mod debian;
mod image;
mod kernel;
mod machine;
mod programs;
mod systemd;

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use self::{
    image::Work,
    kernel::{Kernel, Series},
    machine::{Accelerator, Boot, Machine},
    programs::Programs,
};
use crate::{process::step, setup};

/// Debian 12's kernel, and the newest that lets an accepted socket make its first transition
/// before its addresses are set.
const USUAL: [Series; 2] = [Series { major: 6, minor: 1 }, Series { major: 6, minor: 12 }];

/// Where kernels are kept and images made, below the workspace.
const FOLDER: &str = "target/vm";

/// Seconds that the tests may take on one kernel, unless told otherwise: all of them take half an
/// hour in emulation.
const TIMEOUT: u64 = 3_600;

/// The same of the essence.
const ESSENCE_TIMEOUT: u64 = 1_500;

/// The exit code of tests that the machine had to end (timeout(1): 128 and SIGKILL).
const KILLED: i32 = 137;

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel to boot, as MAJOR.MINOR, or `all` for 6.1 and 6.12; repeatable. One that is named
    /// must be there; of `all`, those that cannot be had are skipped, but not in CI
    #[arg(long, value_name = "SERIES", default_value = "all")]
    kernel: Vec<Wanted>,
    /// Seconds that the tests may take on one kernel
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    #[command(flatten)]
    systemd: systemd::SystemdArgs,
    /// Arguments of the test program: run only the tests whose names contain this
    #[arg(last = true, conflicts_with = "systemd")]
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
    let limit = Duration::from_secs(args.timeout);
    if args.systemd.systemd {
        systemd::main(&args.systemd, &args.kernel, limit)
    } else {
        run(&args.kernel, &args.tests, limit)
    }
}

/// What differs from kernel to kernel, in a few tests: which programs the verifier lets pass, where
/// fields lie, how sockets are born and die. All of them take a quarter of an hour and more where
/// the machine is emulated: that is `cargo xtask vm`.
const ESSENCE: [&str; 8] = [
    "census::every_state_family_and_side",
    "exhaustion::by_connect",
    "faults::clock",
    "owners::",
    "ports::plain",
    "ports::tcp_tw_reuse_",
    "time_wait::recipes::tcp_",
    "time_wait::recipes::ss_k",
];

/// The essence of the tests on the usual kernels.
pub fn essence() -> Result<()> {
    run(&[Wanted::All], &ESSENCE.map(OsString::from), Duration::from_secs(ESSENCE_TIMEOUT))
}

fn run(wanted: &[Wanted], tests: &[OsString], limit: Duration) -> Result<()> {
    let Some(ready) = Ready::to_boot(wanted)? else { return Ok(()) };
    setup::ensure(None)?;
    let binaries = step("program and system tests (release, static)", binaries::build)?;
    let work = Work {
        binaries: &binaries,
        arguments: tests,
        limit,
        slowness: ready.by.slowness(),
        busybox: &ready.programs.busybox,
    };
    ready.on_each("the system tests", |kernel| boot(kernel, &ready, work))
}

/// All that it takes to boot, and the right to do so: nobody else boots meanwhile.
#[derive(Debug)]
struct Ready {
    folder: PathBuf,
    programs: Programs,
    kernels: Vec<Kernel>,
    by: Accelerator,
    /// Another run would write the same files.
    _turn: File,
}

impl Ready {
    /// `None` if there is nothing to boot, and need not be.
    fn to_boot(wanted: &[Wanted]) -> Result<Option<Self>> {
        let folder = setup::workspace().join(FOLDER);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let turn = turn(&folder)?;
        let Some((programs, kernels)) = gather(wanted, &folder)? else { return Ok(None) };
        let trial = folder.join("trial.log");
        let by = Accelerator::choose(&programs.emulator, &kernels[0].image, &trial);
        Ok(Some(Self { folder, programs, kernels, by, _turn: turn }))
    }

    /// Does `work` on all kernels, side by side; an error that names those on which it failed.
    fn on_each(&self, what: &str, work: impl Fn(&Kernel) -> Result<()> + Sync) -> Result<()> {
        let mut failed = Vec::new();
        thread::scope(|scope| {
            let begin = |kernel| {
                let work = &work;
                (kernel, scope.spawn(move || work(kernel)))
            };
            let running: Vec<(&Kernel, _)> = self.kernels.iter().map(begin).collect();
            for (kernel, running) in running {
                let done = running.join().unwrap_or_else(|_| Err(anyhow!("xtask panicked")));
                if let Err(error) = done {
                    eprintln!("xtask: {}: {error:#}", kernel.package);
                    failed.push(kernel.package.as_str());
                }
            }
        });
        if !failed.is_empty() {
            bail!("{what} failed on {}", failed.join(", "));
        }
        Ok(())
    }

    /// Boots this kernel with this disk and passes on what the tests say, each line after the
    /// kernel's series; an error unless they end well. The console is kept beside the disk.
    fn boot(&self, what: &str, kernel: &Kernel, disk: &Path, limit: Duration) -> Result<()> {
        let console = disk.with_extension("log");
        let machine = Machine {
            qemu: &self.programs.emulator,
            by: self.by,
            kernel: &kernel.image,
            disk: Some(disk),
            console: &console,
        };
        step(&format!("{what} on {}", kernel.package), || {
            match machine.boot(&kernel.series.to_string(), limit)? {
                Boot::Ended(0) => Ok(()),
                Boot::Ended(KILLED) => bail!("the tests did not end within {} s", limit.as_secs()),
                Boot::Ended(code) => bail!("exit code {code}"),
                Boot::Mute(last_words) => bail!(
                    "the machine ended without a word on the tests; the end of its console ({}):\n\
                     {last_words}",
                    console.display()
                ),
            }
        })
    }
}

/// Waits for the end of other runs, and holds the next off.
fn turn(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let held = File::create(&path).and_then(|file| file.lock().map(|()| file));
    held.with_context(|| format!("cannot lock {}", path.display()))
}

/// Fetches what is wanted. What cannot be had ends it if it was named, or in CI; else it is
/// skipped. `None` if nothing is left.
fn gather(wanted: &[Wanted], folder: &Path) -> Result<Option<(Programs, Vec<Kernel>)>> {
    let (named, unnamed) = choose(wanted);
    let programs = match programs::find(folder) {
        Ok(programs) => programs,
        Err(error) if named.is_empty() && !setup::in_ci() => {
            eprintln!("xtask: virtual machines: skipped: {error:#}");
            return Ok(None);
        }
        Err(error) => return Err(error.context("virtual machines")),
    };
    let mut kernels = Vec::new();
    for series in named {
        kernels.push(kernel::fetch(series, folder)?);
    }
    for series in unnamed {
        match kernel::fetch(series, folder) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) if setup::in_ci() => return Err(error.context(format!("kernel {series}"))),
            Err(error) => eprintln!("xtask: kernel {series}: skipped: {error:#}"),
        }
    }
    Ok((!kernels.is_empty()).then_some((programs, kernels)))
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

/// Runs the tests on one kernel.
fn boot(kernel: &Kernel, ready: &Ready, work: Work<'_>) -> Result<()> {
    let disk = ready.folder.join(format!("{}.cpio", kernel.package));
    image::write(&disk, kernel, work)?;
    ready.boot("system tests", kernel, &disk, work.limit)
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
