//! What a transition does to what is known of its socket.
//!
//! Most transitions are of sockets that are kept, and cost least while the code for them stands
//! together. What happens once in a connection, or hardly ever, is a function of its own for the
//! kernel too, or marked as a cold path. Such a function takes five arguments at most, and through
//! Linux 6.12 the stacks of all that call each other may take 512 bytes together (`MAX_BPF_STACK`):
//! `cargo xtask vm` shows when they do not.

use crate::{
    accepted::{accepted, conceive, parked},
    kernel::{Process, Sock, constant, now},
    listeners,
    owner::{STRANGER, owner, service_key},
    record::{Observed, report},
    services,
    sockets::{self, Place},
    tally::{self, BPF_ANY, BPF_NOEXIST},
    timers::is_watched,
};
use aya_ebpf::EbpfContext;
use aya_log_ebpf::warn;
use core::hint::cold_path;
use tcpmon_common::{
    Counters, DURATION_UNKNOWN, FailureKey, Owner, Present, Socket, TcpState, flags,
};

const ESTABLISHED: u8 = TcpState::Established.number();
const SYN_SENT: u8 = TcpState::SynSent.number();
const SYN_RECV: u8 = TcpState::SynRecv.number();
const CLOSE: u8 = TcpState::Close.number();
const LISTEN: u8 = TcpState::Listen.number();
const FIN_WAIT1: u8 = TcpState::FinWait1.number();
const FIN_WAIT2: u8 = TcpState::FinWait2.number();
const CLOSE_WAIT: u8 = TcpState::CloseWait.number();
const LAST_ACK: u8 = TcpState::LastAck.number();
const CLOSING: u8 = TcpState::Closing.number();
const TIME_WAIT: u8 = TcpState::TimeWait.number();

/// Takes note of one transition of one socket.
#[inline(always)]
pub(crate) fn observe<C: EbpfContext>(
    ctx: &C,
    counters: &mut Counters,
    sock: Sock,
    old: u8,
    new: u8,
) {
    if old == LISTEN && new == SYN_RECV {
        tally::transition(counters, sock, (old, new), DURATION_UNKNOWN);
        accepted(ctx, counters, sock, now());
    } else if new == SYN_SENT || new == LISTEN {
        tally::transition(counters, sock, (old, new), DURATION_UNKNOWN);
        opened(ctx, counters, sock, &Edge { ts_ns: now(), old, new });
    } else {
        moved(ctx, counters, sock, old, new);
    }
}

/// When the transition of a socket happens whose old state began at `since_ns`, which is 0 where
/// that was not seen.
///
/// To read the clock takes a third of the time that all else here takes. Where a segment makes the
/// transition, or a timer, TCP has just done so itself: first of all `tcp_rcv_established()`,
/// `tcp_rcv_state_process()` (net/ipv4/tcp_input.c), `tcp_write_timer_handler()` and
/// `tcp_keepalive_timer()` (net/ipv4/tcp_timer.c) call `tcp_mstamp_refresh()`.
#[inline(always)]
fn when(sock: Sock, since_ns: u64, old: u8, new: u8) -> u64 {
    if since_ns != 0 && is_stamped(sock, old, new) {
        let stamp_ns = sock.stamp_ns();
        // Of a connection that is restored (`TCP_REPAIR`) the stamp is older than the state. It may
        // be as old, where one segment makes two transitions: in softirq their records are on one
        // ring, but a process may have been moved to another CPU in between.
        if stamp_ns > since_ns || stamp_ns == since_ns && !sock.is_owned() {
            return stamp_ns;
        }
        cold_path();
    }
    now()
}

/// Nanoseconds from one time to another; 0 where the clocks of two CPUs disagree. In fewer
/// instructions than `saturating_sub()` takes.
#[inline(always)]
fn elapsed(since_ns: u64, ts_ns: u64) -> u64 {
    let elapsed = ts_ns.wrapping_sub(since_ns);
    if (elapsed as i64) < 0 { 0 } else { elapsed }
}

/// Whether TCP has read the clock for what makes this transition.
#[inline(always)]
fn is_stamped(sock: Sock, old: u8, new: u8) -> bool {
    /// Only a segment leads into these (the peer's SYN or FIN, or what acknowledges ours), but for a
    /// connection that is restored.
    const INTO: u32 = 1 << ESTABLISHED | 1 << FIN_WAIT2 | 1 << CLOSE_WAIT | 1 << CLOSING;
    /// From these, a segment or a timer leads into CLOSE, or a system call, which owns the socket's
    /// lock (that of MPTCP's worker does not, but sends a reset first, for which TCP reads the clock);
    /// from others, also an ICMP message and the end of the listener.
    const CLOSED_FROM: u32 = 1 << FIN_WAIT1 | 1 << FIN_WAIT2 | 1 << CLOSING | 1 << LAST_ACK;
    let is_in = |state: u8, states: u32| 1 << (state & 15) & states != 0;
    is_in(new, INTO) || new == CLOSE && is_in(old, CLOSED_FROM) && !sock.is_owned()
}

/// Which transition, and when.
struct Edge {
    ts_ns: u64,
    old: u8,
    new: u8,
}

/// `CLOSE -> SYN_SENT` and `CLOSE -> LISTEN`: they run in the caller's process, and only they do
/// for certain, so this is where the owner is learnt.
#[inline(never)]
fn opened<C: EbpfContext>(ctx: &C, counters: &mut Counters, sock: Sock, edge: &Edge) {
    let &Edge { ts_ns, old, new } = edge;
    let (owner, known) = owner(Process::current());
    let sport = sock.held_port();
    let role = if new == SYN_SENT { flags::ACTIVE } else { flags::PASSIVE };
    let wanted = if new == SYN_SENT && sport == 0 { flags::PORT_WANTED } else { 0 };
    let present = Present {
        since_ns: ts_ns,
        sport,
        state: new,
        flags: known | role | wanted,
        by_state: u32::from(sock.last_port()),
    };
    let socket = Socket { owner, present };
    let cookie = sock.cookie();
    if new == LISTEN && !listeners::keep(sock.listener_mark(), &socket.owner, BPF_ANY) {
        counters.losses.listeners += 1;
    }
    keep(ctx, counters, cookie, &socket);
    report(
        || Observed {
            sock,
            cookie,
            ts_ns,
            duration_ns: DURATION_UNKNOWN,
            sport,
            old,
            new,
            flags: present.flags,
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
) -> Option<Place> {
    let socket = sockets::find(cookie);
    if socket.is_some() || old != SYN_RECV {
        return socket;
    }
    hatch(ctx, counters, sock, cookie);
    sockets::find(cookie)
}

/// Begins to keep an accepted socket that was set aside.
#[inline(never)]
fn hatch<C: EbpfContext>(ctx: &C, counters: &mut Counters, sock: Sock, cookie: u64) {
    let Some(parked) = parked(sock) else { return };
    // SAFETY: a pointer to a map's value, which stays readable. It stays this socket's unless an
    // interrupt sets another aside here, or a thousand are set aside meanwhile.
    let embryo = unsafe { &*parked.embryo };
    let inherited = (&embryo.owner, embryo.known as u8, embryo.service);
    conceive(ctx, counters, sock, cookie, inherited, embryo.since_ns);
    parked.let_go(sock);
}

/// Any other transition: of a socket that is kept, or is older than the probes.
#[inline(always)]
fn moved<C: EbpfContext>(ctx: &C, counters: &mut Counters, sock: Sock, old: u8, new: u8) {
    let cookie = sock.cookie();
    let (ts_ns, sport, mut seen);
    let mut duration_ns = DURATION_UNKNOWN;
    let mut flags = 0;
    let mut service = 0;
    let mut opener = &raw const STRANGER;
    seen = new;
    if let Some(place) = kept(ctx, counters, sock, cookie, old) {
        // SAFETY: a pointer to a map's value. Transitions of one socket are serialised by its
        // lock, so nobody else writes to it.
        let socket = unsafe { &mut *place.present };
        opener = place.owner.cast_const();
        ts_ns = when(sock, socket.since_ns, old, new);
        flags = socket.flags;
        if old == SYN_RECV && flags & flags::PASSIVE != 0 {
            service = socket.by_state;
        }
        // Once it has a port it keeps it.
        let mut port = if socket.sport == 0 { sock.last_port() } else { socket.sport };
        if socket.since_ns != 0 {
            duration_ns = elapsed(socket.since_ns, ts_ns);
        }
        if old == SYN_SENT && new == CLOSE && found_no_port(sock, socket) {
            port = 0;
            flags |= flags::PORT_EXHAUSTED;
        }
        if new == CLOSE && socket.state == TIME_WAIT {
            // Its time-wait socket is in the table already: `crate::timers::started`.
            seen = TIME_WAIT;
        }
        sport = port;
        socket.since_ns = ts_ns;
        socket.state = seen;
        socket.sport = sport;
    } else if old == SYN_SENT && new == CLOSE && sock.last_port() == 0 && sock.error() == 0 {
        refused_unkept(counters, sock, cookie, now());
        return sockets::remove(cookie);
    } else {
        cold_path();
        ts_ns = now();
        sport = sock.last_port();
        if new != CLOSE {
            let present = Present { since_ns: ts_ns, sport, state: new, flags: 0, by_state: 0 };
            keep(ctx, counters, cookie, &Socket { owner: STRANGER, present });
        }
    }
    if new == ESTABLISHED {
        // SAFETY: points to a map's value or to a static.
        established(counters, unsafe { &*opener }, old, flags, service);
    } else if flags & flags::PORT_EXHAUSTED != 0 {
        // SAFETY: as above.
        refused(counters, sock, unsafe { &*opener }, flags);
    }
    tally::transition(counters, sock, (old, seen), duration_ns);
    report(|| Observed { sock, cookie, ts_ns, duration_ns, sport, old, new: seen, flags }, opener);
    if seen == CLOSE {
        if old == LISTEN {
            cold_path();
            listeners::forget(sock.listener_mark());
        }
        if (old == FIN_WAIT2 || old == CLOSING) && constant!(time_wait_sampled) != 0 {
            // It may be in the time-wait table now, where only its owner is of interest.
            sockets::keep_for_a_while(cookie);
        } else {
            sockets::remove(cookie);
        }
    }
}

/// Counts a connection for its owner.
#[inline(never)]
fn established(counters: &mut Counters, opener: &Owner, old: u8, flags: u8, mut service: u32) {
    let is_passive = is_passive(old, flags);
    if service == 0 {
        service = services::number_of(&service_key(opener, flags & flags::OWNER_KNOWN != 0));
    }
    services::connection(counters, service, is_passive);
}

/// A connect() that found no port, of a socket that is not kept: this runs inside the failing call.
#[inline(never)]
fn refused_unkept(counters: &mut Counters, sock: Sock, cookie: u64, ts_ns: u64) {
    let (caller, known) = owner(Process::current());
    let flags = known | flags::ACTIVE | flags::PORT_EXHAUSTED;
    let (old, new) = (SYN_SENT, CLOSE);
    count_refused(counters, sock, &caller, flags);
    tally::transition(counters, sock, (old, new), DURATION_UNKNOWN);
    let duration_ns = DURATION_UNKNOWN;
    report(
        || Observed { sock, cookie, ts_ns, duration_ns, sport: 0, old, new, flags },
        &raw const caller,
    );
}

/// A connect() that found no port, of a socket that is kept.
#[inline(never)]
fn refused(counters: &mut Counters, sock: Sock, opener: &Owner, flags: u8) {
    count_refused(counters, sock, opener, flags);
}

/// Counts a connect() that found no free port.
#[inline(always)]
fn count_refused(counters: &mut Counters, sock: Sock, opener: &Owner, flags: u8) {
    let (saddr, daddr) = sock.addresses();
    let netns = sock.netns();
    // Nobody learns that a namespace has ended which is not watched: those that have its number one
    // after the other share their counts.
    let net_cookie = if is_watched(netns) { sock.net_cookie() } else { 0 };
    tally::port_failure(
        counters,
        &FailureKey {
            saddr,
            daddr,
            service: service_key(opener, flags & flags::OWNER_KNOWN != 0),
            net_cookie,
            netns,
            dport: sock.remote_port(),
            family: sock.family as u8,
            reserved: 0,
        },
    );
}

/// Which side a socket is that becomes ESTABLISHED; where its beginning was not seen, the state
/// that it comes from tells.
#[inline(always)]
fn is_passive(old: u8, flags: u8) -> bool {
    match flags & (flags::ACTIVE | flags::PASSIVE) {
        0 => old == SYN_RECV,
        role => role & flags::PASSIVE != 0,
    }
}

/// Whether `SYN_SENT -> CLOSE` is a connect() that found no free port: the kernel had to choose
/// one, the port is still what it was before, and no error came from elsewhere (a reset, a
/// time-out). `tcp_v4_connect()` and `tcp_v6_connect()` close the socket so when
/// `inet_hash_connect()` fails, inside the caller's process.
#[inline(always)]
fn found_no_port(sock: Sock, socket: &Present) -> bool {
    socket.flags & flags::PORT_WANTED != 0
        && u32::from(sock.last_port()) == socket.by_state
        && sock.error() == 0
}

/// Keeps what is known of a socket; tells the log the first time that there is no room.
#[inline(never)]
pub(crate) fn keep<C: EbpfContext>(ctx: &C, counters: &mut Counters, cookie: u64, socket: &Socket) {
    if !sockets::put(cookie, socket) {
        if counters.losses.sockets == 0 {
            warn!(ctx, "the socket map is full: some owners stay unknown; raise --max-sockets");
        }
        counters.losses.sockets += 1;
    }
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
    let present =
        Present { since_ns: 0, sport: sock.last_port(), state, flags: known | role, by_state: 0 };
    let socket = Socket { owner, present };
    if state == LISTEN {
        let _ = listeners::keep(sock.listener_mark(), &socket.owner, BPF_NOEXIST);
    }
    match sockets::find(cookie) {
        None => {
            sockets::put(cookie, &socket);
        }
        // What the tracepoint has learnt in the meantime is better, but it may not have learnt
        // the owner.
        // SAFETY: pointers to a map's value; the tracepoint writes neither of these members
        // again.
        Some(kept) => unsafe {
            if (*kept.present).flags & flags::OWNER_KNOWN == 0 {
                *kept.owner = socket.owner;
                (*kept.present).flags |= known | role;
            }
        },
    }
    if sock.state() == CLOSE {
        sockets::remove(cookie);
        if state == LISTEN {
            listeners::forget(sock.listener_mark());
        }
    }
}
