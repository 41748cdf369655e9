//! The programs that a virtual machine needs: QEMU beside it, and in it a shell and what the tests
//! call.

use std::{
    env::{self, consts::ARCH},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::{
    process::{capture, find_program, step},
    setup,
};

/// The emulator, and its package.
const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// The shell and tools of the machine in one program, and its package.
const BUSYBOX: (&str, &str) = ("busybox", "busybox-static");

/// What the tests call that busybox does not do as they need it, and the packages. The shell is
/// among them because busybox's takes its own `ip` and `nsenter`, whatever `PATH` says.
pub(super) const CALLED: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("prlimit", "util-linux"),
    ("setarch", "util-linux"),
    ("setpriv", "util-linux"),
    ("sh", "dash"),
    ("ss", "iproute2"),
    ("unshare", "util-linux"),
];

/// Where programs, libraries and QEMU's own files are in a package.
const PROGRAMS: [&str; 2] = ["usr/bin", "bin"];
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// The programs, wherever they are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) emulator: Program,
    pub(super) busybox: PathBuf,
}

/// A program of this machine, or of packages that are unpacked but not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    /// The folder that stands for `/` in its packages; `None` for one of this machine.
    root: Option<PathBuf>,
}

impl Program {
    /// One that is installed.
    pub(super) fn of_this_machine(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), root: None }
    }

    /// A command that runs it, told where its files are.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(root) = &self.root {
            command.env("LD_LIBRARY_PATH", libraries(root));
            command.env("QEMU_MODULE_DIR", root.join(MODULES));
            for firmware in FIRMWARE {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        command
    }
}

/// The value of `LD_LIBRARY_PATH` for packages unpacked at `root`.
fn libraries(root: &Path) -> OsString {
    let own = LIBRARIES.map(|folder| root.join(folder).into_os_string());
    let set = env::var_os("LD_LIBRARY_PATH").filter(|set| !set.is_empty());
    own.into_iter().chain(set).collect::<Vec<_>>().join(OsString::from(":").as_os_str())
}

/// Finds the programs; fetches those that are not here, to below `folder`.
pub(super) fn find(folder: &Path) -> Result<Programs> {
    if ARCH != "x86_64" {
        bail!("there are virtual machines for x86_64 only, this is {ARCH}");
    }
    for program in ["apt-get", "dpkg"] {
        if find_program(program).is_none() {
            bail!("kernels are Debian's packages, and there is no {program} here");
        }
    }
    for (program, package) in CALLED {
        setup::ensure_program(program, package)?;
    }
    let emulator = here_or_fetched(QEMU, folder)?;
    Ok(Programs { emulator, busybox: here_or_fetched(BUSYBOX, folder)?.path })
}

fn here_or_fetched((program, package): (&str, &str), folder: &Path) -> Result<Program> {
    if let Some(path) = find_program(program) {
        return Ok(Program::of_this_machine(path));
    }
    let root = folder.join(package);
    if let Some(kept) = unpacked(program, &root) {
        return Ok(kept);
    }
    step(&format!("{package} (apt-get download)"), || {
        let draft = folder.join(format!("{package}.part"));
        debian::with_new_lists(|| debian::unpack(&debian::additions(package)?, &draft))?;
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        // Last, so that a folder of that name is complete.
        fs::rename(&draft, &root)?;
        unpacked(program, &root)
            .with_context(|| format!("{program} of {package} does not run on this machine"))
    })
}

/// A program of packages unpacked at `root`, if it is there and runs.
fn unpacked(program: &str, root: &Path) -> Option<Program> {
    let path = PROGRAMS.iter().map(|folder| root.join(folder).join(program));
    let path = path.into_iter().find(|path| path.is_file())?;
    let mut trial = Command::new(&path);
    trial.arg("--help").env("LD_LIBRARY_PATH", libraries(root));
    capture(&mut trial).ok()?;
    Some(Program { path, root: Some(root.to_owned()) })
}

/// The path of a program of this machine.
pub(super) fn path(program: &str) -> Result<PathBuf> {
    find_program(program).with_context(|| format!("there is no {program}"))
}

/// The shared libraries that a program needs.
pub(super) fn needed(program: &Path) -> Vec<PathBuf> {
    // Of a program without any, ldd says so and fails.
    listed(&capture(Command::new("ldd").arg(program)).unwrap_or_default())
}

/// The paths in what ldd(1) prints: `NAME => PATH (ADDRESS)`, or for the loader `PATH (ADDRESS)`.
fn listed(printed: &str) -> Vec<PathBuf> {
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(Into::into);
    printed.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_lists_by_path() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibcap-ng.so.0 => /lib/x86_64-linux-gnu/libcap-ng.so.0 (0x00007f9d)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f9e)\n";
        let expected: Vec<PathBuf> = vec![
            "/lib/x86_64-linux-gnu/libcap-ng.so.0".into(),
            "/lib64/ld-linux-x86-64.so.2".into(),
        ];
        assert_eq!(listed(printed), expected);
        assert!(listed("\tstatically linked\n").is_empty());
    }

    #[test]
    fn an_unpacked_program_is_told_where_its_files_are() {
        let root = Some(PathBuf::from("/r"));
        let command = Program { path: "/r/usr/bin/q".into(), root }.command();
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words, ["-L", "/r/usr/share/qemu", "-L", "/r/usr/share/seabios"]);
        let variable = |name: &str| {
            let found = command.get_envs().find(|(variable, _)| *variable == name);
            found.and_then(|(_, value)| value).map(|value| value.to_string_lossy().into_owned())
        };
        assert!(variable("LD_LIBRARY_PATH").is_some_and(|path| path.starts_with("/r/usr/lib/")));
        assert_eq!(
            variable("QEMU_MODULE_DIR").as_deref(),
            Some("/r/usr/lib/x86_64-linux-gnu/qemu")
        );
        let own = Program::of_this_machine("/usr/bin/q");
        assert_eq!((own.command().get_args().count(), own.command().get_envs().count()), (0, 0));
    }

    #[test]
    fn a_program_that_does_not_run_is_none() {
        let root = env::temp_dir().join(format!("xtask-programs-{}", std::process::id()));
        let folder = root.join("bin");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("p"), "").expect("a file");
        assert_eq!(unpacked("p", &root), None);
        std::os::unix::fs::symlink("/bin/true", folder.join("q")).expect("a link");
        let found = unpacked("q", &root).expect("a program");
        assert_eq!(found, Program { path: folder.join("q"), root: Some(root.clone()) });
        fs::remove_dir_all(&root).expect("a folder of our own");
    }
}
