//! The iterator over all TCP sockets of a network namespace: it counts them in groups.
//!
//! Each socket costs the kernel some 300 ns to find, and there may be a million, so every step
//! here is counted in nanoseconds: no hash map of the kernel's, whose two calls would double the
//! whole, but an index of our own over a plain array. Only one census runs at a time, on one CPU
//! at a time, so nothing here is atomic.

use crate::{
    kernel::{SockCommon, set_by_daemon},
    maps::{CENSUS, CENSUS_CELLS, CENSUS_INDEX},
    sockets,
    tally::inside,
};
use core::{ffi::c_void, mem::transmute};
use tcpmon_common::{
    CENSUS_BATCH, CENSUS_SLOTS, CensusCell, CensusControl, CensusKey, CensusPending, KINDS,
    MAX_CELLS, TcpState, flags, kind,
};

const TIME_WAIT: u8 = TcpState::TimeWait.number();
const LISTEN: u8 = TcpState::Listen.number();
const NEW_SYN_RECV: u8 = TcpState::NewSynRecv.number();

/// Number of values of the index less one, a power of two less one; set by the daemon with the
/// index's size.
#[unsafe(no_mangle)]
static CENSUS_MASK: u32 = 0;

/// What an iterator over TCP sockets is given (`struct bpf_iter__tcp`, net/ipv4/tcp_ipv4.c).
#[repr(C)]
pub(crate) struct TcpContext {
    meta: *const c_void,
    sk_common: *const c_void,
}

const _: () = assert!(core::mem::offset_of!(TcpContext, sk_common) == 8);

/// A [`CensusKey`], to compare and to hash.
type Words = [u64; size_of::<CensusKey>() / 8];

/// Takes note of one socket.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn tcpmon_census(ctx: *const TcpContext) -> i32 {
    // SAFETY: the kernel gives an iterator's program its context.
    let skc = unsafe { (&raw const (*ctx).sk_common).read_volatile() };
    let Some(control) = CENSUS.get_ptr_mut(0) else { return 0 };
    // SAFETY: nobody else reads or writes it while a census runs.
    let control = unsafe { &mut *control };
    // After the last socket the program is run once more, without one
    // (`bpf_iter_tcp_seq_stop()`, net/ipv4/tcp_ipv4.c).
    let mut waiting = control.waiting;
    if !skc.is_null() {
        // SAFETY: a `struct sock_common *`.
        let Some(sock) = (unsafe { SockCommon::new(skc) }) else { return 0 };
        note(control, waiting, sock);
        waiting += 1;
        if waiting < CENSUS_BATCH as u64 {
            control.waiting = waiting;
            return 0;
        }
    }
    control.waiting = 0;
    count_all(control, waiting);
    0
}

/// Sets down what the socket itself tells.
#[inline(always)]
fn note(control: &mut CensusControl, waiting: u64, sock: SockCommon) {
    let place = inside::<CENSUS_BATCH>(waiting as usize);
    // SAFETY: the index is inside.
    let pending = unsafe { &mut *control.pending.as_mut_ptr().add(place) };
    pending.sport = sock.local_port();
    pending.dport = sock.remote_port();
    pending.family = sock.family as u8;
    (pending.saddr, pending.daddr) = sock.addresses();
    // Of a request nothing is known but to its listener: none is given a cookie for it, or a flood
    // of SYNs would get as many.
    pending.cookie = if sock.state == NEW_SYN_RECV { 0 } else { sock.cookie() };
    pending.kind = if sock.state == TIME_WAIT {
        (sock.substate() & kind::STATE) | kind::TIME_WAIT_TABLE
    } else {
        sock.state & kind::STATE
    };
    if sock.state == LISTEN {
        let (word, bit) = listening(control, pending.sport);
        *word |= bit;
    }
}

/// Counts the sockets that were noted.
///
/// The table of sockets is too large for the processor's caches, and connections lie in it in
/// quite another order than the iterator shows them in. So memory is asked for all of them before
/// the first is looked at.
#[inline(always)]
fn count_all(control: &mut CensusControl, waiting: u64) {
    let mut at = 0;
    while at < CENSUS_BATCH {
        sockets::touch(control.pending[at].cookie);
        at += 1;
    }
    at = 0;
    while at < CENSUS_BATCH {
        if let Some(kept) = sockets::find(control.pending[at].cookie) {
            // SAFETY: a pointer to a map's value; from the first member that is used to the last.
            unsafe {
                let _fetched = (&raw const (*kept).owner.cgroup_id).read_volatile();
                let _fetched = (&raw const (*kept).flags).read_volatile();
            }
        }
        at += 1;
    }
    at = 0;
    while at < CENSUS_BATCH && (at as u64) < waiting {
        let pending = control.pending[at];
        count(control, &pending);
        at += 1;
    }
}

#[inline(always)]
fn count(control: &mut CensusControl, pending: &CensusPending) {
    let (role, service) = owner(pending.cookie);
    let passive = if matches!(pending.kind, LISTEN | NEW_SYN_RECV) {
        true
    } else if role & (flags::ACTIVE | flags::PASSIVE) == 0 {
        // Listeners are shown before all others (`listening_get_first()`, net/ipv4/tcp_ipv4.c), so
        // a port on which one listens is known by the time its connections come.
        let (word, bit) = listening(control, pending.sport);
        *word & bit != 0
    } else {
        role & flags::PASSIVE != 0
    };
    let (kind, dport) =
        if passive { (pending.kind | kind::PASSIVE, 0) } else { (pending.kind, pending.dport) };
    let place = inside::<{ 2 * KINDS }>(pending.family as usize * KINDS + kind as usize);
    // SAFETY: the index is inside.
    unsafe { *control.sockets.as_mut_ptr().cast::<u64>().add(place) += 1 };
    let [low, high] = dport.to_ne_bytes();
    let key = [
        pending.saddr[0],
        pending.saddr[1],
        pending.daddr[0],
        pending.daddr[1],
        service[0],
        service[1],
        service[2],
        service[3],
        u64::from_ne_bytes([low, high, pending.family, kind, 0, 0, 0, 0]),
    ];
    if !add(control, &key) {
        // SAFETY: the index is inside.
        unsafe { *control.unplaced.as_mut_ptr().cast::<u64>().add(place) += 1 };
    }
}

/// What the table of sockets says: the [`flags`], and the owner as a `ServiceKey`'s words.
#[inline(always)]
fn owner(cookie: u64) -> (u8, [u64; 4]) {
    const NOBODY: [u64; 4] = [0; 4];
    // That is also what marks a free place of the table.
    if cookie == 0 {
        return (0, NOBODY);
    }
    let Some(kept) = sockets::find(cookie) else { return (0, NOBODY) };
    // SAFETY: a pointer to a map's value; a name stands at a multiple of eight bytes, which is
    // asserted where the record is declared.
    unsafe {
        let role = (&raw const (*kept).flags).read();
        if role & flags::OWNER_KNOWN == 0 {
            return (role, NOBODY);
        }
        let owner = &raw const (*kept).owner;
        let comm = (&raw const (*owner).comm).cast::<u64>();
        let version1 = (&raw const (*owner).cgroup_v1).read();
        let service = [
            (&raw const (*owner).cgroup_id).read(),
            comm.read(),
            comm.add(1).read(),
            transmute::<[u32; 2], u64>([version1, 1]),
        ];
        (role, service)
    }
}

/// The word and the bit in it that tell whether a socket listens on a port.
#[inline(always)]
fn listening(control: &mut CensusControl, port: u16) -> (&mut u64, u64) {
    let place = inside::<1024>((port / 64) as usize);
    // SAFETY: the index is inside.
    let word = unsafe { &mut *control.listening.as_mut_ptr().add(place) };
    (word, 1 << (port % 64))
}

/// Counts a socket in the cell of its key; false where there is no room for another.
#[inline(always)]
fn add(control: &mut CensusControl, key: &Words) -> bool {
    const CELL: u64 = MAX_CELLS as u64 - 1;
    let hash = hash(key);
    let wanted = u64::from(control.generation) << 32 | (hash as u32 & !(CELL as u32)) as u64;
    let mut bucket = (hash >> 32) as u32 & set_by_daemon(&CENSUS_MASK);
    let mut buckets = 0;
    while buckets < 2 {
        let Some(slots) = CENSUS_INDEX.get_ptr_mut(bucket) else { return false };
        let mut at = 0;
        while at < CENSUS_SLOTS {
            // SAFETY: a pointer to an array's value; `at` is inside.
            let slot = unsafe { &mut (*slots).slots[at] };
            if *slot >> 32 != wanted >> 32 {
                let Some(cell) = CENSUS_CELLS.get_ptr_mut(control.cells) else { return false };
                // SAFETY: a pointer to an array's value, which begins with its key.
                unsafe {
                    cell.cast::<Words>().write(*key);
                    (*cell).sockets = 1;
                }
                *slot = wanted | u64::from(control.cells);
                control.cells += 1;
                return true;
            }
            if *slot & !CELL == wanted
                && let Some(cell) = CENSUS_CELLS.get_ptr_mut((*slot & CELL) as u32)
                && is_of(cell, key)
            {
                // SAFETY: a pointer to an array's value.
                unsafe { (*cell).sockets += 1 };
                return true;
            }
            at += 1;
        }
        bucket ^= 1;
        buckets += 1;
    }
    false
}

/// Whether a cell has that key. All words are compared, so that there is one branch, not nine.
#[inline(always)]
fn is_of(cell: *const CensusCell, key: &Words) -> bool {
    let words = cell.cast::<u64>();
    let mut difference = 0;
    let mut at = 0;
    while at < key.len() {
        // SAFETY: a cell begins with its key.
        difference |= unsafe { words.add(at).read() } ^ key[at];
        at += 1;
    }
    difference == 0
}

/// Multiplies each word by a number of its own and adds up: the products do not wait for each
/// other. (Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair problem",
/// 1997.) A last multiplication spreads what the upper half gathered.
#[inline(always)]
fn hash(key: &Words) -> u64 {
    const ODD: Words = [
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0xd6e8_feb8_6659_fd93,
        0xa076_1d64_78bd_642f,
        0xe703_7ed1_a0b4_28db,
        0x8ebc_6af0_9c88_c6e3,
        0x5899_65cc_7537_4cc3,
        0x1d8e_4e27_c47d_124f,
    ];
    let mut sum = 0u64;
    let mut at = 0;
    while at < key.len() {
        sum = sum.wrapping_add(key[at].wrapping_mul(ODD[at]));
        at += 1;
    }
    (sum ^ sum >> 32).wrapping_mul(ODD[0])
}
