//! `cargo xtask`: the tasks of this workspace, one subcommand each.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{bench, build, dist, fuzz, lab, manifests, run, screens, setup, soak, test, vm};

/// Set up, build, run and test tcpmon.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// One line a task; each has its arguments in a module of its own.
#[derive(Subcommand)]
enum Task {
    /// Find or install what builds the probes: a Rust toolchain with rust-src, and bpf-linker
    Setup(SetupArgs),
    /// Set up what is missing and build the program, with the probes in it
    Build(build::Args),
    /// Make packages, tarball, container image, list of parts and checksums
    Dist(dist::Args),
    /// Make the manifests anew that are made from other files under deploy/
    Manifests,
    /// Set up what is missing, build in release mode and run the daemon in the foreground
    Run(run::Args),
    /// Set up what is missing and run every check and test
    Test(test::Args),
    /// Run the system tests on other kernels, in virtual machines
    Vm(vm::Args),
    /// Feed the parsers with whatever makes them do something new, each for a while
    Fuzz(fuzz::Args),
    /// Make real traffic by recipe, in network namespaces of its own
    Lab(lab::LabArgs),
    /// Measure what the program costs, beside the bare machine and its peers
    Bench(bench::Args),
    /// Watch the daemon under a load for an hour or longer, and judge what only hours show
    Soak(soak::Args),
    /// Make the pictures under docs/screens anew, of ports that run out
    Screens(screens::Args),
    #[command(hide = true)]
    Announce(run::AnnounceArgs),
    #[command(hide = true, name = bench::look::COUNT_TASK)]
    CountSockets,
    #[command(hide = true, name = screens::PART_TASK)]
    ScreensPart(screens::PartArgs),
}

#[derive(clap::Args)]
struct SetupArgs {
    /// Name of a rustup toolchain, path of a rustc or of its sysroot, `system` for the
    /// distribution's, or `auto` for the first that will do; kept for later builds. The
    /// environment variable `TCPMON_EBPF_TOOLCHAIN` says the same to every task
    #[arg(long)]
    toolchain: Option<String>,
}

fn main() -> ExitCode {
    let done: Result<()> = match Cli::parse().task {
        Task::Setup(args) => setup::ensure(args.toolchain.as_deref()),
        Task::Build(args) => build::main(&args),
        Task::Dist(args) => dist::main(&args),
        Task::Manifests => manifests::main(),
        Task::Run(args) => run::main(&args),
        Task::Test(args) => test::main(&args),
        Task::Vm(args) => vm::main(&args),
        Task::Fuzz(args) => fuzz::main(&args),
        Task::Lab(args) => lab::run(&args),
        Task::Bench(args) => bench::main(&args),
        Task::Soak(args) => soak::main(&args),
        Task::Screens(args) => screens::main(&args),
        Task::Announce(args) => run::announce(&args),
        Task::CountSockets => bench::diag::print_count(),
        Task::ScreensPart(args) => screens::play(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
