//! Finding and following namespaces on made-up machines. Their links have the text that the
//! kernel's have, and lead nowhere; mounted namespaces are other kinds of namespaces of this
//! process, since an ordinary user has no second network namespace at hand.

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

struct Machine {
    /// What is mounted, held open: a mount holds a namespace's file, a link does not.
    mounted: Vec<fs::File>,
    folder: tempfile::TempDir,
    now: Instant,
    containers: Arc<ContainerNames>,
    namespaces: Namespaces,
}

/// A cgroup of Docker; the id begins with `digit` twelve times.
fn docker(digit: char) -> String {
    format!("0::/system.slice/docker-{}.scope\n", digit.to_string().repeat(64))
}

const PLAIN: &str = "0::/system.slice/cron.service\n";

impl Machine {
    fn new() -> Self {
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
        let namespaces = Namespaces::with_places(Scope::All, places, Arc::clone(&containers));
        let mounted = Vec::new();
        Self { mounted, folder, now: Instant::now(), containers, namespaces }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn process(&self, pid: u32, inode: u32, cgroup: &str) {
        let folder = self.path(&format!("proc/{pid}"));
        fs::create_dir_all(folder.join("ns")).expect("process");
        let _before = fs::remove_file(folder.join("ns/net"));
        symlink(format!("net:[{inode}]"), folder.join("ns/net")).expect("link");
        fs::write(folder.join("cgroup"), cgroup).expect("cgroup");
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.path(&format!("proc/{pid}"))).expect("process");
    }

    /// Mounts this process's namespace of some kind, and returns its number.
    fn mount(&mut self, name: &str, kind: &str) -> u32 {
        let target = Path::new("/proc/self/ns").join(kind);
        self.mounted.push(fs::File::open(&target).expect(kind));
        symlink(&target, self.path(name)).expect(name);
        let inode = fs::metadata(target).expect(kind).ino();
        u32::try_from(inode).expect("a namespace's number")
    }

    /// Writes the table of mounts.
    fn table(&self, mounts: &[(u32, &str)]) {
        let lines = mounts.iter().map(|(inode, name)| {
            let path = self.path(name);
            format!("43 42 0:4 net:[{inode}] {} rw shared:2 - nsfs nsfs rw\n", path.display())
        });
        fs::write(self.path("proc/self/mountinfo"), lines.collect::<String>()).expect("table");
    }

    fn pass_after(&mut self, seconds: u64) -> Changes {
        self.now += Duration::from_secs(seconds);
        self.namespaces.refresh(self.now)
    }

    fn pass(&mut self) -> Changes {
        self.pass_after(10)
    }

    fn get(&self, inode: u32) -> &Namespace {
        self.namespaces.get(inode).expect("a namespace that can be reached")
    }

    fn name(&self, inode: u32) -> Option<String> {
        self.containers.name(inode).as_deref().map(str::to_owned)
    }

    /// The ways to a namespace, below the machine's folder.
    fn ways(&self, inode: u32) -> Vec<&str> {
        let short = |path: &'_ PathBuf| -> &str {
            let path = self.get(inode).ways.iter().find(|it| *it == path).expect("a way");
            path.strip_prefix(self.folder.path()).expect("below").to_str().expect("text")
        };
        self.get(inode).ways.iter().map(short).collect()
    }
}

#[test]
fn found_in_processes_and_among_mounts() {
    let mut machine = Machine::new();
    machine.process(40, 7, PLAIN);
    for pid in [12, 9, 100, 11, 10] {
        machine.process(pid, 8, PLAIN);
    }
    let blue = machine.mount("run/netns/blue", "uts");
    machine.process(50, blue, PLAIN);
    let sandbox = machine.mount("run/docker/1", "ipc");
    // The same place twice, one that does not have that number any more, and one that is nowhere.
    machine.table(&[
        (sandbox, "run/docker/1"),
        (blue, "run/netns/blue"),
        (sandbox, "run/docker/1"),
        (99, "run/docker/1"),
        (98, "run/docker/none"),
    ]);
    fs::write(machine.path("run/netns/stale"), "").expect("stale");

    let changes = machine.pass();
    let mut all = vec![7, 8, blue, sandbox];
    all.sort_unstable();
    assert_eq!((changes.arrived, changes.departed), (all.clone(), vec![]));
    assert!(changes.complete);
    assert_eq!((changes.processes, changes.refused), (8, 0), "process 1 included");
    assert_eq!(machine.namespaces.reachable().map(|it| it.inode).collect::<Vec<_>>(), all);

    let of = |inode| (machine.get(inode).place, machine.get(inode).pid, machine.ways(inode));
    assert_eq!(of(7), (Place::Process, Some(40), vec!["proc/40/ns/net"]));
    let four = ["proc/9/ns/net", "proc/10/ns/net", "proc/11/ns/net", "proc/12/ns/net"];
    assert_eq!(of(8), (Place::Process, Some(9), four.to_vec()));
    assert_eq!(of(blue), (Place::Named, Some(50), vec!["run/netns/blue", "proc/50/ns/net"]));
    assert_eq!(of(sandbox), (Place::Mounted, None, vec!["run/docker/1"]));
    let again = machine.pass();
    assert_eq!((again.arrived, again.departed), (vec![], vec![]));
}

#[test]
fn gone_by_the_second_round_that_misses_it() {
    let mut machine = Machine::new();
    machine.process(40, 7, PLAIN);
    machine.pass();
    machine.end(40);
    assert!(machine.pass().departed.is_empty());
    assert!(machine.namespaces.get(7).is_none(), "nothing leads to it");
    // A process that the first round did not know yet.
    machine.process(41, 7, PLAIN);
    let changes = machine.pass();
    assert_eq!((changes.arrived, changes.departed), (vec![7], vec![7]), "by no way known before");
    machine.end(41);
    assert!(machine.pass().departed.is_empty());
    machine.process(41, 7, PLAIN);
    let changes = machine.pass();
    assert_eq!((changes.arrived, changes.departed), (vec![], vec![]), "by the way known before");
    machine.end(41);
    machine.pass();
    assert_eq!(machine.pass().departed, [7]);
    assert_eq!(machine.pass(), Changes { processes: 1, complete: true, ..Changes::default() });
}

#[test]
fn a_number_that_was_given_anew_is_another_namespace() {
    let mut machine = Machine::new();
    machine.process(40, 7, &docker('a'));
    let mounted = machine.mount("run/netns/blue", "uts");
    machine.table(&[(mounted, "run/netns/blue")]);
    machine.pass();
    assert_eq!(machine.name(7).as_deref(), Some("aaaaaaaaaaaa"));
    machine.end(40);
    machine.process(41, 7, &docker('b'));
    // The same path, but made at another time.
    let known = machine.namespaces.known.get_mut(&mounted).expect("mounted");
    known.ways.mounts[0] = search::Mounted::of_another_time(&known.ways.mounts[0]);
    let changes = machine.pass();
    let mut both = vec![7, mounted];
    both.sort_unstable();
    assert_eq!((changes.arrived, changes.departed), (both.clone(), both));
    assert_eq!(machine.name(7).as_deref(), Some("bbbbbbbbbbbb"));
}

#[test]
fn a_container_s_name_stays_while_the_namespace_lives() {
    let mut machine = Machine::new();
    // A pod: the sandbox, and its containers. Somebody looks into it from outside.
    machine.process(30, 7, PLAIN);
    machine.process(40, 7, &docker('a'));
    machine.process(50, 7, &docker('b'));
    machine.pass();
    assert_eq!(machine.name(7).as_deref(), Some("aaaaaaaaaaaa"), "the lowest pid");
    assert_eq!(machine.get(7).pid, Some(40));
    assert_eq!(machine.ways(7)[0], "proc/40/ns/net");
    assert_eq!(machine.containers.inode("aaaaaaaaaaaa"), Some(7));
    machine.process(20, 7, &docker('c'));
    machine.end(40);
    machine.pass();
    assert_eq!(machine.name(7).as_deref(), Some("aaaaaaaaaaaa"));
    assert_eq!(machine.get(7).pid, Some(20));
    // Missed by one round.
    for pid in [20, 30, 50] {
        machine.end(pid);
    }
    machine.pass();
    assert_eq!(machine.name(7).as_deref(), Some("aaaaaaaaaaaa"));
    machine.pass();
    assert_eq!(machine.name(7), None);
}

#[test]
fn a_mount_keeps_the_name_of_a_container_that_has_ended() {
    let mut machine = Machine::new();
    let sandbox = machine.mount("run/docker/1", "ipc");
    machine.table(&[(sandbox, "run/docker/1")]);
    machine.pass();
    assert_eq!((machine.name(sandbox), machine.get(sandbox).pid), (None, None));
    machine.process(40, sandbox, &docker('a'));
    machine.pass();
    assert_eq!(machine.name(sandbox).as_deref(), Some("aaaaaaaaaaaa"));
    machine.end(40);
    machine.pass();
    machine.pass();
    assert_eq!(machine.name(sandbox).as_deref(), Some("aaaaaaaaaaaa"));
    assert_eq!((machine.get(sandbox).place, machine.get(sandbox).pid), (Place::Mounted, None));
}

#[test]
fn no_two_namespaces_have_one_name() {
    let mut machine = Machine::new();
    machine.process(60, 7, &docker('a'));
    machine.process(50, 8, &docker('a'));
    machine.pass();
    assert_eq!(machine.name(8).as_deref(), Some("aaaaaaaaaaaa"), "the one with the lowest pid");
    assert_eq!(machine.name(7), None);
    machine.end(50);
    machine.pass();
    machine.pass();
    assert_eq!((machine.name(8), machine.name(7)), (None, None), "a name comes first or never");
}

#[test]
fn a_namespace_that_has_a_name_is_asked_for_no_container() {
    let mut machine = Machine::new();
    let blue = machine.mount("run/netns/blue", "uts");
    machine.process(40, blue, &docker('a'));
    machine.pass();
    assert_eq!(machine.name(blue), None);
    fs::remove_file(machine.path("run/netns/blue")).expect("blue");
    machine.pass();
    assert_eq!(machine.name(blue).as_deref(), Some("aaaaaaaaaaaa"));
}

#[test]
fn a_pass_is_bounded_and_a_round_goes_on_in_the_next() {
    let mut machine = Machine::new();
    let first = 10_000;
    let last = first + u32::try_from(PROCESSES_PER_PASS).expect("a number") + 10;
    for pid in first..=last {
        machine.process(pid, if pid == last { 8 } else { 7 }, PLAIN);
    }
    let changes = machine.pass();
    assert_eq!((changes.processes, changes.complete), (PROCESSES_PER_PASS, false));
    assert_eq!(changes.arrived, [7]);
    assert!(!machine.namespaces.is_due(machine.now));
    assert!(machine.namespaces.is_due(machine.now + Duration::from_secs(1)));
    let changes = machine.pass_after(1);
    assert_eq!((changes.processes, changes.complete), (12, true));
    assert_eq!(changes.arrived, [8]);
    assert!(!machine.namespaces.is_due(machine.now + Duration::from_secs(1)));
    // Halves of a round miss nothing.
    for _ in 0..3 {
        let changes = machine.pass();
        assert_eq!((changes.arrived, changes.departed), (vec![], vec![]));
    }
}

#[test]
fn passes_come_sooner_when_there_is_reason() {
    let mut machine = Machine::new();
    assert!(machine.namespaces.is_due(machine.now), "nothing is known");
    machine.process(40, 7, PLAIN);
    machine.pass();
    let after = |machine: &Machine, seconds| {
        machine.namespaces.is_due(machine.now + Duration::from_secs(seconds))
    };
    assert!(!after(&machine, 9) && after(&machine, 10));
    let _known = machine.name(7);
    assert!(!after(&machine, 9), "it is known, and that it is no container's");
    let _unknown = machine.name(99);
    assert!(!after(&machine, 0) && after(&machine, 1));
    machine.pass_after(1);
    let _unknown = machine.name(99);
    assert!(!after(&machine, 8) && after(&machine, 9), "once, and the regular one as ever");
    machine.end(40);
    machine.pass_after(9);
    assert!(!after(&machine, 0) && after(&machine, 1), "has it gone?");
}

#[test]
fn only_our_own() {
    let mut machine = Machine::new();
    machine.process(40, 7, PLAIN);
    machine.namespaces.scope = Scope::Own;
    let own = fs::metadata("/proc/self/ns/net").expect("net").ino();
    let own = u32::try_from(own).expect("a namespace's number");
    let changes = machine.pass();
    assert_eq!((changes.arrived, changes.processes), (vec![own], 0));
    assert_eq!(machine.get(own).place, Place::Host);
    assert!(machine.pass().arrived.is_empty());
}

#[test]
fn this_machine_has_the_namespace_of_this_process() {
    let own = fs::metadata("/proc/self/ns/net").expect("net").ino();
    let mut namespaces = Namespaces::new(Scope::All, ContainerNames::new());
    let changes = namespaces.refresh(Instant::now());
    assert!(changes.processes > 0);
    assert!(namespaces.reachable().any(|it| u64::from(it.inode) == own));
}
