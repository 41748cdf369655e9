//! Looking for network namespaces: in processes, a bounded number at a time, and among mounts.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::{mountinfo, netns};

/// Where to look.
#[derive(Debug)]
pub(super) struct Places {
    /// Where proc(5) is mounted.
    pub(super) proc: PathBuf,
    /// Where ip-netns(8) keeps names.
    pub(super) folders: Vec<PathBuf>,
}

impl Places {
    /// When a name was last added to each of the folders or removed from it.
    pub(super) fn stamps(&self) -> Vec<Option<SystemTime>> {
        let stamp = |folder: &PathBuf| fs::metadata(folder).and_then(|it| it.modified()).ok();
        self.folders.iter().map(stamp).collect()
    }
}

/// A place in the file system where a namespace is mounted, or a link to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) path: PathBuf,
    /// Change time of the file there, where it is a mount. The file is made when somebody looks
    /// (`nsfs_init_inode`, fs/nsfs.c), and stays as long as it is mounted: a namespace mounted
    /// later on the same path, mostly with the same number, has another time. What is a link
    /// only is made whenever it is followed, and its time says nothing.
    made: Option<(i64, i64)>,
    /// It is a name that ip-netns(8) shows.
    pub(super) named: bool,
}

#[cfg(test)]
impl Mounted {
    /// The same place, when something else was mounted there.
    pub(super) fn of_another_time(other: &Self) -> Self {
        let made = other.made.map(|(seconds, ns)| (seconds - 1, ns));
        Self { made, ..other.clone() }
    }
}

/// Which of the ways there are lead to one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    pub(super) mounts: Vec<Mounted>,
    /// Processes in it, in order; of the host's only the first.
    pub(super) pids: Vec<u32>,
}

impl Ways {
    /// Takes in those of another search.
    pub(super) fn add(&mut self, other: Self) {
        for mount in other.mounts {
            if !self.mounts.contains(&mount) {
                self.mounts.push(mount);
            }
        }
        self.pids.extend(other.pids);
        self.pids.sort_unstable();
        self.pids.dedup();
    }

    /// Whether a way of one is a way of the other: then it is the same namespace, and not a later
    /// one of the same number.
    pub(super) fn share(&self, other: &Self) -> bool {
        self.pids.iter().any(|pid| other.pids.binary_search(pid).is_ok())
            || self.mounts.iter().any(|mount| other.mounts.contains(mount))
    }
}

/// A round over all processes that there were when it began.
#[derive(Debug)]
pub(super) struct Round {
    proc: Option<OwnedFd>,
    pids: Vec<u32>,
    next: usize,
    host: Option<u32>,
    /// What was found so far.
    pub(super) found: BTreeMap<u32, Vec<u32>>,
    /// Processes that may not be looked at.
    pub(super) refused: usize,
}

impl Round {
    /// Lists the processes; `host` is the namespace of which one process is enough.
    pub(super) fn begin(proc: &Path, host: Option<u32>) -> Self {
        let folder = rustix::fs::open(
            proc,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let entries = fs::read_dir(proc).ok().into_iter().flatten().flatten();
        let mut pids: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // The kernel lists them in order; nothing promises that it always will.
        pids.sort_unstable();
        Self { proc: folder.ok(), pids, next: 0, host, found: BTreeMap::new(), refused: 0 }
    }

    /// Looks at `limit` more processes at most, and says at how many.
    pub(super) fn go_on(&mut self, limit: usize) -> usize {
        let Some(proc) = &self.proc else { return 0 };
        let end = self.pids.len().min(self.next.saturating_add(limit));
        let pids = &self.pids[self.next..end];
        self.next = end;
        for &pid in pids {
            match namespace_of(proc, pid) {
                Ok(inode) => {
                    let found = self.found.entry(inode).or_default();
                    if self.host != Some(inode) || found.is_empty() {
                        found.push(pid);
                    }
                }
                Err(Errno::ACCESS | Errno::PERM) => self.refused += 1,
                // It has ended since, or is about to.
                Err(_) => {}
            }
        }
        pids.len()
    }

    /// Whether all have been looked at.
    pub(super) fn is_complete(&self) -> bool {
        self.proc.is_none() || self.next == self.pids.len()
    }
}

/// The network namespace of a process, from the link's text: that spares the kernel the making
/// of a file, which following the link would cost.
fn namespace_of(proc: &OwnedFd, pid: u32) -> Result<u32, Errno> {
    let mut path = String::with_capacity("4294967295/ns/net".len());
    path.push_str(itoa::Buffer::new().format(pid));
    path.push_str("/ns/net");
    let mut buffer = [MaybeUninit::uninit(); 32];
    let (text, _) = rustix::fs::readlinkat_raw(proc, path.as_str(), &mut buffer)?;
    let inode = text.strip_prefix(b"net:[").and_then(|rest| rest.strip_suffix(b"]"));
    let inode = inode.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    inode.ok_or(Errno::INVAL)
}

/// The namespaces mounted somewhere that this process can see, and those that links under
/// /run/netns lead to.
pub(super) fn mounted(places: &Places) -> BTreeMap<u32, Vec<Mounted>> {
    let mut found: BTreeMap<u32, Vec<Mounted>> = BTreeMap::new();
    let table = fs::read(places.proc.join("self/mountinfo")).unwrap_or_default();
    for (inode, path) in mountinfo::net_namespaces(&table) {
        let mounts = found.entry(inode).or_default();
        if mounts.iter().any(|mount| mount.path == path) {
            continue;
        }
        // Another number: it is hidden under another mount, or has gone.
        let metadata = fs::metadata(&path).ok().filter(|it| it.ino() == u64::from(inode));
        if let Some(metadata) = metadata {
            let made = Some((metadata.ctime(), metadata.ctime_nsec()));
            let named = path.parent().is_some_and(|at| places.folders.iter().any(|it| it == at));
            mounts.push(Mounted { path, made, named });
        }
    }
    // Links and mounts alike; what else lies there is on another file system than ours.
    let own = netns::namespace(&places.proc.join("self/ns/net"));
    for (folder, (device, _)) in places.folders.iter().filter_map(|folder| Some((folder, own?))) {
        for (name, inode) in netns::namespaces(folder, device) {
            let path = folder.join(name);
            let mounts = found.entry(inode).or_default();
            if mounts.iter().all(|mount| mount.path != path) {
                mounts.push(Mounted { path, made: None, named: true });
            }
        }
    }
    found.retain(|_, mounts| !mounts.is_empty());
    for mounts in found.values_mut() {
        // Names that people gave last longest.
        mounts.sort_by_key(|mount| !mount.named);
    }
    found
}
