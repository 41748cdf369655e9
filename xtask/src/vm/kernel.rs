//! Kernels: which of Debian's packages, and the few files of it that are needed.
//!
//! The packages of the "cloud" flavour are small and have built in what a virtual machine needs.
//! Which of them there are is for apt to say.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};

use super::debian::{self, files};
use crate::process::step;

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// The file that is kept of a package, beside modules.
const IMAGE: &str = "vmlinuz";

/// The modules that the tests need, each after those it depends on, and their folders in a
/// package: `ss` and `ss -K`, and interfaces.
const MODULES: [(&str, &str); 5] = [
    ("inet_diag", "kernel/net/ipv4"),
    ("tcp_diag", "kernel/net/ipv4"),
    ("dummy", "kernel/drivers/net"),
    ("tun", "kernel/drivers/net"),
    ("veth", "kernel/drivers/net"),
];

/// Where modules lie depends on the release of Debian.
const MODULE_ROOTS: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// The file that says which modules were looked for when a kernel was fetched.
const LOOKED_FOR: &str = "modules";

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
    /// Its series.
    pub(super) series: Series,
    /// Name of its package, which has the full version in it.
    pub(super) package: String,
    /// The compressed kernel.
    pub(super) image: PathBuf,
    /// Modules, perhaps compressed, in the order in which they are to be loaded. Those that are
    /// not among them are built in.
    pub(super) modules: Vec<PathBuf>,
}

impl Kernel {
    /// What an earlier run has kept.
    fn kept(series: Series, package: &str, folder: &Path) -> Option<Self> {
        let folder = folder.join(package);
        let image = folder.join(IMAGE);
        let complete = image.exists()
            && fs::read_to_string(folder.join(LOOKED_FOR)).is_ok_and(|names| names == looked_for());
        let module =
            |name: &str| files(&folder).into_iter().find(|path| is_module(name, &file_name(path)));
        complete.then(|| Self {
            series,
            package: package.to_owned(),
            image,
            modules: MODULES.iter().filter_map(|(name, _)| module(name)).collect(),
        })
    }
}

fn looked_for() -> String {
    MODULES.map(|(name, _)| name).join("\n")
}

/// Whether a file is that module, compressed (`NAME.ko.xz`) or not.
fn is_module(name: &str, file: &str) -> bool {
    file.strip_prefix(name).is_some_and(|end| end == ".ko" || end.starts_with(".ko."))
}

/// The newest kernel of a series that apt offers; where that cannot be had now, the newest that
/// was fetched before.
pub(super) fn fetch(series: Series, folder: &Path) -> Result<Kernel> {
    let kept: Vec<String> = files(folder).iter().map(|path| file_name(path)).collect();
    let mut kept = newest_first(&kept, series).into_iter();
    let kept = kept.find_map(|package| Kernel::kept(series, &package, folder));
    let newest = || {
        let offered = newest_first(&debian::names(PREFIX)?, series);
        let Some(newest) = offered.first() else {
            bail!("apt offers no {PREFIX}{series}.*{SUFFIX}");
        };
        if let Some(kernel) = Kernel::kept(series, newest, folder) {
            return Ok(kernel);
        }
        step(&format!("{newest} (apt-get download)"), || download(series, newest, folder))
    };
    let Some(kept) = kept else { return debian::with_new_lists(newest) };
    newest().or_else(|error| {
        eprintln!("xtask: {}, which is here already: {error:#}", kept.package);
        Ok(kept)
    })
}

/// Of all names of packages, those of kernels of this series, the newest first.
fn newest_first(names: &[String], series: Series) -> Vec<String> {
    let mut found: Vec<(Vec<u64>, &str)> = names
        .iter()
        .filter_map(|name| {
            let release = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
            let rest = release.strip_prefix(&series.to_string())?;
            // Others are packages that stand for the newest (`6.12`) or another series (`6.12`
            // for 6.1).
            rest.starts_with('.').then(|| (numbers(release), name.as_str()))
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
fn download(series: Series, package: &str, folder: &Path) -> Result<Kernel> {
    let whole = folder.join("unpacked");
    let parts = folder.join("part");
    debian::unpack(&[package.to_owned()], &whole)?;
    if parts.exists() {
        fs::remove_dir_all(&parts)?;
    }
    fs::create_dir_all(&parts)?;
    let image = files(&whole.join("boot"))
        .into_iter()
        .find(|path| file_name(path).starts_with(IMAGE))
        .with_context(|| format!("there is no kernel in {package}"))?;
    fs::rename(image, parts.join(IMAGE))?;
    for release in MODULE_ROOTS.iter().flat_map(|root| files(&whole.join(root))) {
        for (name, place) in MODULES {
            for file in files(&release.join(place)) {
                if is_module(name, &file_name(&file)) {
                    fs::rename(&file, parts.join(file_name(&file)))?;
                }
            }
        }
    }
    fs::write(parts.join(LOOKED_FOR), looked_for())?;
    fs::remove_dir_all(&whole)?;
    let place = folder.join(package);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    // Last, so that a folder of that name is complete.
    fs::rename(&parts, &place)?;
    let kernel = Kernel::kept(series, package, folder);
    kernel.with_context(|| format!("{package} was not kept in {}", folder.display()))
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
        let names: Vec<String> = NAMES.lines().map(str::to_owned).collect();
        let newest = |major, minor| newest_first(&names, Series { major, minor });
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
        let package = "linux-image-6.1.0-56-cloud-amd64";
        let place = folder.join(package);
        fs::create_dir_all(&place).expect("a folder");
        let kept = || Kernel::kept(Series { major: 6, minor: 1 }, package, &folder);
        assert!(kept().is_none());
        fs::write(place.join(IMAGE), "").expect("a file");
        fs::write(place.join(LOOKED_FOR), "tun").expect("a file");
        assert!(kept().is_none(), "other modules were looked for");
        fs::write(place.join(LOOKED_FOR), looked_for()).expect("a file");
        assert!(kept().is_some_and(|kernel| kernel.modules.is_empty()));
        for module in ["tun.ko.xz", "tcp_diag.ko", "inet_diag.ko"] {
            fs::write(place.join(module), "").expect("a file");
        }
        let modules = kept().map(|kernel| kernel.modules).unwrap_or_default();
        let names: Vec<String> = modules.iter().map(|path| file_name(path)).collect();
        assert_eq!(names, ["inet_diag.ko", "tcp_diag.ko", "tun.ko.xz"]);
        fs::remove_dir_all(&folder).expect("a folder of our own");
    }
}
