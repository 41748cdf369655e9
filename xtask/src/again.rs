//! Running tests, and those that count what the kernel tells once more where one of them failed.
//!
//! The system tests hold every event against what was done, to the unit. But the kernel does not
//! always tell BPF programs: measured on Linux 6.18, events pass by all of them on a tracepoint
//! while probes come and go or CPU time is short, and no skipped run is counted; two daemons side
//! by side miss the very same ones (docs/metrics.md). With 130 tests that is one every few runs.
//! So a few of them may be measured again, once, one at a time; each is told by name. What fails
//! twice has failed.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read, Write},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

/// The only tests that may be run again, as cargo names them.
const SYSTEM_TESTS: &str = "-p tcpmon --test system";

/// When more fail than these, it is no accident.
const MOST: usize = 3;

/// What a run of `cargo test --no-fail-fast` said of what failed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Failed {
    /// The programs, as cargo names them.
    targets: Vec<String>,
    /// The tests.
    tests: Vec<String>,
}

impl Failed {
    fn of(stdout: &str, stderr: &str) -> Self {
        let tests = stdout.lines().filter_map(|line| {
            line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
        });
        let targets = stderr
            .lines()
            .filter_map(|line| line.strip_prefix("    `")?.strip_suffix('`').map(str::to_owned));
        Self { targets: targets.collect(), tests: tests.collect() }
    }

    /// The tests that may be run again; `None` where something else failed, or too many.
    fn accidents(&self) -> Option<&[String]> {
        let only_system_tests = self.targets == [SYSTEM_TESTS];
        let few = (1..=MOST).contains(&self.tests.len());
        (only_system_tests && few).then_some(&self.tests)
    }
}

/// Runs the tests that `filter` names with `command`, a `cargo test`; a few failed system tests again with what `again`
/// makes of it, a `cargo test` of only these.
///
/// # Errors
///
/// Where tests failed that may not be run again, or failed again.
pub(crate) fn run_tests(
    mut command: Command,
    filter: &[OsString],
    again: impl FnOnce() -> Command,
) -> Result<()> {
    let Some(failed) = run(command.arg("--no-fail-fast").args(filter))? else { return Ok(()) };
    let Some(names) = failed.accidents() else { bail!("{command:?} failed") };
    for name in names {
        eprintln!("xtask: {name} failed, and is run once more, alone (why: xtask/src/again.rs)");
    }
    let mut command = again();
    command.args(["-p", "tcpmon", "--test", "system", "--locked", "--"]);
    command.args(["--exact", "--test-threads=1"]).args(names);
    if run(&mut command)?.is_some() {
        bail!("{} failed twice", names.join(" or "));
    }
    eprintln!("xtask: passed only when run again, alone: {}", names.join(", "));
    Ok(())
}

/// Runs the command and passes on what it says; what failed, if something did.
fn run(command: &mut Command) -> Result<Option<Failed>> {
    run_into(command, std::io::stdout(), std::io::stderr())
}

fn run_into(
    command: &mut Command,
    out: impl Write + Send + 'static,
    err: impl Write + Send + 'static,
) -> Result<Option<Failed>> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let stdout = child.stdout.take().map(|pipe| pass_on(pipe, out));
    let stderr = child.stderr.take().map(|pipe| pass_on(pipe, err));
    let status = child.wait().with_context(|| format!("{command:?}"))?;
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    Ok((!status.success()).then(|| Failed::of(&stdout, &stderr)))
}

fn pass_on(
    pipe: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut all = String::new();
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            // Who reads it may have gone; what failed is to be known all the same.
            let _written = to.write_all(&line);
            all.push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "test a::b ... ok\ntest c::d ... FAILED\ntest e has been running for over 60 seconds\nfailures:\n    c::d\n";

    #[test]
    fn a_few_system_tests_may_be_run_again() {
        let stderr = "error: 1 target failed:\n    `-p tcpmon --test system`\n";
        let failed = Failed::of(ONE, stderr);
        assert_eq!(failed.accidents(), Some(&["c::d".to_owned()][..]));
        let many = "test a ... FAILED\ntest b ... FAILED\n".repeat(2);
        assert_eq!(Failed::of(&many, stderr).accidents(), None);
        assert_eq!(Failed::of("", stderr).accidents(), None, "it ended before it told");
    }

    #[test]
    fn other_tests_may_not() {
        for stderr in [
            "",
            "error: 1 target failed:\n    `-p tcpmon --lib`\n",
            "error: 2 targets failed:\n    `-p tcpmon --lib`\n    `-p tcpmon --test system`\n",
            "error: could not compile `tcpmon` (lib) due to 1 previous error\n",
        ] {
            assert_eq!(Failed::of(ONE, stderr).accidents(), None, "{stderr}");
        }
    }

    #[test]
    fn what_a_program_says_is_kept_and_its_end_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test it ... FAILED'; echo '    `-p x`' >&2; exit 101"]);
        // Not to this test's own standard output, which may itself be read for such lines.
        let failed = run_into(&mut command, std::io::sink(), std::io::sink()).expect("a shell");
        let wanted = Failed { targets: vec!["-p x".into()], tests: vec!["it".into()] };
        assert_eq!(failed, Some(wanted));
        assert_eq!(run(&mut Command::new("true")).expect("a program"), None);
    }
}
