//! Names of namespaces on made-up machines, and of this one.

use super::*;
use std::os::unix::fs::symlink;

/// A made-up machine, whose namespaces are other kinds of namespaces of this process: an
/// ordinary user has no second network namespace at hand.
struct Machine {
    folder: tempfile::TempDir,
    now: Instant,
    containers: Arc<ContainerNames>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["proc/self/ns", "proc/1/ns", "run/netns"] {
            fs::create_dir_all(folder.path().join(name)).expect(name);
        }
        let containers = ContainerNames::new();
        let machine = Self { folder, now: Instant::now(), containers };
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
        NetnsNames::with_folders(
            path("proc"),
            vec![path("run/netns"), path("var/run/netns")],
            Arc::clone(&self.containers),
        )
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
    assert_eq!(known.keys().map(|it| &**it).collect::<Vec<_>>(), ["alias-of-host", "blue", "host"]);
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
fn a_container_names_what_has_no_other_name() {
    let mut machine = Machine::new();
    let host = machine.link("proc/1/ns/net", "mnt");
    let blue = machine.link("run/netns/blue", "uts");
    let mut names = machine.names();
    assert_eq!(&*names.name(7, machine.now), "7", "no pass yet");
    let container = |name: &str| Some(name.into());
    let pass = [
        (host, container("a")),
        (blue, container("b")),
        (7, container("c")),
        (8, container("blue")),
        (9, None),
    ];
    machine.containers.publish(pass.into_iter(), true);
    let now = machine.later(1);
    let expected = [(host, "host"), (blue, "blue"), (7, "c"), (8, "8"), (9, "9"), (10, "10")];
    for (inode, name) in expected {
        assert_eq!(&*names.name(inode, now), name);
        assert!(names.is_named(inode, name, now));
    }
    assert_eq!(names.inode("c", now), Some(7));
    assert_eq!(names.inode("blue", now), Some(blue));
    assert!(machine.containers.is_wanted(), "10 was not known");
}

#[test]
fn this_process_is_in_a_namespace() {
    let own = namespace(Path::new("/proc/self/ns/net")).expect("net").1;
    let mut names = NetnsNames::new(ContainerNames::new());
    let name = names.name(own, Instant::now());
    assert_eq!(names.inode(&name, Instant::now()), Some(own));
}
