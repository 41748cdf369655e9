//! Tests of the names of cgroups: a made-up hierarchy, and the kernel's own as root.

use super::*;
use std::hint::black_box;

/// A made-up machine: a folder that looks like proc(5), and folders that stand for hierarchies.
struct Machine {
    folder: tempfile::TempDir,
    now: Instant,
}

impl Machine {
    fn new(hierarchies: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mount = |(name, kind): &(&str, &str)| {
            let point = folder.path().join(name);
            fs::create_dir(&point).expect("hierarchy");
            format!("1 1 0:1 / {} rw - {kind}\n", point.display())
        };
        let mountinfo = hierarchies.iter().map(mount).collect::<Vec<_>>().concat();
        fs::create_dir_all(folder.path().join("proc/self")).expect("proc");
        fs::write(folder.path().join("proc/self/mountinfo"), mountinfo).expect("mountinfo");
        Self { folder, now: Instant::now() }
    }

    fn unified() -> Self {
        Self::new(&[("unified", "cgroup2 cgroup2 rw")])
    }

    fn names(&self) -> CgroupNames {
        let folder = self.folder.path();
        CgroupNames::at(&folder.join("proc"), &folder.join("links"))
    }

    /// Makes a cgroup and tells its id.
    fn cgroup(&self, path: &str) -> u64 {
        let path = self.folder.path().join(path);
        fs::create_dir_all(&path).expect("cgroup");
        fs::metadata(&path).expect("cgroup").ino()
    }

    fn remove(&self, path: &str) {
        fs::remove_dir(self.folder.path().join(path)).expect("remove");
    }

    /// Makes a process that started a second after boot.
    fn process(&self, pid: u32, cgroup: &str) {
        let folder = self.folder.path().join("proc").join(pid.to_string());
        fs::create_dir(&folder).expect("process");
        fs::write(folder.join("cgroup"), cgroup).expect("cgroup");
        let ticks = rustix::param::clock_ticks_per_second();
        let stat = format!("{pid} (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0\n");
        fs::write(folder.join("stat"), stat).expect("stat");
    }

    /// Time passes.
    fn later(&mut self, seconds: u64) -> Instant {
        self.now += Duration::from_secs(seconds);
        self.now
    }
}

fn member(cgroup_id: u64) -> Member {
    Member { cgroup_id, comm: Comm::truncated(b"worker"), ..Member::default() }
}

#[test]
fn a_cgroup_is_found_and_remembered_when_it_has_gone() {
    let mut machine = Machine::unified();
    let api = machine.cgroup("unified/system.slice/api.service");
    let deep = machine.cgroup("unified/user.slice/user-1.slice/user@1.service/app.slice/a.service");
    let plain = machine.cgroup("unified/plain");
    let mut names = machine.names();
    let mut service = |id, now| names.service(&member(id), now).expect("a name").to_string();
    assert_eq!(service(api, machine.now), "api.service");
    assert_eq!(service(deep, machine.now), "a.service");
    assert_eq!(service(plain, machine.now), "worker");
    assert_eq!(service(0, machine.now), "worker");
    machine.remove("unified/system.slice/api.service");
    let now = machine.later(60);
    assert_eq!(service(u64::MAX, now), "worker");
    assert_eq!(service(api, now), "api.service");
}

/// By its cgroup, and by its process where no hierarchy is to be seen.
#[test]
fn a_container_of_a_pod_has_the_name_that_its_link_has() {
    let mut machine = Machine::unified();
    let (uid, id) = ("6bd0b0c6-9d8c-4e4c-8c5a-0d6e3c3d5f11", "ab".repeat(32));
    let path = format!("kubepods/pod{uid}/{id}");
    let nginx = machine.cgroup(&format!("unified/{path}"));
    machine.process(42, &format!("0::/{path}\n"));
    let pod = machine.cgroup(&format!("unified/kubepods/pod{uid}"));
    let mut names = machine.names();
    let service = |names: &mut CgroupNames, id, now| {
        names.service(&member(id), now).expect("a name").to_string()
    };
    assert_eq!(service(&mut names, nginx, machine.now), "abababababab");
    assert_eq!(service(&mut names, pod, machine.now), format!("pod{uid}"));

    let links = machine.folder.path().join("links");
    fs::create_dir(&links).expect("a folder");
    let target = format!("/nowhere/pods/shop_web_{uid}/nginx/0.log");
    std::os::unix::fs::symlink(target, links.join(format!("web_shop_nginx-{id}.log")))
        .expect("link");
    let now = machine.later(2);
    names.refresh(now);
    assert_eq!(service(&mut names, nginx, now), "shop/web/nginx");
    assert_eq!(service(&mut names, pod, now), "shop/web");
    let process = Member { pid: 42, birth_ns: 1_000_000_000, ..member(0) };
    assert_eq!(names.service(&process, now).as_deref(), Some("shop/web/nginx"));
}

#[test]
fn an_unknown_id_is_looked_for_once_a_second_and_then_left_alone() {
    let mut machine = Machine::unified();
    let mut names = machine.names();
    let mut service = |id, now| names.service(&member(id), now).expect("a name").to_string();
    assert_eq!(service(u64::MAX, machine.now), "worker");
    let first = machine.cgroup("unified/first.service");
    assert_eq!(service(first, machine.now), "worker", "walked again at once");
    assert_eq!(service(first, machine.later(1)), "first.service");
    // A number that is a cgroup's only later: negative answers last, but not for ever.
    let spare = machine.cgroup("spare");
    assert_eq!(service(spare, machine.later(1)), "worker");
    let folder = machine.folder.path();
    fs::rename(folder.join("spare"), folder.join("unified/spare.service")).expect("rename");
    assert_eq!(service(spare, machine.later(5)), "worker");
    assert_eq!(service(spare, machine.later(5)), "spare.service");
}

#[test]
fn hierarchies_have_ids_of_their_own() {
    let machine = Machine::new(&[
        ("unified", "cgroup2 cgroup2 rw"),
        ("memory", "cgroup cgroup rw,memory"),
        ("cpu", "cgroup cgroup rw,cpu"),
    ]);
    let unified = machine.cgroup("unified/new.service");
    let memory = machine.cgroup("memory/old.service");
    let cpu = machine.cgroup("cpu/none.service");
    let mut names = machine.names();
    let mut service =
        |id, v1| names.service(&Member { v1, ..member(id) }, machine.now).map(|it| it.to_string());
    assert_eq!(service(unified, false).as_deref(), Some("new.service"));
    assert_eq!(service(memory, true).as_deref(), Some("old.service"));
    assert_eq!(service(memory, false).as_deref(), Some("worker"));
    assert_eq!(service(unified, true).as_deref(), Some("worker"));
    assert_eq!(service(cpu, true).as_deref(), Some("worker"));
}

#[test]
fn a_mount_of_a_part_shows_its_place_in_the_whole() {
    let machine = Machine::new(&[]);
    let point = machine.folder.path().join("part");
    let inner = machine.cgroup("part/init.scope");
    let top = machine.cgroup("part");
    let line = format!("1 1 0:1 /lxc.payload.web {} rw - cgroup2 cgroup2 rw\n", point.display());
    fs::write(machine.folder.path().join("proc/self/mountinfo"), line).expect("mountinfo");
    let mut names = machine.names();
    for id in [inner, top] {
        assert_eq!(names.service(&member(id), machine.now).as_deref(), Some("web"));
    }
}

#[test]
fn a_living_process_tells_what_the_cgroup_does_not() {
    let mut machine = Machine::new(&[
        ("unified", "cgroup2 cgroup2 rw"),
        ("systemd", "cgroup cgroup rw,name=systemd"),
    ]);
    let root = machine.cgroup("unified");
    machine.process(7, "1:name=systemd:/system.slice/api.service\n0::/\n");
    let mut names = machine.names();
    let of = |pid, birth_ns, cgroup_id| Member { pid, birth_ns, ..member(cgroup_id) };
    let mut service = |member, now| names.service(&member, now).map(|name| name.to_string());
    for cgroup in [root, u64::MAX, 0] {
        let name = service(of(7, 1_000_000_000, cgroup), machine.now);
        assert_eq!(name.as_deref(), Some("api.service"), "{cgroup}");
        // Another process that had the same pid, and one that is not known.
        for (pid, birth_ns) in [(7, 5_000_000_000), (0, 0), (8, 1_000_000_000)] {
            let name = service(of(pid, birth_ns, cgroup), machine.now);
            assert_eq!(name.as_deref(), Some("worker"), "{cgroup}");
        }
    }
    fs::remove_dir_all(machine.folder.path().join("proc/7")).expect("end");
    let now = machine.later(60);
    assert_eq!(service(of(7, 1_000_000_000, root), now).as_deref(), Some("api.service"));
}

#[test]
fn looking_at_processes_is_rationed() {
    let mut machine = Machine::unified();
    let mut names = machine.names();
    let of = |pid| Member { pid, birth_ns: 1_000_000_000, ..member(0) };
    for pid in 1..=PROCESSES_PER_SECOND {
        names.service(&of(pid), machine.now);
    }
    let last = PROCESSES_PER_SECOND + 1;
    machine.process(last, "0::/late.service\n");
    assert_eq!(names.service(&of(last), machine.now).as_deref(), Some("worker"));
    assert_eq!(names.service(&of(last), machine.later(1)).as_deref(), Some("late.service"));
}

#[test]
fn a_name_without_bytes_is_no_name() {
    let machine = Machine::new(&[]);
    assert_eq!(machine.names().service(&Member::default(), machine.now), None);
}

#[test]
fn refreshing_learns_cgroups_before_they_are_asked_for() {
    let mut machine = Machine::unified();
    let brief = machine.cgroup("unified/brief.service");
    let mut names = machine.names();
    names.refresh(machine.now);
    machine.remove("unified/brief.service");
    let now = machine.later(5);
    assert_eq!(names.service(&member(brief), now).as_deref(), Some("brief.service"));
}

/// Removes a cgroup when the test ends, however it ends.
struct RealCgroup(PathBuf);

impl Drop for RealCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// As root, on the machine's own hierarchies; an ordinary user cannot make cgroups there.
#[test]
fn the_kernel_s_own_hierarchies_are_found() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make a cgroup");
        return;
    }
    let mounts = CgroupNames::new().mounts;
    for (mount, v1) in [(mounts.unified, false), (mounts.v1, true)] {
        let Some(mount) = mount else { continue };
        let name = format!("tcpmon-test-{}.service", std::process::id());
        let cgroup = RealCgroup(mount.point.join(&name));
        if let Err(error) = fs::create_dir(&cgroup.0) {
            eprintln!("skipped: {}: {error}", cgroup.0.display());
            continue;
        }
        let id = fs::metadata(&cgroup.0).expect("cgroup").ino();
        let mut names = CgroupNames::new();
        let now = Instant::now();
        let member = Member { v1, ..member(id) };
        assert_eq!(names.service(&member, now).as_deref(), Some(name.as_str()));
        drop(cgroup);
        let now = now + 2 * MISSING_FOR;
        assert_eq!(names.service(&member, now).as_deref(), Some(name.as_str()));
        let other = Member { cgroup_id: id ^ 1 << 40, ..member };
        assert_eq!(names.service(&other, now).as_deref(), Some("worker"));
    }
}

/// `cargo test --release -p tcpmon -- --ignored --nocapture service_name_speed`
#[test]
#[ignore = "a measurement, of use in a release build only"]
fn service_name_speed() {
    const ROUNDS: u32 = 5_000_000;
    let mut machine = Machine::unified();
    let ids: Vec<_> = (0..1_000)
        .map(|number| machine.cgroup(&format!("unified/system.slice/unit-{number}.service")))
        .collect();
    let mut names = machine.names();
    let start = Instant::now();
    names.refresh(machine.now);
    println!("walk of {} cgroups: {:?}", ids.len(), start.elapsed());
    for (what, id) in [("cgroup", ids[0]), ("comm", 0)] {
        let now = machine.later(1);
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(names.service(black_box(&member(id)), now));
        }
        println!("hit by {what}: {} ns", start.elapsed().as_nanos() / u128::from(ROUNDS));
    }
}
