//! Builds the probes and puts their object file where `include_bytes_aligned!`
//! finds it: `$OUT_DIR/tcpmon.bpf.o`. Also tells the program its git revision.
//!
//! Being a build script, it keeps `cargo build`, clippy and rust-analyzer
//! honest: the object is never older than its source. The compiler and linker
//! are those that `cargo xtask setup` wrote down; they need not be the ones
//! that build the program.

#[path = "../xtask/src/setup/record.rs"]
mod record;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use record::{RECORD_PATH, Record};

/// The package of the probes, and the name of its binary.
const PROBES: &str = "tcpmon-ebpf";

/// The variables of cargo that reach the inner build: where cargo keeps its
/// downloads and how it gets them, how it talks, and the shared job slots.
/// All others are about the outer build and would spoil the inner one.
const KEPT_VARIABLES: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_TERM_",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        // One line each, and nothing else: cargo prints all of a failed
        // script's output, so for these the script does not fail.
        Err(Failure::Told(why)) => {
            println!("cargo::error={why}");
            ExitCode::SUCCESS
        }
        // The compiler's own words are the message.
        Err(Failure::Probes(said)) => {
            eprintln!("{said}");
            ExitCode::FAILURE
        }
    }
}

/// Why there is no object file.
enum Failure {
    /// The cause and the mend, in one line.
    Told(String),
    /// The compiler refused the probes.
    Probes(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Told(why)
    }
}

fn build() -> Result<(), Failure> {
    let package = folder("CARGO_MANIFEST_DIR")?;
    let out = folder("OUT_DIR")?;
    let workspace = package.parent().ok_or("the workspace has no folder".to_owned())?;
    let record = read_record(workspace)?;
    let object = build_probes(workspace, &record)?;
    let copy = out.join("tcpmon.bpf.o");
    fs::copy(&object, &copy).map_err(|error| {
        format!("cannot copy {} to {}: {error}", object.display(), copy.display())
    })?;
    // Only now: what a failed script prints is shown to the user, and cargo
    // runs it again anyway.
    watch(&record);
    revision(workspace);
    Ok(())
}

fn folder(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {variable}"))
}

fn read_record(workspace: &Path) -> Result<Record, String> {
    let path = workspace.join(RECORD_PATH);
    let text = fs::read_to_string(&path)
        .map_err(|_| "the eBPF toolchain is not set up: run `cargo xtask setup`".to_owned())?;
    let record = Record::parse(&text)
        .map_err(|why| format!("{}: {why}: run `cargo xtask setup`", path.display()))?;
    match record.missing() {
        Some(gone) => Err(format!(
            "the eBPF toolchain has changed ({} is gone): run `cargo xtask setup`",
            gone.display()
        )),
        None => Ok(record),
    }
}

/// Compiles the probes, always optimised (the verifier accepts nothing else),
/// in a folder of their own: debug, release and static builds of the program
/// share it, and cargo sees to it that nothing is compiled twice.
fn build_probes(workspace: &Path, record: &Record) -> Result<PathBuf, Failure> {
    let little = env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() != Ok("big");
    let target = if little { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    let folder = workspace.join("target/ebpf/build");
    let mut command = Command::new(&record.cargo);
    command
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--release", "--package", PROBES])
        .args(["-Z", "build-std=core", "--target", target, "--target-dir"])
        .arg(&folder);
    for (name, _) in env::vars_os() {
        if !reaches_the_probes(&name) {
            command.env_remove(name);
        }
    }
    let linker = record.linker.to_string_lossy();
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        // The kernel wants BTF; bpf-linker makes it from the debug information.
        "-Clink-arg=--btf".to_owned(),
        // With instructions on half registers, which Linux has from 5.1 on: fewer of them.
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={linker}"),
        // aya's bindings differ by the machine that the probes will run on.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    command
        .env("RUSTC", &record.rustc)
        // Lets a stable compiler build `core` for a target without one.
        .env("RUSTC_BOOTSTRAP", "1")
        // Empty beats what a configuration file says.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let output = command
        .output()
        .map_err(|error| format!("cannot start {}: {error}", record.cargo.display()))?;
    if output.status.success() {
        // Warnings of the probes would be lost otherwise.
        for line in String::from_utf8_lossy(&output.stderr).lines().filter(|line| !line.is_empty())
        {
            println!("cargo::warning={line}");
        }
        Ok(folder.join(target).join("release").join(PROBES))
    } else {
        Err(explain(record, &output))
    }
}

/// Whether a variable of this script's environment is for the inner build.
fn reaches_the_probes(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return true };
    let about_the_outer_build = name.starts_with("CARGO")
        || name.starts_with("RUSTC")
        || name.starts_with("RUSTUP_TOOLCHAIN")
        || name.starts_with("RUSTFLAGS")
        || name.starts_with("DEP_")
        || name == "LD_LIBRARY_PATH";
    !about_the_outer_build || KEPT_VARIABLES.iter().any(|kept| name.starts_with(kept))
}

/// A compiler or linker that was exchanged fails in ways that do not tell the
/// cause; everything else is for the compiler to say.
fn explain(record: &Record, output: &Output) -> Failure {
    let version = run(Command::new(&record.rustc).arg("-V"));
    let linker = run(Command::new(&record.linker).arg("--version"));
    if version.as_deref() != Some(record.version.as_str()) || linker.is_none() {
        let why = "the eBPF toolchain has changed: run `cargo xtask setup`";
        return Failure::Told(why.to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Failure::Probes(format!("the probes did not compile ({})\n{said}", output.status))
}

/// What this script's outcome depends on. The paths below the workspace are
/// relative to this package, so that clones that share a `CARGO_TARGET_DIR`
/// each look at their own files.
fn watch(record: &Record) {
    for path in [
        "Cargo.toml",
        "Cargo.lock",
        RECORD_PATH,
        "tcpmon-common/Cargo.toml",
        "tcpmon-common/src",
        "tcpmon-ebpf",
        "xtask/src/setup/record.rs",
    ] {
        println!("cargo::rerun-if-changed=../{path}");
    }
    for path in [&record.rustc, &record.linker] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// Sets `TCPMON_REVISION` to the commit this is built from, for the metric
/// `tcpmon_build_info`; `unknown` outside a git tree.
fn revision(workspace: &Path) {
    let git = |words: &[&str]| run(Command::new("git").arg("-C").arg(workspace).args(words));
    // Sources unpacked below somebody else's repository have no revision.
    let is_top = git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix.is_empty());
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| is_top);
    println!("cargo::rustc-env=TCPMON_REVISION={}", commit.as_deref().unwrap_or("unknown"));
    // The log of HEAD grows with every commit and checkout; HEAD itself stays
    // as it is while its branch moves on.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|_| is_top) {
            let path = workspace.join(path);
            if path.exists() {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
}

/// What a program prints, if it succeeds.
fn run(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
