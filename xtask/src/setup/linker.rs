//! bpf-linker, at one pinned version, in a folder of its own in the user's
//! cache, bound to the very libLLVM that the chosen compiler uses: then it
//! reads every bitcode that compiler writes, and no LLVM development package
//! (600 MB) is needed, as it links against nothing but that library's C API.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::toolchain::Toolchain;
use crate::process::{capture, step};

/// The release that is installed; it knows the LLVM releases
/// [`super::toolchain::LLVM_MAJORS`].
const VERSION: &str = "0.13.0";

/// A shared LLVM library and the name by which programs ask for it.
#[derive(Debug, PartialEq, Eq)]
struct LibLlvm {
    soname: String,
    path: PathBuf,
}

/// Finds or builds the linker for a compiler. `scratch` is a folder for the
/// build's files, emptied afterwards.
pub(super) fn ensure(toolchain: &Toolchain, scratch: &Path) -> Result<PathBuf> {
    let library = find_library(toolchain)?;
    let root = cache(scratch).join(folder_name(env::consts::ARCH, &library.soname));
    let linker = root.join("bin/bpf-linker");
    link_library(&root, &library)?;
    if !works(&linker) {
        step(&format!("bpf-linker {VERSION} for LLVM {}", toolchain.llvm), || {
            build(toolchain, &root, scratch)
        })?;
        if !works(&linker) {
            bail!("{} does not run although it was just built", linker.display());
        }
    }
    Ok(linker)
}

/// Whether a linker is there, starts (its libLLVM is found), and is of the
/// version wanted.
pub(super) fn works(linker: &Path) -> bool {
    linker.is_file()
        && capture(Command::new(linker).arg("--version"))
            .is_ok_and(|said| said.split_whitespace().nth(1) == Some(VERSION))
}

/// Builds with the user's own cargo and compiler: the linker is a program
/// for this machine, and need not be built by what builds the probes.
fn build(toolchain: &Toolchain, root: &Path, scratch: &Path) -> Result<()> {
    let target = scratch.join("bpf-linker");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["install", "bpf-linker", "--locked", "--force", "--no-default-features"])
        .arg(format!("--version=={VERSION}"))
        .arg(format!("--features=llvm-{}", toolchain.llvm))
        .arg("--root")
        .arg(root)
        .arg("--target-dir")
        .arg(&target)
        // Its work is done by LLVM: more than this only lengthens the build.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("LLVM_PREFIX", root.join("llvm"));
    // Flags meant for tcpmon, such as those of a static build, do no good here.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    let built = capture(&mut command).map(drop);
    // 140 MB that nobody needs any more; if they stay, nothing breaks.
    let _ = fs::remove_dir_all(&target);
    built
}

/// Makes `<root>/llvm/lib` hold the library under the name that the build
/// asks for, and under the one that the finished linker asks for.
fn link_library(root: &Path, library: &LibLlvm) -> Result<()> {
    let folder = root.join("llvm/lib");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in ["libLLVM.so", &library.soname] {
        let link = folder.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == library.path) {
            continue;
        }
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(&library.path, &link),
        }
        .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(())
}

/// The LLVM that the compiler is linked with; where it has LLVM built in,
/// the system's of the same major release.
fn find_library(toolchain: &Toolchain) -> Result<LibLlvm> {
    let mut command = Command::new("ldd");
    command.arg(&toolchain.rustc).env_remove("LD_LIBRARY_PATH");
    if let Some(library) = capture(&mut command).ok().and_then(|said| linked_library(&said)) {
        return Ok(library);
    }
    let major = toolchain.llvm;
    let arch = env::consts::ARCH;
    [
        format!("/usr/lib/llvm-{major}/lib"),
        format!("/usr/lib/{arch}-linux-gnu"),
        format!("/usr/lib64/llvm{major}/lib64"),
        "/usr/lib64".into(),
        "/usr/lib".into(),
    ]
    .iter()
    .filter_map(|folder| fs::read_dir(folder).ok())
    .flatten()
    .flatten()
    .map(|entry| entry.path())
    .find_map(|path| {
        let soname = path.file_name()?.to_str().filter(|name| is_llvm(name, major))?.to_owned();
        Some(LibLlvm { soname, path })
    })
    .with_context(|| {
        format!("no libLLVM of release {major} found: install it (libllvm{major}, llvm-libs)")
    })
}

/// The libLLVM among the lines of ldd(1).
fn linked_library(ldd: &str) -> Option<LibLlvm> {
    ldd.lines().find_map(|line| {
        let (soname, rest) = line.trim().split_once(" => ")?;
        let path = rest.split(" (").next().filter(|path| path.starts_with('/'))?;
        // Without `..`, so that the link stays good for as long as the file.
        let path = Path::new(path).canonicalize().unwrap_or_else(|_| path.into());
        soname.starts_with("libLLVM").then(|| LibLlvm { soname: soname.into(), path })
    })
}

/// Whether a file name is the soname of that release's LLVM.
fn is_llvm(name: &str, major: u32) -> bool {
    ["libLLVM.so.", "libLLVM-"]
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix)?.strip_prefix(&major.to_string()))
        .any(|rest| rest.starts_with('.'))
}

/// The folder for one linker: it differs where another binary is needed.
fn folder_name(arch: &str, soname: &str) -> String {
    format!("bpf-linker-{VERSION}-{arch}-{soname}")
}

/// The user's cache, so that a second clone need not build the linker again.
fn cache(fallback: &Path) -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map_or_else(|| fallback.to_owned(), |cache| cache.join("tcpmon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_own_llvm_is_found() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f552e862000)\n\
            \tlibrustc_driver-61.so => /opt/bin/../lib/librustc_driver-61.so (0x00007f5528c00000)\n\
            \tlibLLVM.so.22.1-rust-1.95.0-stable => /nonexistent/libLLVM.so.22.1-rust-1.95.0-stable \
            (0x00007f551fa00000)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f5528a1e000)\n";
        assert_eq!(
            linked_library(ldd),
            Some(LibLlvm {
                soname: "libLLVM.so.22.1-rust-1.95.0-stable".into(),
                path: "/nonexistent/libLLVM.so.22.1-rust-1.95.0-stable".into()
            })
        );
        assert_eq!(linked_library("\tlibLLVM.so.22.1 => not found\n"), None);
        assert_eq!(linked_library("\tstatically linked\n"), None);
    }

    #[test]
    fn sonames_tell_the_release() {
        for (name, is) in [
            ("libLLVM.so.22.1", true),
            ("libLLVM-22.so", true),
            ("libLLVM.so.2", false),
            ("libLLVM.so", false),
            ("libLLVM.so.221.0", false),
            ("libLLVMSupport.a", false),
        ] {
            assert_eq!(is_llvm(name, 22), is, "{name}");
        }
    }

    #[test]
    fn each_binary_has_a_folder_of_its_own() {
        let debian = folder_name("x86_64", "libLLVM.so.22.1");
        assert_eq!(debian, "bpf-linker-0.13.0-x86_64-libLLVM.so.22.1");
        assert_ne!(debian, folder_name("x86_64", "libLLVM.so.22.1-rust-1.95.0-stable"));
        assert_ne!(debian, folder_name("aarch64", "libLLVM.so.22.1"));
    }

    #[test]
    fn a_library_that_moved_is_linked_anew() {
        let root = env::temp_dir().join(format!("xtask-linker-{}", std::process::id()));
        for path in ["/nonexistent/old", "/nonexistent/new"] {
            let library = LibLlvm { soname: "libLLVM.so.22.1".into(), path: path.into() };
            link_library(&root, &library).expect("links in the temporary folder");
            for name in ["libLLVM.so", "libLLVM.so.22.1"] {
                let link = root.join("llvm/lib").join(name);
                assert_eq!(fs::read_link(link).expect("a link"), Path::new(path));
            }
        }
        fs::remove_dir_all(root).expect("own folder");
    }
}
