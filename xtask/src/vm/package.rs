//! Kernels: which of Debian's packages, and the two files of it that are needed.
//!
//! The packages of the "cloud" flavour are small and have built in what a virtual machine needs.
//! Which of them there are is for apt to say.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::process::{capture, run_within, step};

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// The files that are kept of a package.
const IMAGE: &str = "vmlinuz";
const TUN: &str = "tun.ko";

/// How long a download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(5);

/// Releases of the kernel that differ in corrections only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let numbers = word.split_once('.').and_then(|(major, minor)| {
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        numbers.ok_or_else(|| "a kernel is named as 6.1, or `all`".to_owned())
    }
}

/// A kernel to boot.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Name of its package, which has the full version in it.
    pub(super) package: String,
    /// The compressed kernel.
    pub(super) image: PathBuf,
    /// The module `tun`, perhaps compressed; `None` where it is built in.
    pub(super) tun: Option<PathBuf>,
}

impl Kernel {
    /// What an earlier run has kept.
    fn kept(package: &str, folder: &Path) -> Option<Self> {
        let folder = folder.join(package);
        let image = folder.join(IMAGE);
        let tun = files(&folder).into_iter().find(|path| file_name(path).starts_with(TUN));
        image.exists().then(|| Self { package: package.to_owned(), image, tun })
    }
}

/// The newest kernel of a series that apt offers; where that cannot be had now, the newest that
/// was fetched before.
pub(super) fn fetch(series: Series, folder: &Path) -> Result<Kernel> {
    let names = capture(Command::new("apt-cache").args(["pkgnames", PREFIX]))
        .context("apt tells no packages")?;
    let offered = newest_first(&names, series);
    let kept: Vec<String> = files(folder).iter().map(|path| file_name(path)).collect();
    let kept = newest_first(&kept.join("\n"), series);
    let Some(newest) = offered.first() else {
        let earlier = kept.first().and_then(|package| Kernel::kept(package, folder));
        return earlier.ok_or_else(|| anyhow!("apt offers no {PREFIX}{series}.*{SUFFIX}"));
    };
    if let Some(kernel) = Kernel::kept(newest, folder) {
        return Ok(kernel);
    }
    let fetched = step(&format!("{newest} (apt-get download)"), || download(newest, folder));
    match (fetched, kept.iter().find_map(|package| Kernel::kept(package, folder))) {
        (Ok(kernel), _) => Ok(kernel),
        (Err(error), Some(earlier)) => {
            eprintln!("xtask: {} instead of {newest}: {error:#}", earlier.package);
            Ok(earlier)
        }
        (Err(error), None) => Err(error),
    }
}

/// Of all names of packages, those of kernels of this series, the newest first.
fn newest_first(names: &str, series: Series) -> Vec<String> {
    let mut found: Vec<(Vec<u64>, &str)> = names
        .lines()
        .filter_map(|name| {
            let release = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
            let rest = release.strip_prefix(&series.to_string())?;
            // Others are packages that stand for the newest (`6.12`) or another series (`6.12`
            // for 6.1).
            rest.starts_with('.').then(|| (numbers(release), name))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, name)| name.to_owned()).collect()
}

/// The numbers in a release; text between them tells no order.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Downloads and unpacks a package, and keeps what is needed of it.
fn download(package: &str, folder: &Path) -> Result<Kernel> {
    let work = folder.join("unpacked");
    let parts = folder.join("part");
    for place in [&work, &parts] {
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        fs::create_dir_all(place)?;
    }
    let mut apt = Command::new("apt-get");
    run_within(apt.args(["-q", "download", package]).current_dir(&work), DOWNLOAD_LIMIT)?;
    let archive = files(&work)
        .into_iter()
        .find(|path| path.extension().is_some_and(|name| name == "deb"))
        .with_context(|| format!("apt-get download {package} left no package"))?;
    capture(Command::new("dpkg").arg("-x").args([&archive, &work]))?;
    let image = files(&work.join("boot"))
        .into_iter()
        .find(|path| file_name(path).starts_with(IMAGE))
        .with_context(|| format!("there is no kernel in {package}"))?;
    fs::rename(image, parts.join(IMAGE))?;
    // Where modules lie depends on the release of Debian.
    for modules in ["lib/modules", "usr/lib/modules"] {
        for release in files(&work.join(modules)) {
            for module in files(&release.join("kernel/drivers/net")) {
                let name = file_name(&module);
                if name.starts_with(TUN) {
                    fs::rename(module, parts.join(name))?;
                }
            }
        }
    }
    fs::remove_dir_all(&work)?;
    // Last, so that a folder of that name is complete.
    fs::rename(&parts, folder.join(package))?;
    let Some(kernel) = Kernel::kept(package, folder) else {
        bail!("{package} was not kept in {}", folder.display());
    };
    Ok(kernel)
}

/// What is in a folder; nothing if it cannot be read.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "\
linux-image-6.1.0-9-cloud-amd64
linux-image-6.1.0-56-cloud-amd64
linux-image-6.1.0-56-cloud-amd64-dbg
linux-image-6.1.0-57-cloud-amd64-unsigned
linux-image-6.1.0-58-amd64
linux-image-6.1.0-59-cloud-arm64
linux-image-6.12-cloud-amd64
linux-image-6.12.9+bpo-cloud-amd64
linux-image-6.12.117+deb12-cloud-amd64
linux-image-6.12.117+deb12.1-cloud-amd64
linux-image-cloud-amd64
linux-image-amd64
";

    #[test]
    fn the_newest_of_a_series_is_chosen_by_number() {
        let newest = |major, minor| newest_first(NAMES, Series { major, minor });
        assert_eq!(
            newest(6, 1),
            ["linux-image-6.1.0-56-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64"]
        );
        assert_eq!(
            newest(6, 12),
            [
                "linux-image-6.12.117+deb12.1-cloud-amd64",
                "linux-image-6.12.117+deb12-cloud-amd64",
                "linux-image-6.12.9+bpo-cloud-amd64"
            ]
        );
        assert_eq!(newest(6, 6), [""; 0]);
        assert_eq!(newest(6, 2), [""; 0]);
    }

    #[test]
    fn a_kernel_is_kept_once_it_is_complete() {
        let folder = std::env::temp_dir().join(format!("xtask-vm-{}", std::process::id()));
        let place = folder.join("linux-image-6.1.0-56-cloud-amd64");
        fs::create_dir_all(&place).expect("a folder");
        let kept = || Kernel::kept("linux-image-6.1.0-56-cloud-amd64", &folder);
        assert!(kept().is_none());
        fs::write(place.join(IMAGE), "").expect("a file");
        assert!(kept().is_some_and(|kernel| kernel.tun.is_none()));
        fs::write(place.join("tun.ko.xz"), "").expect("a file");
        assert_eq!(kept().and_then(|kernel| kernel.tun), Some(place.join("tun.ko.xz")));
        fs::remove_dir_all(&folder).expect("a folder of our own");
    }
}
