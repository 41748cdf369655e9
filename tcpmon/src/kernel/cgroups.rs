//! Names of services, from the cgroup ids that the probes tell.
//!
//! A cgroup's id is the inode number of its directory, but nothing leads from the number to the
//! path except looking (`open_by_handle_at` would, at the price of `CAP_DAC_READ_SEARCH`). So the
//! hierarchy is walked when an id is not known, at most once a second, and what was found is
//! kept, also for cgroups that have gone since.

use std::fs;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcpmon_common::{ServiceKey, Transition, flags};

use super::mountinfo::{CgroupMount, CgroupMounts};
use super::pods::{self, PodNames};
use super::proc_cgroup::service_of_process;
use super::recent::Recent;
use crate::model::comm::Comm;
use crate::model::service::service_name;

/// How often a hierarchy is walked at most.
const WALK_INTERVAL: Duration = Duration::from_secs(1);
/// How long an id that a walk did not find is not looked for again.
const MISSING_FOR: Duration = Duration::from_secs(10);
/// How many cgroups a walk looks at; the deepest of more are not found.
const WALK_LIMIT: usize = 16_384;
/// How many cgroups are remembered: both hierarchies, and as many that have gone.
const CGROUPS: usize = 4 * WALK_LIMIT;
/// How many processes, and how many process names, are remembered.
const PROCESSES: usize = 16_384;
/// How many processes a second are looked up in /proc, at some 20 us each.
const PROCESSES_PER_SECOND: u32 = 500;

/// What the probes tell of the owner of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Id of the cgroup; 0 where not known.
    pub cgroup_id: u64,
    /// The id is of a version 1 hierarchy.
    pub v1: bool,
    /// Process id; 0 where not known.
    pub pid: u32,
    /// Start of the process, nanoseconds of `CLOCK_BOOTTIME`; 0 where not known.
    pub birth_ns: u64,
    /// Name of the process.
    pub comm: Comm,
}

impl Member {
    /// The owner in a record; `None` where the record has none.
    #[must_use]
    pub fn of_record(record: &Transition) -> Option<Self> {
        (record.flags & flags::OWNER_KNOWN != 0).then(|| Self {
            cgroup_id: record.cgroup_id,
            v1: record.flags & flags::CGROUP_V1 != 0,
            pid: record.pid,
            birth_ns: record.birth_ns,
            comm: Comm::from_padded(&record.comm),
        })
    }

    /// The owner in a map's key, which tells no process; `None` where the owner is not known.
    #[must_use]
    pub fn of_key(key: &ServiceKey) -> Option<Self> {
        (key.known != 0).then(|| Self {
            cgroup_id: key.cgroup_id,
            v1: key.cgroup_v1 != 0,
            comm: Comm::from_padded(&key.comm),
            ..Self::default()
        })
    }
}

#[derive(Clone, Debug)]
enum Found {
    /// The cgroup is or was there, and names this service.
    Named(Arc<str>),
    /// The cgroup is or was there, and names none.
    Nameless,
    /// A walk did not find it; look again then.
    Missing(Instant),
}

/// Names services, and remembers the names.
///
/// Every method is given the present time, so that a caller with many events asks the clock once.
#[derive(Debug)]
pub struct CgroupNames {
    proc: PathBuf,
    mounts: CgroupMounts,
    pods: PodNames,
    cgroups: Recent<(u64, bool), Found>,
    processes: Recent<(u32, u64), Option<Arc<str>>>,
    comms: Recent<Comm, Arc<str>>,
    /// When the unified hierarchy and version 1's were last walked.
    walked: [Option<Instant>; 2],
    /// Since when processes are counted, and how many were looked up since.
    lookups: Option<(Instant, u32)>,
}

impl CgroupNames {
    /// A resolver for this machine. Where no hierarchy is mounted, or none can be read, it knows
    /// services by their processes.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new("/proc"), Path::new(pods::LINKS))
    }

    fn at(proc: &Path, links: &Path) -> Self {
        let mountinfo = fs::read(proc.join("self/mountinfo")).unwrap_or_default();
        Self {
            proc: proc.to_owned(),
            pods: PodNames::new(links),
            mounts: CgroupMounts::parse(&mountinfo),
            cgroups: Recent::new(CGROUPS),
            processes: Recent::new(PROCESSES),
            comms: Recent::new(PROCESSES),
            walked: [None; 2],
            lookups: None,
        }
    }

    /// The service a person would name: the systemd unit or container, else the process's name;
    /// `None` where even that is empty.
    pub fn service(&mut self, member: &Member, now: Instant) -> Option<Arc<str>> {
        let of_process = match self.find(member.cgroup_id, member.v1, now) {
            Some(Found::Named(name)) => return Some(name),
            // Only another hierarchy could say more.
            Some(Found::Nameless) => self.mounts.any_v1,
            Some(Found::Missing(_)) | None => true,
        };
        if of_process && let Some(name) = self.service_by_process(member, now) {
            return Some(name);
        }
        self.service_by_comm(member.comm)
    }

    /// As [`Self::service`], but looks for the cgroup now, however lately the hierarchy was walked.
    pub fn service_surely(&mut self, member: &Member, now: Instant) -> Option<Arc<str>> {
        if self.find(member.cgroup_id, member.v1, now).is_none() {
            self.walked[usize::from(member.v1)] = None;
        }
        self.service(member, now)
    }

    /// Walks both hierarchies, so that cgroups that will be gone when their id is asked for are
    /// known by then. Once a second at most; what is walked already is not walked again.
    pub fn refresh(&mut self, now: Instant) {
        for v1 in [false, true] {
            self.walk(v1, now);
        }
    }

    /// `None` where the id is not known and the hierarchy was walked too lately.
    fn find(&mut self, id: u64, v1: bool, now: Instant) -> Option<Found> {
        let key = (id, v1);
        match self.cgroups.get(&key) {
            Some(Found::Missing(until)) if now >= until => {}
            None if id != 0 => {}
            known => return known,
        }
        if !self.walk(v1, now) {
            return None;
        }
        if let Some(found @ (Found::Named(_) | Found::Nameless)) = self.cgroups.get(&key) {
            return Some(found);
        }
        let missing = Found::Missing(now + MISSING_FOR);
        self.cgroups.insert(key, missing.clone());
        Some(missing)
    }

    /// Notes every cgroup of the hierarchy; false if it was walked less than a second ago.
    fn walk(&mut self, v1: bool, now: Instant) -> bool {
        let walked = &mut self.walked[usize::from(v1)];
        if walked.is_some_and(|walked| now.duration_since(walked) < WALK_INTERVAL) {
            return false;
        }
        *walked = Some(now);
        let mount = if v1 { &self.mounts.v1 } else { &self.mounts.unified };
        if let Some(mount) = mount {
            let (cgroups, pods) = (&mut self.cgroups, &mut self.pods);
            walk(mount, &mut |id, path| {
                let found = name_of(pods, path, now).map_or(Found::Nameless, |name| {
                    Found::Named(match cgroups.get(&(id, v1)) {
                        Some(Found::Named(known)) if known == name => known,
                        _ => name,
                    })
                });
                cgroups.insert((id, v1), found);
            });
        }
        true
    }

    fn service_by_process(&mut self, member: &Member, now: Instant) -> Option<Arc<str>> {
        if member.pid == 0 || member.birth_ns == 0 {
            return None;
        }
        let key = (member.pid, member.birth_ns);
        if let Some(known) = self.processes.get(&key) {
            return known;
        }
        let (since, count) = match self.lookups {
            Some((since, count)) if now.duration_since(since) < WALK_INTERVAL => (since, count),
            _ => (now, 0),
        };
        if count >= PROCESSES_PER_SECOND {
            return None;
        }
        self.lookups = Some((since, count + 1));
        let pods = &mut self.pods;
        let name = service_of_process(&self.proc, member.pid, member.birth_ns, |path| {
            name_of(pods, path, now)
        });
        self.processes.insert(key, name.clone());
        name
    }

    fn service_by_comm(&mut self, comm: Comm) -> Option<Arc<str>> {
        if comm.is_empty() {
            return None;
        }
        if let Some(name) = self.comms.get(&comm) {
            return Some(name);
        }
        let name: Arc<str> = comm.to_string_lossy().into();
        self.comms.insert(comm, Arc::clone(&name));
        Some(name)
    }
}

impl Default for CgroupNames {
    fn default() -> Self {
        Self::new()
    }
}

/// What the path of a cgroup means: the kubelet knows its containers best.
fn name_of(pods: &mut PodNames, path: &str, now: Instant) -> Option<Arc<str>> {
    pods.service(path, now).or_else(|| service_name(path).map(Arc::from))
}

/// Calls `found` with the id and the path of the cgroups of a hierarchy, the upper ones first.
fn walk(mount: &CgroupMount, found: &mut dyn FnMut(u64, &str)) {
    let Ok(top) = fs::metadata(&mount.point) else { return };
    found(top.ino(), &mount.root);
    let root = mount.root.trim_end_matches('/').to_owned();
    let mut level = vec![(mount.point.clone(), root)];
    let mut seen = 1;
    while !level.is_empty() {
        let mut next = Vec::new();
        for (folder, path) in level {
            // Cgroups go while we look: what cannot be read is passed over.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if seen == WALK_LIMIT {
                    return;
                }
                seen += 1;
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                found(entry.ino(), &path);
                // Most cgroups have no children, as their link count tells (`kernfs_refresh_inode`,
                // fs/kernfs/inode.c), and reading their tens of files would be most of the work.
                if entry.metadata().is_ok_and(|metadata| metadata.nlink() != 2) {
                    next.push((entry.path(), path));
                }
            }
        }
        level = next;
    }
}

#[cfg(test)]
#[path = "cgroups_tests.rs"]
mod tests;
