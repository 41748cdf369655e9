//! The programs of this machine that a virtual machine needs: QEMU beside it, and in it those
//! that the tests call.

use std::{env::consts::ARCH, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{capture, find_program},
    setup,
};

/// The emulator.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// The shell and tools of the machine, in one program.
pub(super) const BUSYBOX: &str = "busybox";

/// What the tests call that busybox does not do as they need it; all of util-linux.
pub(super) const CALLED: [&str; 4] = ["nsenter", "setarch", "setpriv", "unshare"];

/// Installs what is missing, where that is possible.
pub(super) fn ensure() -> Result<()> {
    if ARCH != "x86_64" {
        bail!("there are virtual machines for x86_64 only, this is {ARCH}");
    }
    for program in ["apt-get", "dpkg"] {
        if find_program(program).is_none() {
            bail!("kernels are Debian's packages, and there is no {program} here");
        }
    }
    setup::ensure_program(QEMU, "qemu-system-x86")?;
    setup::ensure_program(BUSYBOX, "busybox-static")?;
    for program in CALLED {
        setup::ensure_program(program, "util-linux")?;
    }
    Ok(())
}

/// The path of a program, and of the shared libraries that it needs.
pub(super) fn with_libraries(program: &str) -> Result<(PathBuf, Vec<PathBuf>)> {
    let path = find_program(program).with_context(|| format!("there is no {program}"))?;
    // Of a program without any, ldd says so and fails.
    let listed = capture(Command::new("ldd").arg(&path)).unwrap_or_default();
    Ok((path, libraries(&listed)))
}

/// The paths in what ldd(1) prints: `NAME => PATH (ADDRESS)`, or for the loader `PATH (ADDRESS)`.
fn libraries(listed: &str) -> Vec<PathBuf> {
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(Into::into);
    listed.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_lists_by_path() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibcap-ng.so.0 => /lib/x86_64-linux-gnu/libcap-ng.so.0 (0x00007f9d)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f9e)\n";
        let expected: Vec<PathBuf> = vec![
            "/lib/x86_64-linux-gnu/libcap-ng.so.0".into(),
            "/lib64/ld-linux-x86-64.so.2".into(),
        ];
        assert_eq!(libraries(listed), expected);
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
