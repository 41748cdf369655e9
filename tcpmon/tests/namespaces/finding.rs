//! Which namespaces there are, and what they are called.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::CapabilitySet;
use tcpmon::kernel::namespaces::{Changes, ContainerNames, Namespaces, Place, Scope};
use tcpmon::kernel::netns::NetnsNames;

use crate::place::{Alone, Cgroup, Mounted, Named, capable, host, inode};

/// A follower of namespaces, and its time.
struct Follower {
    namespaces: Namespaces,
    containers: Arc<ContainerNames>,
    now: Instant,
}

impl Follower {
    fn new() -> Self {
        let containers = ContainerNames::new();
        let namespaces = Namespaces::new(Scope::All, Arc::clone(&containers), usize::MAX);
        Self { namespaces, containers, now: Instant::now() }
    }

    /// A whole round, however many passes that takes.
    fn round(&mut self) -> Changes {
        let mut all = Changes::default();
        while !all.complete {
            self.now += Duration::from_secs(10);
            let changes = self.namespaces.refresh(self.now);
            all.arrived.extend(changes.arrived);
            all.departed.extend(changes.departed);
            all.complete = changes.complete;
        }
        all
    }
}

#[test]
fn by_name_by_process_and_by_mount() {
    let (named, alone, mounted) = (Named::new(), Alone::new(), Mounted::new());
    let mut follower = Follower::new();
    let changes = follower.round();
    for inode in [named.inode(), alone.inode(), inode(&mounted.path), host()] {
        assert!(changes.arrived.contains(&inode), "{inode} is not in {changes:?}");
    }
    let get = |inode| follower.namespaces.get(inode).expect("a namespace");

    let of_host = get(host());
    assert_eq!(of_host.place, Place::Host);
    assert!(of_host.pid.is_some(), "{of_host:?}");
    let of_name = get(named.inode());
    assert_eq!((of_name.place, of_name.pid), (Place::Named, None));
    assert_eq!(of_name.ways, [named.path()]);
    let of_process = get(alone.inode());
    assert_eq!((of_process.place, of_process.pid), (Place::Process, Some(alone.pid())));
    assert_eq!(of_process.ways, [alone.path()]);
    let of_mount = get(inode(&mounted.path));
    assert_eq!((of_mount.place, of_mount.pid), (Place::Mounted, None));
    assert_eq!(of_mount.ways, [mounted.path.as_path()]);

    // They are the same at every look, the mounted ones too.
    let ours = [named.inode(), alone.inode(), inode(&mounted.path), host()];
    for _ in 0..3 {
        let changes = follower.round();
        for inode in ours {
            assert!(!changes.arrived.contains(&inode), "{inode} is new again");
            assert!(!changes.departed.contains(&inode), "{inode} has gone");
        }
    }
}

#[test]
fn one_that_ends_departs_and_nobody_holds_it() {
    let (named, alone, mounted) = (Named::new(), Alone::new(), Mounted::new());
    let inodes = [named.inode(), alone.inode(), inode(&mounted.path)];
    let mut follower = Follower::new();
    follower.round();
    let open = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let held: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    for inode in inodes {
        let link = format!("net:[{inode}]");
        assert!(held.iter().all(|it| it.as_os_str() != link.as_str()), "{link} is open");
    }
    drop((named, alone, mounted));
    // Their numbers may be others' by now, which departs and arrives at once.
    let mut departed = follower.round().departed;
    departed.extend(follower.round().departed);
    for inode in inodes {
        assert!(departed.contains(&inode), "{inode} is not in {departed:?}");
    }
}

#[test]
fn one_of_the_same_name_is_another() {
    let named = Named::new();
    let mut follower = Follower::new();
    follower.round();
    let (name, before) = (named.0.clone(), named.inode());
    drop(named);
    let named = Named::called(name);
    let first = follower.round();
    assert!(first.arrived.contains(&named.inode()), "{first:?}");
    // At once if the kernel gave the number anew, for it cannot be two namespaces.
    let second = follower.round();
    assert!(first.departed.contains(&before) || second.departed.contains(&before), "{before}");
    assert_eq!(first.departed.contains(&named.inode()), before == named.inode());
}

#[test]
fn who_may_not_look_at_a_process_is_told_so() {
    let (named, alone) = (Named::new(), Alone::new());
    let mut follower = Follower::new();
    capable(CapabilitySet::SYS_PTRACE, false);
    let changes = follower.namespaces.refresh(follower.now);
    capable(CapabilitySet::SYS_PTRACE, true);
    assert!(changes.refused > 0, "{changes:?}");
    assert!(follower.namespaces.get(alone.inode()).is_none());
    assert!(follower.namespaces.get(named.inode()).is_some(), "a name is open to all");
}

#[test]
fn a_container_has_its_short_id() {
    // Another id for each run, so that two at a time do not meet.
    let id = format!("{:08x}{:056x}", std::process::id(), 0xabc);
    let cgroup = Cgroup::new(&format!("docker-{id}.scope"));
    let alone = Alone::in_cgroup(Some(&cgroup.0));
    let plain = Alone::new();
    let mut follower = Follower::new();
    let mut names = NetnsNames::new(Arc::clone(&follower.containers));
    let number = alone.inode().to_string();
    assert_eq!(&*names.name(alone.inode(), follower.now), number, "before the first pass");

    follower.round();
    let found = follower.namespaces.get(alone.inode()).expect("a namespace");
    assert_eq!(found.container.as_deref(), Some(&id[..12]));
    assert_eq!(found.pid, Some(alone.pid()));
    assert_eq!(&*names.name(alone.inode(), follower.now), &id[..12]);
    assert!(names.is_named(alone.inode(), &id[..12], follower.now));
    assert_eq!(&*names.name(plain.inode(), follower.now), plain.inode().to_string());
    assert_eq!(&*names.name(host(), follower.now), "host");
    // Its process must have ended before its cgroup can be removed.
    drop(alone);
}
