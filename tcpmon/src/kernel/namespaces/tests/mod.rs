//! Finding and following namespaces, on made-up machines and on this one.

mod machine;

use super::*;
use machine::{Machine, PLAIN, docker};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

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
fn nothing_has_gone_because_proc_cannot_be_read() {
    let mut machine = Machine::new();
    machine.process(40, 7, PLAIN);
    machine.pass();
    fs::rename(machine.path("proc"), machine.path("elsewhere")).expect("moved");
    for _ in 0..3 {
        assert_eq!(machine.pass(), Changes::default());
        assert!(machine.namespaces.get(7).is_some(), "it can be reached as before");
    }
    fs::rename(machine.path("elsewhere"), machine.path("proc")).expect("moved");
    let changes = machine.pass();
    assert_eq!((changes.arrived, changes.departed), (vec![], vec![]));
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
    machine.namespaces.per_pass = 10;
    for pid in 40..=55 {
        machine.process(pid, if pid == 55 { 8 } else { 7 }, PLAIN);
    }
    let changes = machine.pass();
    assert_eq!((changes.processes, changes.complete), (10, false));
    assert_eq!(changes.arrived, [7]);
    assert!(!machine.namespaces.is_due(machine.now));
    assert!(machine.namespaces.is_due(machine.now + Duration::from_secs(1)));
    let changes = machine.pass_after(1);
    assert_eq!((changes.processes, changes.complete), (7, true), "process 1 included");
    assert_eq!(changes.arrived, [8]);
    assert!(!machine.namespaces.is_due(machine.now + Duration::from_secs(1)), "nothing to do");
    // Halves of a round miss nothing.
    for _ in 0..3 {
        let changes = machine.pass();
        assert_eq!((changes.arrived, changes.departed), (vec![], vec![]));
    }
}

#[test]
fn many_processes_make_passes_rarer() {
    let mut machine = Machine::new();
    machine.pass();
    let _unknown = machine.name(99);
    machine.namespaces.passed = Some((machine.now, PROCESSES_PER_PASS));
    assert!(!machine.namespaces.is_due(machine.now + Duration::from_secs(4)));
    assert!(machine.namespaces.is_due(machine.now + Duration::from_secs(5)));
}

#[test]
fn a_name_that_comes_or_goes_is_reason_for_a_pass() {
    let mut machine = Machine::new();
    machine.pass();
    let after =
        |machine: &Machine| machine.namespaces.is_due(machine.now + Duration::from_millis(60));
    assert!(!after(&machine));
    machine.namespaces.stamps = vec![None];
    assert!(after(&machine) && !machine.namespaces.is_due(machine.now));
    machine.pass();
    assert!(!after(&machine));
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
fn of_more_than_are_followed_the_rest_waits_until_one_has_gone() {
    let mut machine = Machine::with_most(3);
    for pid in 41..=45 {
        machine.process(pid, pid, PLAIN);
    }
    let changes = machine.pass();
    assert_eq!(changes.arrived, [41, 42], "the third place is the host's");
    let beyond: Vec<u32> = machine.namespaces.beyond().iter().copied().collect();
    assert_eq!(beyond, [43, 44, 45]);
    assert!(machine.pass().arrived.is_empty());
    for pid in [41, 45] {
        machine.end(pid);
    }
    assert!(machine.pass().departed.is_empty(), "one round may miss it");
    let changes = machine.pass();
    assert_eq!((changes.departed, changes.arrived), (vec![41], vec![43]));
    assert_eq!(changes.waited, [43], "which may be older than we are");
    let beyond: Vec<u32> = machine.namespaces.beyond().iter().copied().collect();
    assert_eq!(beyond, [44]);
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
    let mut namespaces = Namespaces::new(Scope::All, ContainerNames::new(), usize::MAX);
    let changes = namespaces.refresh(Instant::now());
    assert!(changes.processes > 0);
    assert!(namespaces.reachable().any(|it| u64::from(it.inode) == own));
}
