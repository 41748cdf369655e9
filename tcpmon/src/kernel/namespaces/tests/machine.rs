//! A made-up machine. Its links have the text that the kernel's have, and lead nowhere; mounted
//! namespaces are other kinds of namespaces of this process, since an ordinary user has no second
//! network namespace at hand.

use super::super::search::Places;
use super::super::{Changes, ContainerNames, Namespace, Namespaces, Scope};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct Machine {
    /// What is mounted, held open: a mount holds a namespace's file, a link does not.
    mounted: Vec<fs::File>,
    folder: tempfile::TempDir,
    pub(super) now: Instant,
    pub(super) containers: Arc<ContainerNames>,
    pub(super) namespaces: Namespaces,
}

/// A cgroup of Docker; the id begins with `digit` twelve times.
pub(super) fn docker(digit: char) -> String {
    format!("0::/system.slice/docker-{}.scope\n", digit.to_string().repeat(64))
}

/// A cgroup of no container.
pub(super) const PLAIN: &str = "0::/system.slice/cron.service\n";

impl Machine {
    pub(super) fn new() -> Self {
        Self::with_most(usize::MAX)
    }

    /// A machine of which so many namespaces are followed.
    pub(super) fn with_most(most: usize) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["proc/self/ns", "proc/1/ns", "run/netns", "run/docker"] {
            fs::create_dir_all(path(name)).expect(name);
        }
        for process in ["proc/self", "proc/1"] {
            symlink("/proc/self/ns/net", path(process).join("ns/net")).expect(process);
        }
        let places = Places { proc: path("proc"), folders: vec![path("run/netns")] };
        let containers = ContainerNames::new();
        let namespaces = Namespaces::with_places(Scope::All, places, Arc::clone(&containers), most);
        let mounted = Vec::new();
        Self { mounted, folder, now: Instant::now(), containers, namespaces }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn process(&self, pid: u32, inode: u32, cgroup: &str) {
        let folder = self.path(&format!("proc/{pid}"));
        fs::create_dir_all(folder.join("ns")).expect("process");
        let _before = fs::remove_file(folder.join("ns/net"));
        symlink(format!("net:[{inode}]"), folder.join("ns/net")).expect("link");
        fs::write(folder.join("cgroup"), cgroup).expect("cgroup");
    }

    pub(super) fn end(&self, pid: u32) {
        fs::remove_dir_all(self.path(&format!("proc/{pid}"))).expect("process");
    }

    /// Mounts this process's namespace of some kind, and returns its number.
    pub(super) fn mount(&mut self, name: &str, kind: &str) -> u32 {
        let target = Path::new("/proc/self/ns").join(kind);
        self.mounted.push(fs::File::open(&target).expect(kind));
        symlink(&target, self.path(name)).expect(name);
        let inode = fs::metadata(target).expect(kind).ino();
        u32::try_from(inode).expect("a namespace's number")
    }

    /// Writes the table of mounts.
    pub(super) fn table(&self, mounts: &[(u32, &str)]) {
        let lines = mounts.iter().map(|(inode, name)| {
            let path = self.path(name);
            format!("43 42 0:4 net:[{inode}] {} rw shared:2 - nsfs nsfs rw\n", path.display())
        });
        fs::write(self.path("proc/self/mountinfo"), lines.collect::<String>()).expect("table");
    }

    pub(super) fn pass_after(&mut self, seconds: u64) -> Changes {
        self.now += Duration::from_secs(seconds);
        self.namespaces.refresh(self.now)
    }

    pub(super) fn pass(&mut self) -> Changes {
        self.pass_after(10)
    }

    pub(super) fn get(&self, inode: u32) -> &Namespace {
        self.namespaces.get(inode).expect("a namespace that can be reached")
    }

    pub(super) fn name(&self, inode: u32) -> Option<String> {
        self.containers.name(inode).as_deref().map(str::to_owned)
    }

    /// The ways to a namespace, below the machine's folder.
    pub(super) fn ways(&self, inode: u32) -> Vec<&str> {
        let short = |path: &'_ PathBuf| -> &str {
            let path = self.get(inode).ways.iter().find(|it| *it == path).expect("a way");
            path.strip_prefix(self.folder.path()).expect("below").to_str().expect("text")
        };
        self.get(inode).ways.iter().map(short).collect()
    }
}
