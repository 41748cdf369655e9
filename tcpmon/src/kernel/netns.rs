//! Names of network namespaces: what people call them, from the inode numbers that the probes
//! tell.
//!
//! Names under /run/netns are read here, whenever a number is not known, since that takes some
//! microseconds. Containers take a look at every process, which [`super::namespaces`] does on a
//! thread of its own; here its last word is taken.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::namespaces::ContainerNames;

/// The name of the namespace that the host runs in.
pub const HOST: &str = "host";

/// How old names may be. Names are not only missing but wrong when they are old: the kernel gives
/// the inode number of a namespace that has gone to the next one.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// How many namespaces without a name are remembered until the next refresh.
const NAMELESS: usize = 4_096;

/// Knows the network namespaces of this machine by name.
///
/// `host` is the namespace of process 1, or our own where that cannot be read; others have the
/// name that ip-netns(8) gave them, under /run/netns, else that of the container they belong to,
/// else their inode number.
///
/// Every method is given the present time, so that a caller with many events asks the clock once.
#[derive(Debug)]
pub struct NetnsNames {
    proc: PathBuf,
    folders: Vec<PathBuf>,
    names: HashMap<u32, Arc<str>>,
    inodes: HashMap<Arc<str>, u32>,
    containers: Arc<ContainerNames>,
    /// What namespaces without a name under /run/netns are called until the next refresh: their
    /// container, or their number.
    nameless: HashMap<u32, Arc<str>>,
    refreshed: Option<Instant>,
}

impl NetnsNames {
    /// The names of this machine's namespaces; they are read when first asked for. Containers are
    /// what `containers` has been told.
    #[must_use]
    pub fn new(containers: Arc<ContainerNames>) -> Self {
        Self::with_folders("/proc".into(), folders(), containers)
    }

    fn with_folders(proc: PathBuf, folders: Vec<PathBuf>, containers: Arc<ContainerNames>) -> Self {
        Self {
            containers,
            proc,
            folders,
            names: HashMap::new(),
            inodes: HashMap::new(),
            nameless: HashMap::new(),
            refreshed: None,
        }
    }

    /// The name of the namespace with that inode number; at most a second old, and never older
    /// than the namespace itself. A container's name comes with the next pass over processes; a
    /// name that others have already is never given to a container.
    pub fn name(&mut self, inode: u32, now: Instant) -> Arc<str> {
        self.refresh(now);
        let known = |names: &Self| {
            let name = names.names.get(&inode).or_else(|| names.nameless.get(&inode));
            name.map(Arc::clone)
        };
        if let Some(name) = known(self) {
            return name;
        }
        if self.nameless.len() == NAMELESS {
            return itoa::Buffer::new().format(inode).into();
        }
        // It may have been made since: a number now and a name later would be two series.
        self.read();
        known(self).unwrap_or_else(|| {
            let container =
                self.containers.name(inode).filter(|name| !self.inodes.contains_key(name));
            let name = container.unwrap_or_else(|| itoa::Buffer::new().format(inode).into());
            self.nameless.insert(inode, Arc::clone(&name));
            name
        })
    }

    /// Whether the namespace with that inode number is called `name`, or is the one whose inode
    /// number `name` is.
    pub fn is_named(&mut self, inode: u32, name: &str, now: Instant) -> bool {
        *self.name(inode, now) == *name || name.parse() == Ok(inode)
    }

    /// The inode number of the namespace called `name`; a number that nobody took as a name
    /// stands for itself.
    pub fn inode(&mut self, name: &str, now: Instant) -> Option<u32> {
        self.refresh(now);
        let named = self.inodes.get(name).copied();
        named.or_else(|| self.containers.inode(name)).or_else(|| name.parse().ok())
    }

    /// The names and inode numbers of the namespaces that have a name, by name.
    pub fn named(&mut self, now: Instant) -> BTreeMap<Arc<str>, u32> {
        self.refresh(now);
        self.inodes.iter().map(|(name, &inode)| (Arc::clone(name), inode)).collect()
    }

    /// Reads the names now, however lately they were read.
    pub fn reread(&mut self, now: Instant) {
        self.refreshed = None;
        self.refresh(now);
    }

    fn refresh(&mut self, now: Instant) {
        if self.refreshed.is_some_and(|last| now.duration_since(last) < REFRESH_INTERVAL) {
            return;
        }
        self.refreshed = Some(now);
        self.nameless.clear();
        self.read();
    }

    /// Reads the names as they are now.
    fn read(&mut self) {
        self.names.clear();
        self.inodes.clear();
        if let Some(inode) = host(&self.proc) {
            self.add(HOST, inode);
        }
        // A file that no namespace is mounted on is not on the file system of namespaces.
        let Some((device, _)) = namespace(&self.proc.join("self/ns/net")) else { return };
        for folder in self.folders.clone() {
            for (name, inode) in namespaces(&folder, device) {
                self.add(&name, inode);
            }
        }
    }

    /// The first name of a namespace and the first namespace of a name count, so that `host` is
    /// never another.
    fn add(&mut self, name: &str, inode: u32) {
        let name: Arc<str> = name.into();
        if self.inodes.contains_key(&name) {
            return;
        }
        self.inodes.insert(Arc::clone(&name), inode);
        self.names.entry(inode).or_insert(name);
    }
}

/// The inode number of the network namespace that this thread is in.
///
/// # Errors
///
/// Where /proc cannot be read.
pub fn own_netns() -> io::Result<u32> {
    let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(inode).map_err(io::Error::other)
}

/// Where ip-netns(8) mounts the namespaces that it names: one folder, or two where /var/run is
/// not /run.
pub(super) fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/run/netns")];
    if fs::canonicalize("/var/run").is_ok_and(|folder| folder != Path::new("/run")) {
        folders.push("/var/run/netns".into());
    }
    folders
}

/// The namespace of the host: that of process 1, or our own where that cannot be read.
pub(super) fn host(proc: &Path) -> Option<u32> {
    let of = |process: &str| namespace(&proc.join(process).join("ns/net"));
    of("1").or_else(|| of("self")).map(|(_, inode)| inode)
}

/// Device and inode number of what is at `path`; `None` where it cannot be read.
pub(super) fn namespace(path: &Path) -> Option<(u64, u32)> {
    let metadata = fs::metadata(path).ok()?;
    // The kernel's namespace numbers have 32 bits (struct ns_common, include/linux/ns_common.h).
    Some((metadata.dev(), u32::try_from(metadata.ino()).ok()?))
}

/// The namespaces mounted in a folder, in the order of their names.
pub(super) fn namespaces(folder: &Path, device: u64) -> BTreeMap<String, u32> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let (found, inode) = namespace(&entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            (found == device).then_some((name, inode))
        })
        .collect()
}

#[cfg(test)]
#[path = "netns_tests.rs"]
mod tests;
