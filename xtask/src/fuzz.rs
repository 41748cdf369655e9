//! `cargo xtask fuzz`: the fuzz targets, each for a while, without cargo-fuzz.
//!
//! What libFuzzer needs of the compiler is a pass of LLVM's that counts which way the code takes; it
//! is in every compiler of Rust, a stable one too. Only AddressSanitizer takes a nightly one, and
//! that looks for what safe code does not do: `cargo +nightly fuzz run TARGET` has it.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::cargo,
    process::{capture, find_program, run, step},
    setup,
};

/// As cargo-fuzz has them, less the sanitisers: counters of each branch and of comparisons.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";

/// Seconds for a target that the tests spend.
const SECONDS_OF_A_TEST: u32 = 5;

/// Arguments of `cargo xtask fuzz`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Run these; all without any
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Builds the targets, and runs each until it finds something or its time is over.
pub fn main(args: &Args) -> Result<()> {
    let folder = setup::workspace().join("fuzz");
    let all = names(&folder.join("fuzz_targets"))?;
    if let Some(other) = args.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no fuzz target {other}; there are {}", all.join(", "));
    }
    let targets = if args.targets.is_empty() { &all } else { &args.targets };
    // With `--target` the flags go to the targets alone, not to build scripts.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    step("fuzz targets (libFuzzer)", || {
        let mut command = cargo();
        command.args(["build", "--quiet", "--release", "--locked", "--target", &host]);
        command.arg("--target-dir").arg(folder.join("target"));
        command.arg("--manifest-path").arg(folder.join("Cargo.toml"));
        run(command.env("RUSTFLAGS", FLAGS)).context(
            "cannot build them; libFuzzer is C++ and takes a compiler for that (package g++)",
        )
    })?;
    for target in targets {
        step(&format!("{target}, {} s", args.seconds), || {
            let own = |kind: &str| {
                let path = folder.join(kind).join(target);
                fs::create_dir_all(&path).map(|()| path)
            };
            let (corpus, artifacts) = (own("corpus")?, own("artifacts")?);
            let program = folder.join("target").join(&host).join("release").join(target);
            let mut command = std::process::Command::new(program);
            command.arg(format!("-max_total_time={}", args.seconds));
            // The panic's own words, and not the way to it, are in the last lines then.
            command.env("RUST_BACKTRACE", "0");
            // What it writes of its own course is of use where it finds something.
            command.args(["-verbosity=0", "-timeout=10", "-rss_limit_mb=1024"]);
            command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(corpus);
            let seeds = folder.join("seeds").join(target);
            capture(command.args(seeds.is_dir().then_some(seeds))).map(drop)
        })?;
    }
    Ok(())
}

/// The tests' share. Where there is no C++ compiler nothing is lost but time: the same looks are
/// taken by `cargo test`, on seeds and random bytes.
pub fn for_the_tests() -> Result<()> {
    if find_program("c++").is_none() {
        eprintln!("xtask: fuzz targets: not built, no C++ compiler; their tests have run");
        return Ok(());
    }
    main(&Args { targets: Vec::new(), seconds: SECONDS_OF_A_TEST })
}

/// The names of the targets, in order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let sources = paths.filter(|path| path.extension() == Some(OsStr::new("rs")));
    let stems = sources.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<_> = stems.collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_named_with_those_that_there_are() {
        let args = Args { targets: vec!["btf".to_owned(), "bpf".to_owned()], seconds: 1 };
        let error = main(&args).expect_err("no such target").to_string();
        assert!(error.starts_with("there is no fuzz target bpf; there are answer, btf"), "{error}");
    }
}
