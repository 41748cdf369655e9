//! How sockets enter and leave the time-wait table, told by their timers.
//!
//! The table's sockets live by their timers, so starts less cancellations are its size
//! (`inet_twsk_schedule()` and `inet_twsk_kill()` in net/ipv4/inet_timewait_sock.c). Why a timer is
//! cancelled shows in what follows on the same CPU, before any other event of a time-wait socket
//! there:
//!
//! - expiry: `timer_expire_entry` of the same timer (`expire_timers()` in kernel/time/timer.c);
//! - set anew, when a segment comes: `timer_start` of the same timer, under the same lock
//!   (`__mod_timer()`); where the new time falls into the same slot of the wheel, nothing at all;
//! - taken over by connect(): the socket is out of the table of connections already;
//! - killed: none of these.

use crate::{
    cells,
    kernel::{constant, now},
    maps::{DEPARTURE, NAMESPACES},
    owner::{STRANGER, service_key},
    record::{self, Ends},
    sockets::{self, Place},
    tally,
    time_wait::{Netns, TimeWait},
};
use tcpmon_common::{
    CellKey, Counters, DURATION_UNKNOWN, Departure, Ending, Family, Owner, Present, ServiceKey,
    Socket, TcpState, TimeWaits, flags, kind,
};

const TIME_WAIT: u8 = TcpState::TimeWait.number();
const CLOSE: u8 = TcpState::Close.number();

#[inline(always)]
pub(crate) fn is_watched(netns: u32) -> bool {
    let only = constant!(only_netns);
    only == 0 || only == u64::from(netns)
}

/// A socket enters the table, or its timer is set anew.
///
/// Not inlined, as the other two are not: the probe would save registers and find its stack for
/// every timer of the system, before it knows whose it is.
#[inline(never)]
pub(crate) fn started(counters: &mut Counters, entering: TimeWait) {
    let netns = entering.netns();
    if !is_watched(netns.inode) {
        return;
    }
    let Some(departure) = DEPARTURE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value; timers are started with interrupts off.
    let departure = unsafe { &mut *departure };
    departure.reused = 0;
    let cookie = entering.cookie();
    // The cookie too: the memory of a socket that was killed may be another's by now.
    let rearmed = departure.address == entering.address() && departure.cookie == cookie;
    let counts = tally::time_waits(counters, netns);
    let mut is_nameless = false;
    if rearmed {
        stay(counters, departure);
        departure.address = 0;
    } else {
        settle(counters, departure, counts);
        is_nameless = !enter(counters, entering, cookie, netns);
    }
    if let Some(counts) = counts {
        // SAFETY: this CPU's own value.
        unsafe {
            (*counts).started += 1;
            (*counts).rearmed += u64::from(rearmed);
            (*counts).nameless += u64::from(is_nameless);
        }
    }
}

/// Nothing else has become of the socket whose timer was cancelled last: it was killed. `counts`:
/// those of a namespace, which mostly is that socket's too.
#[inline(always)]
fn settle(counters: &mut Counters, departure: &mut Departure, counts: Option<*mut TimeWaits>) {
    if !departure.is_open() {
        return;
    }
    tally::time_wait_end(counters, departure.family, departure.duration_ns);
    departure.address = 0;
    let is_its = |counts: &*mut TimeWaits| {
        // SAFETY: a pointer to a map's value. Another namespace may have the number by now.
        unsafe { (**counts).net_cookie == departure.net_cookie }
    };
    let counts =
        counts.filter(is_its).or_else(|| NAMESPACES.get_ptr_mut(departure.netns).filter(is_its));
    if let Some(counts) = counts {
        // SAFETY: this CPU's own value.
        unsafe { (*counts).killed += 1 };
    }
}

/// Notes that a socket is in the table; its own `-> CLOSE` follows. False where its owner could not
/// be counted.
#[inline(always)]
fn enter(counters: &mut Counters, entering: TimeWait, cookie: u64, netns: Netns) -> bool {
    let substate = if entering.is_in_fin_wait2() { flags::SUBSTATE_FIN_WAIT2 } else { 0 };
    let mut service = ServiceKey::default();
    if let Some(place) = kept(cookie) {
        // SAFETY: pointers to a map's value. This runs inside the transition that ends the full
        // socket, so nobody else writes to it.
        let (socket, owner) = unsafe { (&mut *place.present, &*place.owner) };
        socket.flags |= substate;
        if socket.flags & flags::OWNER_KNOWN != 0 {
            service = service_key(owner, true);
        }
        // Of one that is older than the probes it is not known which side it is: the daemon's own
        // list of sockets has to tell.
        socket.by_state = if socket.flags & (flags::ACTIVE | flags::PASSIVE) == 0 {
            0
        } else {
            cells::enter(&cell_key(entering, service, netns, socket.flags))
        };
        socket.state = TIME_WAIT;
    } else if cookie != 0 {
        let present = Present {
            since_ns: 0,
            sport: entering.local_port(),
            state: TIME_WAIT,
            flags: substate,
            by_state: 0,
        };
        if !sockets::put(cookie, &Socket { owner: STRANGER, present }) {
            counters.losses.time_waits += 1;
        }
    }
    tally::entered(counters, service, netns)
}

/// What a socket that enters has in common with others.
#[inline(always)]
fn cell_key(entering: TimeWait, service: ServiceKey, netns: Netns, role: u8) -> CellKey {
    let family = entering.family();
    let (saddr, daddr) = entering.addresses(family);
    let is_passive = role & flags::PASSIVE != 0;
    let side = if is_passive {
        kind::PASSIVE
    } else if role & (flags::ACTIVE | flags::PORT_WANTED) == flags::ACTIVE {
        kind::BOUND
    } else {
        0
    };
    let timestamps = if entering.has_timestamps() { kind::TIMESTAMPS } else { 0 };
    CellKey {
        saddr,
        daddr,
        service,
        net_cookie: netns.cookie,
        netns: netns.inode,
        dport: if is_passive { 0 } else { entering.remote_port() },
        family: family as u8,
        kind: TIME_WAIT | side | timestamps,
    }
}

/// Takes back what [`cancelled`] did: the socket is still there.
#[inline(always)]
fn stay(counters: &mut Counters, departure: &Departure) {
    if departure.kept != 0 {
        cells::stay(departure.socket.present.by_state);
    }
    if departure.kept != 0 && !sockets::put(departure.cookie, &departure.socket) {
        counters.losses.time_waits += 1;
    }
    amend(departure.cookie, departure.address, Ending::Rearmed);
}

/// A socket leaves the table, unless its timer is set anew at once.
#[inline(never)]
pub(crate) fn cancelled(counters: &mut Counters, leaving: TimeWait) {
    let netns = leaving.netns();
    if !is_watched(netns.inode) {
        return;
    }
    let Some(departure) = DEPARTURE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value; timers are cancelled with interrupts off.
    let departure = unsafe { &mut *departure };
    let counts = tally::time_waits(counters, netns);
    settle(counters, departure, counts);
    departure.reused = 0;
    let reused = leaving.is_taken_over();
    if let Some(counts) = counts {
        // SAFETY: this CPU's own value.
        unsafe {
            (*counts).cancelled += 1;
            (*counts).reused += u64::from(reused);
        }
    }
    let ts_ns = now();
    let cookie = leaving.cookie();
    let family = leaving.family();
    departure.ts_ns = ts_ns;
    departure.cookie = cookie;
    departure.duration_ns = DURATION_UNKNOWN;
    departure.netns = netns.inode;
    departure.net_cookie = netns.cookie;
    departure.family = family as u8;
    departure.kept = 0;
    let mut role = 0;
    let mut owner: *const Owner = &raw const STRANGER;
    if let Some(place) = kept(cookie)
        // A socket that connects again keeps its cookie: then this is what is kept of the new
        // connection.
        // SAFETY: a pointer to a map's value.
        && unsafe { (*place.present).state } == TIME_WAIT
    {
        // SAFETY: pointers to maps' values, to which nobody else writes any more.
        unsafe { sockets::read(&place, &raw mut departure.socket) };
        cells::leave(departure.socket.present.by_state);
        departure.kept = 1;
        owner = &raw const departure.socket.owner;
        role = departure.socket.present.flags & !flags::ENDING;
        if departure.socket.present.since_ns != 0 {
            departure.duration_ns = ts_ns.saturating_sub(departure.socket.present.since_ns);
        }
        sockets::remove(cookie);
    }
    let ending = if reused {
        tally::time_wait_end(counters, departure.family, departure.duration_ns);
        departure.reused = leaving.address();
        Ending::Reused
    } else {
        departure.address = leaving.address();
        Ending::Cancelled
    };
    let edge = (TIME_WAIT, CLOSE, role | ending.flags());
    let identity = identity(cookie, leaving.address());
    record::put(true, ts_ns, identity, departure.duration_ns, edge, owner, || {
        let (saddr, daddr) = leaving.addresses(family);
        let (sport, dport) = (leaving.local_port(), leaving.remote_port());
        Ends { saddr, daddr, netns: netns.inode, sport, dport, family }
    });
}

/// The timer that was cancelled just now did expire.
#[inline(never)]
pub(crate) fn expired(counters: &mut Counters, leaving: TimeWait) {
    let netns = leaving.netns();
    if !is_watched(netns.inode) {
        return;
    }
    let Some(departure) = DEPARTURE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value; of the timers' probes, none can interrupt another that deals
    // with a time-wait socket, since softirqs do not nest.
    let departure = unsafe { &mut *departure };
    if departure.reused == leaving.address() {
        // It expired while it was being taken over, and was counted so.
        departure.reused = 0;
        return;
    }
    let known = departure.address == leaving.address();
    if known {
        tally::time_wait_end(counters, departure.family, departure.duration_ns);
        departure.address = 0;
    }
    if let Some(counts) = tally::time_waits(counters, netns) {
        // SAFETY: this CPU's own value. Where another socket came between (which takes a kernel
        // whose softirqs can be preempted), this one was taken for killed.
        unsafe {
            (*counts).expired += 1;
            (*counts).killed -= u64::from(!known);
        }
    }
    amend(leaving.cookie(), leaving.address(), Ending::Expired);
}

/// What is kept of a socket. One that is older than the probes may have no cookie, and nobody can
/// give it one here.
#[inline(always)]
fn kept(cookie: u64) -> Option<Place> {
    if cookie == 0 { None } else { sockets::find(cookie) }
}

/// What joins the records of one socket: its cookie, or where it has none its address, which is
/// larger than any cookie.
#[inline(always)]
fn identity(cookie: u64, address: u64) -> u64 {
    if cookie == 0 { address } else { cookie }
}

/// Tells the reader what became of the `time_wait -> close` of that socket.
#[inline(always)]
fn amend(cookie: u64, address: u64, ending: Ending) {
    let ts_ns = now();
    let edge = (TIME_WAIT, CLOSE, ending.flags());
    let identity = identity(cookie, address);
    record::put(false, ts_ns, identity, DURATION_UNKNOWN, edge, &raw const STRANGER, || Ends {
        saddr: [0; 16],
        daddr: [0; 16],
        netns: 0,
        sport: 0,
        dport: 0,
        family: Family::Ipv4,
    });
}
