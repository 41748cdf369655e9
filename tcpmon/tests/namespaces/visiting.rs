//! Into a namespace and back.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use rustix::thread::CapabilitySet;
use tcpmon::kernel::namespaces::{Namespace, Place};
use tcpmon::kernel::visit::{VisitError, Visitor, cookie_of_this_thread};

use crate::place::{Alone, Mounted, Named, capable, inode};

fn namespace(inode: u32, ways: &[PathBuf]) -> Namespace {
    Namespace { inode, ways: ways.to_vec(), pid: None, place: Place::Process, container: None }
}

/// The namespace that this thread is in.
fn here() -> u32 {
    inode("/proc/thread-self/ns/net")
}

#[test]
fn by_every_way_and_home_again() {
    let (named, alone, mounted) = (Named::new(), Alone::new(), Mounted::new());
    let visitor = Visitor::new().expect("a visitor");
    let home = here();
    assert_eq!(visitor.home(), home);
    let mut cookies = vec![cookie_of_this_thread().expect("a cookie")];
    for path in [named.path(), alone.path(), mounted.path.clone()] {
        // The first way leads nowhere any more, the second elsewhere.
        let ways = ["/proc/0/ns/net".into(), "/proc/self/ns/net".into(), path.clone()];
        let there = namespace(inode(&path), &ways);
        let (inside, cookie) =
            visitor.visit(&there, || (here(), cookie_of_this_thread())).expect("a visit");
        assert_eq!((inside, here()), (there.inode, home));
        cookies.push(cookie.expect("a cookie"));
    }
    let all = cookies.len();
    cookies.sort_unstable();
    cookies.dedup();
    assert_eq!(cookies.len(), all, "each has its own");
}

#[test]
fn home_again_after_a_panic() {
    let named = Named::new();
    let there = namespace(named.inode(), &[named.path()]);
    let visitor = Visitor::new().expect("a visitor");
    let home = here();
    let ended = catch_unwind(AssertUnwindSafe(|| visitor.visit(&there, || panic!("on purpose"))));
    assert!(ended.is_err());
    assert_eq!(here(), home);
    assert_eq!(visitor.visit(&there, here).expect("another visit"), there.inode);
}

#[test]
fn never_another_than_was_meant() {
    let (named, other) = (Named::new(), Named::new());
    let visitor = Visitor::new().expect("a visitor");
    // The path has another namespace by now.
    let there = namespace(other.inode(), &[named.path()]);
    let refused = visitor.visit(&there, here);
    assert!(matches!(refused, Err(VisitError::Gone(inode)) if inode == there.inode), "{refused:?}");
    // One that has ended.
    let there = namespace(other.inode(), &[other.path()]);
    drop(other);
    let refused = visitor.visit(&there, here);
    assert!(matches!(refused, Err(VisitError::Gone(_))), "{refused:?}");
}

#[test]
fn nobody_waits_where_a_pipe_lies_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    crate::place::run(&["mkfifo", pipe.to_str().expect("text")]);
    let visitor = Visitor::new().expect("a visitor");
    let refused = visitor.visit(&namespace(7, &[pipe]), here);
    assert!(matches!(refused, Err(VisitError::Gone(7))), "{refused:?}");
}

#[test]
fn what_is_missing_is_said() {
    let (named, alone) = (Named::new(), Alone::new());
    let visitor = Visitor::new().expect("a visitor");
    let home = namespace(visitor.home(), &[]);
    capable(CapabilitySet::SYS_ADMIN, false);
    let refused = visitor.visit(&namespace(named.inode(), &[named.path()]), here);
    let text = refused.expect_err("no right to enter").to_string();
    assert!(text.contains("CAP_SYS_ADMIN, or start"), "{text}");
    assert_eq!(visitor.visit(&home, here).expect("home needs none"), visitor.home());
    capable(CapabilitySet::SYS_ADMIN, true);

    let there = namespace(alone.inode(), &[alone.path()]);
    capable(CapabilitySet::SYS_PTRACE, false);
    let refused = visitor.visit(&there, here);
    let text = refused.expect_err("no right to look").to_string();
    assert!(text.contains("CAP_SYS_PTRACE, or start"), "{text}");
    capable(CapabilitySet::SYS_PTRACE, true);
    assert_eq!(visitor.visit(&there, here).expect("a visit"), there.inode);
}

#[test]
fn who_cannot_come_home_says_so_until_it_can() {
    let (named, other) = (Named::new(), Named::new());
    let visitor = Visitor::new().expect("a visitor");
    let there = namespace(named.inode(), &[named.path()]);
    let stuck = visitor.visit(&there, || capable(CapabilitySet::SYS_ADMIN, false));
    assert!(
        matches!(stuck, Err(VisitError::Stranded { inode, .. }) if inode == there.inode),
        "{stuck:?}"
    );
    assert_eq!(here(), there.inode);
    for next in [&namespace(other.inode(), &[other.path()]), &namespace(visitor.home(), &[])] {
        let refused = visitor.visit(next, here);
        assert!(matches!(refused, Err(VisitError::Stranded { .. })), "{refused:?}");
    }
    capable(CapabilitySet::SYS_ADMIN, true);
    let next = namespace(other.inode(), &[other.path()]);
    assert_eq!(visitor.visit(&next, here).expect("a visit"), other.inode());
    assert_eq!(here(), visitor.home());
}

#[test]
fn a_visitor_holds_nothing_but_its_home() {
    let named = Named::new();
    let visitor = Visitor::new().expect("a visitor");
    let there = namespace(named.inode(), &[named.path()]);
    visitor.visit(&there, || ()).expect("a visit");
    let open = fs::read_dir("/proc/thread-self/fd").expect("descriptors").flatten();
    let link = format!("net:[{}]", there.inode);
    let held = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    assert_eq!(held.filter(|it| it.as_os_str() == link.as_str()).count(), 0);
}
