//! What a transition does to what is known of its socket.

use crate::{
    kernel::{Process, Sock},
    maps::{EMBRYO, EMBRYOS, LISTENERS},
    owner::{STRANGER, copy_comm, owner, service_key},
    ring, sockets,
    tally::{self, BPF_NOEXIST},
};
use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_ns};
use aya_log_ebpf::warn;
use tcpmon_common::{
    Counters, DURATION_UNKNOWN, Embryo, FailureKey, Owner, Socket, TcpState, flags,
};

const ESTABLISHED: u8 = TcpState::Established.number();
const SYN_SENT: u8 = TcpState::SynSent.number();
const SYN_RECV: u8 = TcpState::SynRecv.number();
const CLOSE: u8 = TcpState::Close.number();
const LISTEN: u8 = TcpState::Listen.number();

/// Flag of `bpf_map_update_elem`: insert or replace.
const BPF_ANY: u64 = 0;

/// A transition on its way into the counters and onto the ring.
struct Observed {
    sock: Sock,
    cookie: u64,
    ts_ns: u64,
    duration_ns: u64,
    sport: u16,
    old: u8,
    new: u8,
    flags: u8,
}

/// Takes note of one transition of one socket.
#[inline(always)]
pub(crate) fn observe<C: EbpfContext>(
    ctx: &C,
    counters: &mut Counters,
    sock: Sock,
    old: u8,
    new: u8,
) {
    tally::transition(counters, sock.family as u8, old, new);
    // SAFETY: the helper takes nothing.
    let ts_ns = unsafe { bpf_ktime_get_ns() };
    if old == LISTEN && new == SYN_RECV {
        accepted(ctx, counters, sock, ts_ns);
    } else if new == SYN_SENT || new == LISTEN {
        opened(ctx, counters, sock, ts_ns, old, new);
    } else {
        moved(ctx, counters, sock, ts_ns, old, new);
    }
}

/// `CLOSE -> SYN_SENT` and `CLOSE -> LISTEN`: they run in the caller's process, and only they do
/// for certain, so this is where the owner is learnt.
#[inline(always)]
fn opened<C: EbpfContext>(
    ctx: &C,
    counters: &mut Counters,
    sock: Sock,
    ts_ns: u64,
    old: u8,
    new: u8,
) {
    let (owner, known) = owner(Process::current());
    let sport = sock.held_port();
    let role = if new == SYN_SENT { flags::ACTIVE } else { flags::PASSIVE };
    let wanted = if new == SYN_SENT && sport == 0 { flags::PORT_WANTED } else { 0 };
    let socket = Socket {
        owner,
        since_ns: ts_ns,
        sport,
        state: new,
        flags: known | role | wanted,
        stale_sport: sock.last_port(),
        reserved: 0,
    };
    let cookie = sock.cookie();
    if new == LISTEN && LISTENERS.insert(sock.listener_mark(), &socket.owner, BPF_ANY).is_err() {
        counters.losses.listeners += 1;
    }
    keep(ctx, counters, cookie, &socket);
    report(
        &Observed {
            sock,
            cookie,
            ts_ns,
            duration_ns: DURATION_UNKNOWN,
            sport,
            old,
            new,
            flags: socket.flags,
        },
        &raw const socket.owner,
    );
}

/// `LISTEN -> SYN_RECV`: a socket cloned from its listener, whose owner it inherits.
#[inline(always)]
fn accepted<C: EbpfContext>(ctx: &C, counters: &mut Counters, sock: Sock, ts_ns: u64) {
    let (owner, known) = match LISTENERS.get_ptr(sock.listener_mark()) {
        Some(owner) => (owner, flags::OWNER_KNOWN),
        None => (&raw const STRANGER, 0),
    };
    // SAFETY: points to a map's value or to a static.
    let owner = unsafe { &*owner };
    // Through Linux 6.12 `inet_csk_clone_lock()` reports the state before it sets the addresses
    // and the cookie.
    if sock.remote_port() == 0 {
        let known = u64::from(known);
        park(&Embryo { sock: sock.address(), since_ns: ts_ns, owner: *owner, known });
    } else {
        conceive(ctx, counters, sock, sock.cookie(), owner, known, ts_ns);
    }
}

/// Begins to keep an accepted socket, and reports its `LISTEN -> SYN_RECV`.
#[inline(always)]
fn conceive<C: EbpfContext>(
    ctx: &C,
    counters: &mut Counters,
    sock: Sock,
    cookie: u64,
    owner: &Owner,
    known: u8,
    ts_ns: u64,
) {
    let socket = Socket {
        owner: *owner,
        since_ns: ts_ns,
        sport: sock.last_port(),
        state: SYN_RECV,
        flags: flags::PASSIVE | known,
        stale_sport: 0,
        reserved: 0,
    };
    keep(ctx, counters, cookie, &socket);
    report(
        &Observed {
            sock,
            cookie,
            ts_ns,
            duration_ns: DURATION_UNKNOWN,
            sport: socket.sport,
            old: LISTEN,
            new: SYN_RECV,
            flags: socket.flags,
        },
        &raw const socket.owner,
    );
}

/// What is kept of a socket that makes a transition, if it is kept.
#[inline(always)]
fn kept<C: EbpfContext>(
    ctx: &C,
    counters: &mut Counters,
    sock: Sock,
    cookie: u64,
    old: u8,
) -> Option<*mut Socket> {
    let socket = sockets::find(cookie);
    if socket.is_some() || old != SYN_RECV {
        return socket;
    }
    let embryo = unpark(sock)?;
    conceive(ctx, counters, sock, cookie, &embryo.owner, embryo.known as u8, embryo.since_ns);
    sockets::find(cookie)
}

/// Any other transition: of a socket that is kept, or is older than the probes.
#[inline(always)]
fn moved<C: EbpfContext>(
    ctx: &C,
    counters: &mut Counters,
    sock: Sock,
    ts_ns: u64,
    old: u8,
    new: u8,
) {
    let cookie = sock.cookie();
    let mut observed = Observed {
        sock,
        cookie,
        ts_ns,
        duration_ns: DURATION_UNKNOWN,
        sport: sock.last_port(),
        old,
        new,
        flags: 0,
    };
    let caller;
    let mut opener = &raw const STRANGER;
    if let Some(socket) = kept(ctx, counters, sock, cookie, old) {
        // SAFETY: a pointer to a map's value. Transitions of one socket are serialised by its
        // lock, so nobody else writes to it.
        let socket = unsafe { &mut *socket };
        opener = &raw const socket.owner;
        observed.flags = socket.flags;
        if socket.since_ns != 0 {
            observed.duration_ns = ts_ns.saturating_sub(socket.since_ns);
            tally::duration(counters, old, observed.duration_ns);
        }
        if old == SYN_SENT && new == CLOSE && found_no_port(sock, socket) {
            observed.sport = 0;
            observed.flags |= flags::PORT_EXHAUSTED;
        }
        socket.since_ns = ts_ns;
        socket.state = new;
        socket.sport = observed.sport;
    } else if old == SYN_SENT && new == CLOSE && observed.sport == 0 && sock.error() == 0 {
        // A connect() that found no port, of a socket that is not kept: this runs inside the
        // failing call.
        (caller, observed.flags) = owner(Process::current());
        observed.flags |= flags::ACTIVE | flags::PORT_EXHAUSTED;
        opener = &raw const caller;
    } else if new != CLOSE {
        let socket = Socket {
            owner: STRANGER,
            since_ns: ts_ns,
            sport: observed.sport,
            state: new,
            flags: 0,
            stale_sport: 0,
            reserved: 0,
        };
        keep(ctx, counters, cookie, &socket);
    }
    if new == ESTABLISHED || observed.flags & flags::PORT_EXHAUSTED != 0 {
        // SAFETY: points to a map's value, to a static or to the stack.
        let key = service_key(unsafe { &*opener }, observed.flags & flags::OWNER_KNOWN != 0);
        if new == ESTABLISHED {
            tally::connection(counters, &key, is_passive(&observed));
        } else {
            let (saddr, daddr) = sock.addresses();
            tally::port_failure(
                counters,
                &FailureKey {
                    saddr,
                    daddr,
                    service: key,
                    netns: sock.netns(),
                    dport: sock.remote_port(),
                    family: sock.family as u8,
                    reserved: 0,
                },
            );
        }
    }
    report(&observed, opener);
    if new == CLOSE {
        if old == LISTEN {
            let _ = LISTENERS.remove(sock.listener_mark());
        }
        sockets::remove(cookie);
    }
}

/// Which side a socket is that becomes ESTABLISHED; where its beginning was not seen, the state
/// that it comes from tells.
#[inline(always)]
fn is_passive(observed: &Observed) -> bool {
    match observed.flags & (flags::ACTIVE | flags::PASSIVE) {
        0 => observed.old == SYN_RECV,
        role => role & flags::PASSIVE != 0,
    }
}

/// Whether `SYN_SENT -> CLOSE` is a connect() that found no free port: the kernel had to choose
/// one, the port is still what it was before, and no error came from elsewhere (a reset, a
/// time-out). `tcp_v4_connect()` and `tcp_v6_connect()` close the socket so when
/// `inet_hash_connect()` fails, inside the caller's process.
#[inline(always)]
fn found_no_port(sock: Sock, socket: &Socket) -> bool {
    socket.flags & flags::PORT_WANTED != 0
        && sock.last_port() == socket.stale_sport
        && sock.error() == 0
}

/// Keeps what is known of a socket; tells the log the first time that there is no room.
#[inline(always)]
fn keep<C: EbpfContext>(ctx: &C, counters: &mut Counters, cookie: u64, socket: &Socket) {
    if !sockets::put(cookie, socket) {
        if counters.losses.sockets == 0 {
            warn!(ctx, "the socket map is full: some owners stay unknown; raise --max-sockets");
        }
        counters.losses.sockets += 1;
    }
}

/// Sets an accepted socket aside until its second transition.
#[inline(always)]
fn park(embryo: &Embryo) {
    let Some(slot) = EMBRYO.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value; softirqs, where sockets are cloned, do not nest.
    unsafe {
        if (*slot).sock != 0 {
            let _ = EMBRYOS.insert((*slot).sock, &*slot, BPF_ANY);
        }
        *slot = *embryo;
    }
}

/// Takes an accepted socket back that was set aside, if it was.
#[inline(always)]
fn unpark(sock: Sock) -> Option<Embryo> {
    let slot = EMBRYO.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value.
    unsafe {
        if (*slot).sock == sock.address() {
            let embryo = *slot;
            (*slot).sock = 0;
            return Some(embryo);
        }
    }
    let parked = EMBRYOS.get_ptr(sock.address())?;
    // SAFETY: a pointer to a map's value, which stays readable while the program runs.
    let embryo = unsafe { *parked };
    let _ = EMBRYOS.remove(sock.address());
    Some(embryo)
}

/// Puts a transition on the ring, if anybody listens.
#[inline(always)]
fn report(observed: &Observed, owner: *const Owner) {
    let Some(control) = ring::wanted() else { return };
    let Some(mut entry) = ring::reserve() else { return };
    let record = entry.as_mut_ptr();
    let sock = observed.sock;
    let (saddr, daddr) = sock.addresses();
    // SAFETY: `record` is as large as a `Transition`, and every member is written; `owner` points
    // to a map's value or to the stack.
    unsafe {
        let owner = &*owner;
        let version1 = if owner.cgroup_v1 != 0 { flags::CGROUP_V1 } else { 0 };
        (&raw mut (*record).ts_ns).write(observed.ts_ns);
        (&raw mut (*record).cookie).write(observed.cookie);
        (&raw mut (*record).duration_ns).write(observed.duration_ns);
        (&raw mut (*record).cgroup_id).write(owner.cgroup_id);
        (&raw mut (*record).birth_ns).write(owner.birth_ns);
        (&raw mut (*record).saddr).write(saddr);
        (&raw mut (*record).daddr).write(daddr);
        copy_comm(&raw const owner.comm, &raw mut (*record).comm);
        (&raw mut (*record).netns).write(sock.netns());
        (&raw mut (*record).pid).write(owner.pid);
        (&raw mut (*record).sport).write(observed.sport);
        (&raw mut (*record).dport).write(sock.remote_port());
        (&raw mut (*record).family).write(sock.family as u8);
        (&raw mut (*record).old).write(observed.old);
        (&raw mut (*record).new).write(observed.new);
        (&raw mut (*record).flags).write(observed.flags | version1);
    }
    ring::submit(entry, control, observed.ts_ns);
}

/// Keeps an open socket that is older than the probes, for what an owner's open file tells.
#[inline(always)]
pub(crate) fn adopt(sock: Sock, process: Process) {
    let state = sock.state();
    if state == CLOSE {
        return;
    }
    let (owner, known) = owner(process);
    let role = match state {
        LISTEN => flags::PASSIVE,
        SYN_SENT => flags::ACTIVE,
        _ => 0,
    };
    let cookie = sock.cookie();
    let socket = Socket {
        owner,
        since_ns: 0,
        sport: sock.last_port(),
        state,
        flags: known | role,
        stale_sport: 0,
        reserved: 0,
    };
    if state == LISTEN {
        let _ = LISTENERS.insert(sock.listener_mark(), &socket.owner, BPF_NOEXIST);
    }
    match sockets::find(cookie) {
        None => {
            sockets::put(cookie, &socket);
        }
        // What the tracepoint has learnt in the meantime is better, but it may not have learnt
        // the owner.
        // SAFETY: a pointer to a map's value; the tracepoint writes neither of these members
        // again.
        Some(kept) => unsafe {
            if (*kept).flags & flags::OWNER_KNOWN == 0 {
                (*kept).owner = socket.owner;
                (*kept).flags |= known | role;
            }
        },
    }
    if sock.state() == CLOSE {
        sockets::remove(cookie);
        if state == LISTEN {
            let _ = LISTENERS.remove(sock.listener_mark());
        }
    }
}
