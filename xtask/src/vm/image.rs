//! The initial RAM disk: all that a virtual machine has.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    binaries::Binaries,
    cpio::Archive,
    kernel::Kernel,
    programs::{self, CALLED},
};

/// The machine's first process.
const INIT: &str = include_str!("init.sh");

/// What [`INIT`] writes on the tests' serial port when it has come so far.
pub(super) const ALIVE: &str = "xtask-vm: alive";

/// What it writes there, before the exit code, when the tests have ended.
pub(super) const ENDED: &str = "xtask-vm: ended with";

/// Folders that are mounted on.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// The users that tests become.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What is done in a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    /// What tests and what is tested.
    pub(super) binaries: &'a Binaries,
    /// The tests' arguments.
    pub(super) arguments: &'a [OsString],
    /// How long the tests may take.
    pub(super) limit: Duration,
    /// How many times longer than elsewhere anything may take that is to be quick.
    pub(super) slowness: u32,
    /// The machine's shell.
    pub(super) busybox: &'a Path,
}

/// Writes the disk with which `kernel` does the work.
pub(super) fn write(disk: &Path, kernel: &Kernel, work: Work<'_>) -> Result<()> {
    let out = File::create(disk).with_context(|| format!("cannot write {}", disk.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    for folder in MOUNT_POINTS {
        archive.folder(Path::new(folder))?;
    }
    let mut libraries = BTreeSet::new();
    let mut folders = BTreeSet::new();
    for (program, _) in CALLED {
        let path = programs::path(program)?;
        archive.file(&path, 0o755, &read(&path)?)?;
        libraries.extend(programs::needed(&path));
        folders.extend(path.parent().map(Path::to_path_buf));
    }
    archive.file(Path::new("busybox/busybox"), 0o755, &read(work.busybox)?)?;
    libraries.extend(programs::needed(work.busybox));
    for library in &libraries {
        archive.file(library, 0o755, &read(library)?)?;
    }
    modules(&mut archive, kernel)?;
    let Binaries { program, tests } = work.binaries;
    archive.file(program, 0o755, &read(program)?)?;
    archive.file(Path::new("system"), 0o755, &read(tests)?)?;
    archive.file(Path::new("etc/passwd"), 0o644, PASSWD.as_bytes())?;
    archive.file(Path::new("etc/group"), 0o644, GROUP.as_bytes())?;
    archive.file(Path::new("tests"), 0o644, &tests_script("/system", work.arguments))?;
    archive.file(Path::new("init"), 0o755, init(&folders, work).as_bytes())?;
    archive.finish().with_context(|| format!("cannot write {}", disk.display()))?;
    Ok(())
}

/// Adds the kernel's modules, so that the shell finds them in the order in which to load them.
pub(super) fn modules<W: Write>(archive: &mut Archive<W>, kernel: &Kernel) -> Result<()> {
    for (number, module) in kernel.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("modules/{number:02}-{name}");
        archive.file(Path::new(&path), 0o644, &read(module)?)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The first process's script, for programs in these folders.
fn init(folders: &BTreeSet<PathBuf>, work: Work<'_>) -> String {
    let folders: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
    INIT.replace("@PATH@", &folders.join(":"))
        .replace("@SECONDS@", &work.limit.as_secs().to_string())
        .replace("@SLOWNESS@", &work.slowness.to_string())
        .replace("@ALIVE@", ALIVE)
        .replace("@ENDED@", ENDED)
}

/// The shell script that runs the tests, and once more what fails.
const TESTS: &str = include_str!("tests.sh");

/// That script for these arguments.
fn tests_script(program: &str, arguments: &[OsString]) -> Vec<u8> {
    let script = TESTS.replace("@PROGRAM@", program);
    let (before, after) = script.split_once("@COMMAND@").unwrap_or((&script, ""));
    [before.as_bytes(), &command(program, arguments), after.as_bytes()].concat()
}

/// A command line for the shell.
fn command(program: &str, arguments: &[OsString]) -> Vec<u8> {
    let mut line = program.as_bytes().to_vec();
    for argument in arguments {
        line.push(b' ');
        line.extend(quoted(argument));
    }
    line
}

/// A word that the shell takes as it is.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word.as_encoded_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            other => quoted.push(other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_hands_arguments_over_unchanged() {
        let words = ["--exact", "it's a \"name\" $HOME", "", "a\nb"];
        let script = command("printf '<%s>'", &words.map(OsString::from));
        let script = String::from_utf8(script).expect("UTF-8");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh");
        let expected = format!("<{}>", words.join("><"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }

    #[test]
    fn nothing_is_left_open_in_the_first_process() {
        let folders = ["/usr/bin".into(), "/usr/sbin".into()].into();
        let nothing = PathBuf::from("/nothing");
        let binaries = Binaries { program: nothing.clone(), tests: nothing.clone() };
        let limit = Duration::from_mins(1);
        let (binaries, busybox) = (&binaries, nothing.as_path());
        let init = init(&folders, Work { binaries, arguments: &[], limit, slowness: 5, busybox });
        assert!(init.contains("PATH=/usr/bin:/usr/sbin:/busybox"), "{init}");
        assert!(init.contains("timeout -s KILL 60 \"$shell\" /tests"), "{init}");
        assert!(init.contains("TCPMON_TEST_SLOWNESS=5"), "{init}");
        assert!(!init.contains('@'), "{init}");
    }
}
