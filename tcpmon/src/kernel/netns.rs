//! Names of network namespaces: what people call them, from the inode numbers that the probes
//! tell.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// name that ip-netns(8) gave them, under /run/netns, or else their inode number.
///
/// Every method is given the present time, so that a caller with many events asks the clock once.
#[derive(Debug)]
pub struct NetnsNames {
    proc: PathBuf,
    folders: Vec<PathBuf>,
    names: HashMap<u32, Arc<str>>,
    inodes: HashMap<Arc<str>, u32>,
    /// The decimal names of namespaces that have no other.
    nameless: HashMap<u32, Arc<str>>,
    refreshed: Option<Instant>,
}

impl NetnsNames {
    /// The names of this machine's namespaces; they are read when first asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::with_folders("/proc".into(), folders())
    }

    fn with_folders(proc: PathBuf, folders: Vec<PathBuf>) -> Self {
        Self {
            proc,
            folders,
            names: HashMap::new(),
            inodes: HashMap::new(),
            nameless: HashMap::new(),
            refreshed: None,
        }
    }

    /// The name of the namespace with that inode number; at most a second old, and never older
    /// than the namespace itself.
    pub fn name(&mut self, inode: u32, now: Instant) -> Arc<str> {
        self.refresh(now);
        let known = |names: &Self| {
            let name = names.names.get(&inode).or_else(|| names.nameless.get(&inode));
            name.map(Arc::clone)
        };
        if let Some(name) = known(self) {
            return name;
        }
        let name: Arc<str> = itoa::Buffer::new().format(inode).into();
        if self.nameless.len() == NAMELESS {
            return name;
        }
        // It may have been made since: a number now and a name later would be two series.
        self.read();
        known(self).unwrap_or_else(|| {
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
        self.inodes.get(name).copied().or_else(|| name.parse().ok())
    }

    /// The names and inode numbers of the namespaces that have a name, by name.
    pub fn named(&mut self, now: Instant) -> BTreeMap<Arc<str>, u32> {
        self.refresh(now);
        self.inodes.iter().map(|(name, &inode)| (Arc::clone(name), inode)).collect()
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

impl Default for NetnsNames {
    fn default() -> Self {
        Self::new()
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
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A made-up machine, whose namespaces are other kinds of namespaces of this process: an
    /// ordinary user has no second network namespace at hand.
    struct Machine {
        folder: tempfile::TempDir,
        now: Instant,
    }

    impl Machine {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("folder");
            for name in ["proc/self/ns", "proc/1/ns", "run/netns"] {
                fs::create_dir_all(folder.path().join(name)).expect(name);
            }
            let machine = Self { folder, now: Instant::now() };
            machine.link("proc/self/ns/net", "net");
            machine
        }

        fn link(&self, path: &str, kind: &str) -> u32 {
            let target = Path::new("/proc/self/ns").join(kind);
            symlink(&target, self.folder.path().join(path)).expect(path);
            namespace(&target).expect(kind).1
        }

        fn remove(&self, path: &str) {
            fs::remove_file(self.folder.path().join(path)).expect(path);
        }

        fn names(&self) -> NetnsNames {
            let path = |name: &str| self.folder.path().join(name);
            NetnsNames::with_folders(path("proc"), vec![path("run/netns"), path("var/run/netns")])
        }

        fn later(&mut self, seconds: u64) -> Instant {
            self.now += Duration::from_secs(seconds);
            self.now
        }
    }

    #[test]
    fn host_named_and_nameless() {
        let machine = Machine::new();
        let host = machine.link("proc/1/ns/net", "mnt");
        let blue = machine.link("run/netns/blue", "uts");
        machine.link("run/netns/alias-of-host", "mnt");
        let masked = machine.link("run/netns/host", "ipc");
        fs::write(machine.folder.path().join("run/netns/stale"), "").expect("stale");
        let mut names = machine.names();
        let now = machine.now;
        assert_eq!(&*names.name(host, now), "host");
        assert_eq!(&*names.name(blue, now), "blue");
        assert_eq!(&*names.name(masked, now), masked.to_string());
        assert_eq!(&*names.name(7, now), "7");
        assert_eq!(names.inode("host", now), Some(host));
        assert_eq!(names.inode("alias-of-host", now), Some(host));
        assert_eq!(names.inode("blue", now), Some(blue));
        assert_eq!(names.inode("7", now), Some(7));
        assert_eq!(names.inode("stale", now), None);
        assert!(names.is_named(blue, "blue", now) && names.is_named(7, "7", now));
        assert!(names.is_named(host, &host.to_string(), now));
        assert!(!names.is_named(blue, "host", now));
        let known = names.named(now);
        assert_eq!(
            known.keys().map(|it| &**it).collect::<Vec<_>>(),
            ["alias-of-host", "blue", "host"]
        );
    }

    #[test]
    fn where_process_1_is_hidden_our_own_namespace_is_the_host_s() {
        let machine = Machine::new();
        let own = namespace(Path::new("/proc/self/ns/net")).expect("net").1;
        assert_eq!(&*machine.names().name(own, machine.now), "host");
    }

    #[test]
    fn names_come_and_go_within_a_second() {
        let mut machine = Machine::new();
        machine.link("proc/1/ns/net", "mnt");
        let mut names = machine.names();
        let uts = machine.link("run/netns/blue", "uts");
        assert_eq!(&*names.name(uts, machine.now), "blue");
        machine.remove("run/netns/blue");
        machine.link("run/netns/green", "uts");
        assert_eq!(&*names.name(uts, machine.now), "blue", "read again at once");
        assert_eq!(&*names.name(uts, machine.later(1)), "green");
        assert_eq!(names.inode("blue", machine.now), None);
    }

    #[test]
    fn a_namespace_made_since_is_known_by_its_name_at_once() {
        let machine = Machine::new();
        machine.link("proc/1/ns/net", "mnt");
        let mut names = machine.names();
        assert_eq!(&*names.name(7, machine.now), "7");
        let uts = machine.link("run/netns/blue", "uts");
        assert_eq!(&*names.name(uts, machine.now), "blue");
    }

    #[test]
    fn this_process_is_in_a_namespace() {
        let own = namespace(Path::new("/proc/self/ns/net")).expect("net").1;
        let mut names = NetnsNames::new();
        let name = names.name(own, Instant::now());
        assert_eq!(names.inode(&name, Instant::now()), Some(own));
    }
}
