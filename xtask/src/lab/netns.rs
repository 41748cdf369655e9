//! Network namespaces by name, made and removed without iproute2.
//!
//! The same way as `ip netns` (a bind mount under /run/netns, `ip-netns(8)`), so that `ip netns
//! exec`, `nsenter --net=` and tcpmon's `--netns` find them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::error::{LabError, Result};
use super::interface;

/// Where named namespaces are mounted.
const NAMED: &str = "/run/netns";

/// What every name of the lab's namespaces begins with.
pub(super) const PREFIX: &str = "tcpmon-lab-";

/// Path of the namespace `name`.
pub(super) fn path_of(name: &str) -> PathBuf {
    Path::new(NAMED).join(name)
}

/// Makes the namespace `name`, its loopback interface up, and returns its inode.
pub(super) fn make(name: &str) -> Result<u64> {
    let path = path_of(name);
    share_mount_point().map_err(LabError::io(format!("make {NAMED} a shared mount")))?;
    File::create_new(&path).map_err(LabError::io(format!("make {}", path.display())))?;
    let made = on_own_thread(|| {
        // SAFETY: NEWNET leaves the table of file descriptors shared, which is all that the
        // function's contract is about.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)?;
        interface::up("lo")?;
        Ok(fs::metadata(&path)?.ino())
    });
    made.map_err(|source| {
        remove(name);
        match source.kind() {
            io::ErrorKind::PermissionDenied => LabError::NotRoot,
            _ => LabError::Io { what: format!("make the network namespace {name}"), source },
        }
    })
}

/// Removes the name `name`; the namespace itself goes with its last process. Nothing is said
/// where it is gone already: the purpose is that it be gone.
pub(super) fn remove(name: &str) {
    let path = path_of(name);
    let _gone = rustix::mount::unmount(&path, UnmountFlags::DETACH);
    let _gone = fs::remove_file(&path);
}

/// Runs `work` on a thread that has entered the namespace `name`.
pub(super) fn inside<T: Send>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let path = path_of(name);
    on_own_thread(|| {
        enter_at(&path)?;
        work()
    })
}

/// Moves the calling thread into the namespace that ip-netns(8) calls `name`.
///
/// # Errors
///
/// Where there is none, or it may not be entered.
pub fn enter(name: &str) -> io::Result<()> {
    enter_at(&path_of(name))
}

/// Moves the calling thread into the namespace mounted at `path`.
pub(super) fn enter_at(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&namespace),
        Some(LinkNameSpaceType::Network),
    )?;
    Ok(())
}

/// Sets a sysctl of the namespace `name`, and returns what it was; `key` as under /proc/sys/net,
/// with slashes.
pub(super) fn set_sysctl(name: &str, key: &str, value: &str) -> Result<String> {
    let path = Path::new("/proc/sys/net").join(key);
    let set = || {
        let was = fs::read_to_string(&path)?;
        fs::write(&path, value)?;
        Ok(was.trim().to_owned())
    };
    inside(name, set).map_err(LabError::io(format!("set net/{key} to {value:?} in {name}")))
}

/// Names of the lab's namespaces whose makers live no more: left by `--keep`, or by a lab that
/// was killed together with the process that tidies up after it.
pub(super) fn orphans() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMED) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| {
            maker(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
        })
        .collect()
}

/// The pid in the name of a namespace of the lab.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// A change of namespace belongs to a thread, so it is made on one that ends with the work.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// As `ip netns add` does: mounts under /run/netns must reach other mount namespaces, or else a
/// service with a private one would hold the namespace for ever.
fn share_mount_point() -> io::Result<()> {
    fs::create_dir_all(NAMED)?;
    let share = || {
        rustix::mount::mount_change(
            NAMED,
            MountPropagationFlags::SHARED | MountPropagationFlags::REC,
        )
    };
    match share() {
        // Not a mount point yet.
        Err(Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(NAMED, NAMED)?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_the_labs_names_have_a_maker() {
        assert_eq!(maker("tcpmon-lab-42-0"), Some(42));
        for other in ["tcpmon-lab-42", "tcpmon-lab-x-0", "tcpmon-42-0", "lab-42-0", ""] {
            assert_eq!(maker(other), None, "{other}");
        }
    }
}
