//! The initial RAM disk with the Debian root in it, the package, and what checks it there.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::super::{
    cpio::Archive,
    image::{self, ALIVE, ENDED},
    kernel::Kernel,
};

/// The machine's first process.
const INIT: &str = include_str!("init.sh");

/// The checks, by the names that they have in the machine. `run.sh` reads the others.
const CHECKS: [(&str, &str); 7] = [
    ("checks.service", include_str!("checks.service")),
    ("run.sh", include_str!("checks/run.sh")),
    ("lib.sh", include_str!("checks/lib.sh")),
    ("arrival.sh", include_str!("checks/arrival.sh")),
    ("work.sh", include_str!("checks/work.sh")),
    ("faults.sh", include_str!("checks/faults.sh")),
    ("departure.sh", include_str!("checks/departure.sh")),
];

/// What goes into a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    /// The archive of the Debian root.
    pub(super) root: &'a Path,
    /// The package that is checked.
    pub(super) package: &'a Path,
    /// The first process's tools.
    pub(super) busybox: &'a Path,
}

/// Writes the disk with which `kernel` boots. The kernel unpacks archives one after the other, as
/// they stand in one file.
pub(super) fn write(disk: &Path, kernel: &Kernel, content: Content<'_>) -> Result<()> {
    let cannot = || format!("cannot write {}", disk.display());
    let mut root = File::open(content.root)
        .with_context(|| format!("cannot read {}", content.root.display()))?;
    let mut out = BufWriter::new(File::create(disk).with_context(cannot)?);
    io::copy(&mut root, &mut out).with_context(cannot)?;
    let mut archive = Archive::new(out);
    archive.file(Path::new("busybox/busybox"), 0o755, &read(content.busybox)?)?;
    image::modules(&mut archive, kernel)?;
    for (name, text) in CHECKS {
        archive.file(&Path::new("checks").join(name), 0o644, filled(text).as_bytes())?;
    }
    archive.file(Path::new("checks/tcpmon.deb"), 0o644, &read(content.package)?)?;
    archive.file(Path::new("init"), 0o755, filled(INIT).as_bytes())?;
    archive.finish().and_then(|mut out| out.flush()).with_context(cannot)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A script that says what the host waits for.
fn filled(script: &str) -> String {
    script.replace("@ALIVE@", ALIVE).replace("@ENDED@", ENDED)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_scripts_are_the_shell_s_language_and_nothing_is_left_open_in_them() {
        for (name, text) in CHECKS[1..].iter().chain([&("init.sh", INIT)]) {
            let text = filled(text);
            let mut shell = Command::new("sh");
            let output = shell.args(["-n", "-c", &text]).output().expect("sh");
            assert!(output.status.success(), "{name}: {output:?}");
            for open in ["@ALIVE@", "@ENDED@"] {
                assert!(!text.contains(open), "{name}");
            }
        }
        assert!(filled(CHECKS[1].1).contains(ENDED), "run.sh tells how it ended");
        assert!(filled(INIT).contains(ALIVE));
    }

    #[test]
    fn every_check_that_is_called_is_there_and_every_one_is_called() {
        let run = CHECKS[1].1;
        let called: Vec<&str> =
            run.lines().filter_map(|line| line.strip_prefix("check ")?.split(' ').next()).collect();
        let made: Vec<&str> = CHECKS[3..]
            .iter()
            .flat_map(|(_, text)| text.lines())
            .filter_map(|line| line.strip_suffix("() {")?.strip_prefix("check_"))
            .collect();
        assert!(called.len() >= 15, "{called:?}");
        assert_eq!(called, made, "in the order in which they stand");
    }
}
