//! Running other programs: steps that tell their time, quiet children whose
//! output is shown only when they fail, and root rights by sudo.

use std::{
    env, fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How many of the last lines of a failed program's output are shown.
const SHOWN_LINES: usize = 20;

/// How often a program with a time limit is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Does one step of the work, telling on standard error what it is and how
/// long it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    timed(what, "failed after", work)
}

/// Like [`step`], for what there is another way round if it fails.
pub fn attempt<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    timed(what, "not to be had, after", work)
}

fn timed<T>(what: &str, failed: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("xtask: {what} ...");
    let start = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "done in" } else { failed };
    eprintln!("xtask: {what}: {outcome} {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// Runs a program that shares this terminal; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let name = name(command);
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Runs a program and returns what it wrote to standard output. If it fails,
/// the error ends with the last lines of what it had to say.
pub fn capture(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        bail!("{name} failed ({})\n{}", output.status, tail(&said, SHOWN_LINES));
    }
    Ok(stdout)
}

/// Runs a program that may wait on a network, and ends it after `limit`. If
/// it fails, the error ends with the last lines of its standard error.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let name = name(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    // Read as it comes, so that a full pipe cannot stop the program.
    let said = child.stderr.take().map(|mut stderr| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // For people to read: what could be read before an error will do.
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            let said = said.and_then(|reader| reader.join().ok()).unwrap_or_default();
            bail!("{name} failed ({status})\n{}", tail(&said, SHOWN_LINES));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{name} did not end within {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

/// A command that runs with root rights: the program itself for root, else
/// by way of sudo.
pub fn as_root(program: &str) -> Command {
    if is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.arg("--").arg(program);
        command
    }
}

/// Whether this process acts as root. The owner of /proc/self is the
/// effective user (proc(5)).
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The full path of a program of that name: in `PATH`, or where
/// administrators' programs lie, which ordinary users' `PATH` may leave out.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|data| data.is_file() && data.mode() & 0o111 != 0)
        })
}

/// What to call a command in an error: sudo is not what matters about it.
fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.truncate(6);
    words.join(" ")
}

/// The last `count` lines of a text.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_output_is_shown() {
        assert_eq!(tail("a\nb\n\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let start = Instant::now();
        let error = run_within(Command::new("sleep").arg("60"), Duration::from_millis(100))
            .expect_err("sleep does not end in time");
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_failure_shows_what_the_program_said() {
        let error = capture(Command::new("sh").args(["-c", "echo cause >&2; exit 3"]))
            .expect_err("exit status 3");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert!(error.to_string().ends_with("\ncause"), "{error}");
    }
}
