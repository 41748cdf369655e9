//! What is put on the rings: records of transitions, filled in place.

use crate::{kernel::Sock, owner::copy_comm, ring};
use tcpmon_common::{Address, Family, Owner, flags};

/// A transition on its way onto the ring.
pub(crate) struct Observed {
    pub(crate) sock: Sock,
    pub(crate) cookie: u64,
    pub(crate) ts_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) sport: u16,
    pub(crate) old: u8,
    pub(crate) new: u8,
    pub(crate) flags: u8,
}

/// Where a socket is: its namespace, and both ends.
pub(crate) struct Ends {
    pub(crate) saddr: Address,
    pub(crate) daddr: Address,
    pub(crate) netns: u32,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) family: Family,
}

/// Puts a transition on the ring, if anybody listens; it is asked for only then.
#[inline(always)]
pub(crate) fn report(observed: impl FnOnce() -> Observed, owner: *const Owner) {
    if ring::is_wanted() {
        tell(&observed(), owner);
    }
}

/// Puts a transition on the ring. For the kernel a function of its own: where nobody listens, what
/// makes the transition need not be put together.
#[inline(never)]
fn tell(observed: &Observed, owner: *const Owner) {
    let &Observed { sock, cookie, ts_ns, duration_ns, sport, old, new, flags } = observed;
    write(true, ts_ns, cookie, duration_ns, (old, new, flags), owner, || {
        let (saddr, daddr) = sock.addresses();
        let (netns, dport, family) = (sock.netns(), sock.remote_port(), sock.family);
        Ends { saddr, daddr, netns, sport, dport, family }
    });
}

/// Puts a record on the ring, if anybody listens; `ends` is asked only then. `is_event`: it tells
/// of an event, and does not only add to a record that went before.
#[inline(always)]
pub(crate) fn put(
    is_event: bool,
    ts_ns: u64,
    cookie: u64,
    duration_ns: u64,
    edge: (u8, u8, u8),
    owner: *const Owner,
    ends: impl FnOnce() -> Ends,
) {
    if ring::is_wanted() {
        write(is_event, ts_ns, cookie, duration_ns, edge, owner, ends);
    }
}

/// Puts a record on the ring; `ends` is asked only if there is room.
#[inline(always)]
fn write(
    is_event: bool,
    ts_ns: u64,
    cookie: u64,
    duration_ns: u64,
    (old, new, flags): (u8, u8, u8),
    owner: *const Owner,
    ends: impl FnOnce() -> Ends,
) {
    let Some(claim) = ring::claim(is_event) else { return };
    let record = claim.record();
    let Ends { saddr, daddr, netns, sport, dport, family } = ends();
    // SAFETY: `record` points to a map's value that is nobody else's now, and every member is
    // written; `owner` points to a map's value, to a static or to the stack.
    unsafe {
        let owner = &*owner;
        let version1 = if owner.cgroup_v1 != 0 { flags::CGROUP_V1 } else { 0 };
        (&raw mut (*record).ts_ns).write(ts_ns);
        (&raw mut (*record).cookie).write(cookie);
        (&raw mut (*record).duration_ns).write(duration_ns);
        (&raw mut (*record).cgroup_id).write(owner.cgroup_id);
        (&raw mut (*record).birth_ns).write(owner.birth_ns);
        (&raw mut (*record).saddr).write(saddr);
        (&raw mut (*record).daddr).write(daddr);
        copy_comm(&raw const owner.comm, &raw mut (*record).comm);
        (&raw mut (*record).netns).write(netns);
        (&raw mut (*record).pid).write(owner.pid);
        (&raw mut (*record).sport).write(sport);
        (&raw mut (*record).dport).write(dport);
        (&raw mut (*record).family).write(family as u8);
        (&raw mut (*record).old).write(old);
        (&raw mut (*record).new).write(new);
        (&raw mut (*record).flags).write(flags | version1);
    }
    ring::submit(&claim);
}
