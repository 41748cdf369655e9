//! The lab, with this very program as its processes.

use std::path::PathBuf;
use std::thread;

use super::turn::SteadyProbes;
use clap::Parser;
use xtask::lab::{Addresses, Expectation, Lab, LabArgs, LabError, Options, Recipe};

/// The command line of the lab's program, as `xtask` has it.
#[derive(Parser)]
enum Task {
    Lab(LabArgs),
}

/// This program, which is the lab's program too when its first argument is `lab`.
pub(crate) fn program() -> PathBuf {
    std::env::current_exe().expect("this program's own file")
}

pub(crate) fn open(addresses: Addresses) -> Lab {
    Lab::open(Options { addresses, program: Some(program()), narrate: None })
        .unwrap_or_else(|why| panic!("{why}"))
}

/// Does `work` in a namespace.
pub(crate) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(move || {
            xtask::lab::enter(namespace).expect("to enter the namespace");
            work()
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Carries out a recipe, for who counts to the unit; `None`, and a line that says why, where this
/// kernel cannot.
pub(crate) fn perform(lab: &mut Lab, recipe: Recipe, connections: u64) -> Option<Expectation> {
    let _meanwhile = SteadyProbes::hold();
    told(recipe, lab.perform(recipe, Some(connections)))
}

/// What came of a recipe, as [`perform`] tells it.
pub(crate) fn told(recipe: Recipe, done: Result<Expectation, LabError>) -> Option<Expectation> {
    match done {
        Ok(done) => Some(done),
        Err(LabError::Unsupported(why)) => {
            eprintln!("not tested: {}: {why}", recipe.name());
            None
        }
        Err(why) => panic!("{}: {why}", recipe.name()),
    }
}

/// Cargo builds no binary of another package for a test, so the lab's processes (`tcpmon-test lab
/// --as-worker ...`) would be whatever `xtask` lies about, or none. This program has the lab in
/// it, but the test harness owns `main()` and would take the arguments for names of tests: so it
/// looks at them first, before `main()`, while there is one thread, which is what a worker that
/// forks needs.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = become_the_lab_if_told;

extern "C" fn become_the_lab_if_told() {
    // Not `std::env::args()`: whether that works before `main()` is up to the C library.
    let Ok(line) = std::fs::read("/proc/self/cmdline") else { return };
    let words: Vec<String> = line
        .split(|&byte| byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .filter(|word| !word.is_empty())
        .collect();
    if words.get(1).is_none_or(|word| word != "lab") {
        return;
    }
    // As Rust's runtime does before `main()`: a peer that has gone is an error, not the end.
    // SAFETY: no handler is installed, and there is one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let Task::Lab(args) = Task::parse_from(words);
    let done = xtask::lab::run(&args);
    if let Err(error) = &done {
        eprintln!("lab: {error:#}");
    }
    std::process::exit(i32::from(done.is_err()));
}
