//! Accepted sockets: cloned from a listener, in softirq, and reported before they are complete.

use crate::{
    kernel::Sock,
    listeners::{self, Listener},
    maps::{EMBRYO, EMBRYOS},
    owner::{STRANGER, copy},
    record::{Observed, report},
    tally::BPF_ANY,
    transition::keep,
};
use aya_ebpf::EbpfContext;
use core::mem::MaybeUninit;
use tcpmon_common::{Counters, DURATION_UNKNOWN, Embryo, Owner, Present, Socket, TcpState, flags};

const SYN_RECV: u8 = TcpState::SynRecv.number();
const LISTEN: u8 = TcpState::Listen.number();

/// `LISTEN -> SYN_RECV`: a socket cloned from its listener, whose owner it inherits.
#[inline(never)]
pub(crate) fn accepted<C: EbpfContext>(ctx: &C, counters: &mut Counters, sock: Sock, ts_ns: u64) {
    let (Listener { owner, service }, known) = match listeners::find(sock.listener_mark()) {
        Some(listener) => (listener, flags::OWNER_KNOWN),
        None => (Listener { owner: &raw const STRANGER, service: 0 }, 0),
    };
    // SAFETY: points to a map's value or to a static.
    let owner = unsafe { &*owner };
    // Through Linux 6.12 `inet_csk_clone_lock()` reports the state before it sets the addresses
    // and the cookie.
    if sock.remote_port() == 0 {
        let known = u32::from(known);
        park(&Embryo { sock: sock.address(), since_ns: ts_ns, owner: *owner, known, service });
    } else {
        conceive(ctx, counters, sock, sock.cookie(), (owner, known, service), ts_ns);
    }
}

/// Begins to keep an accepted socket, and reports its `LISTEN -> SYN_RECV`.
#[inline(always)]
pub(crate) fn conceive<C: EbpfContext>(
    ctx: &C,
    counters: &mut Counters,
    sock: Sock,
    cookie: u64,
    (owner, known, service): (&Owner, u8, u32),
    ts_ns: u64,
) {
    let present = Present {
        since_ns: ts_ns,
        sport: sock.last_port(),
        state: SYN_RECV,
        flags: flags::PASSIVE | known,
        by_state: service,
    };
    let mut socket = MaybeUninit::<Socket>::uninit();
    let parts = socket.as_mut_ptr();
    // SAFETY: all of it is written, `owner` being valid.
    let socket = unsafe {
        copy(owner, &raw mut (*parts).owner);
        (&raw mut (*parts).present).write(present);
        socket.assume_init_ref()
    };
    keep(ctx, counters, cookie, socket);
    report(
        || Observed {
            sock,
            cookie,
            ts_ns,
            duration_ns: DURATION_UNKNOWN,
            sport: present.sport,
            old: LISTEN,
            new: SYN_RECV,
            flags: present.flags,
        },
        &raw const socket.owner,
    );
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

/// An accepted socket that was set aside. It is used where it is, since the stack has no room for it.
pub(crate) struct Parked {
    /// What is known of it.
    pub(crate) embryo: *const Embryo,
    /// This CPU's last, if it is that.
    slot: Option<*mut Embryo>,
}

/// Finds an accepted socket that was set aside, if it was.
#[inline(always)]
pub(crate) fn parked(sock: Sock) -> Option<Parked> {
    let slot = EMBRYO.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value.
    if unsafe { (*slot).sock } == sock.address() {
        return Some(Parked { embryo: slot, slot: Some(slot) });
    }
    EMBRYOS.get_ptr(sock.address()).map(|embryo| Parked { embryo, slot: None })
}

impl Parked {
    /// Forgets it. An interrupt may have moved it to make room for its own.
    #[inline(always)]
    pub(crate) fn let_go(self, sock: Sock) {
        if let Some(slot) = self.slot
            // SAFETY: this CPU's own value.
            && unsafe { (*slot).sock } == sock.address()
        {
            // SAFETY: as above.
            unsafe { (*slot).sock = 0 };
        } else {
            let _ = EMBRYOS.remove(sock.address());
        }
    }
}
