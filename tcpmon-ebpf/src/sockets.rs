//! The table of sockets, by cookie.
//!
//! A kernel hash map takes 300 to 400 ns to insert and delete an element, four locks each, and
//! every connection has two sockets: that alone would be a third of the cost of an event. Cookies
//! are handed out in sequence, so their low bits spread sockets over an array better than any
//! hash, and a compare-and-swap claims a place without a lock. Each place of the array holds
//! [`WAYS`] sockets; the few that find theirs full go to a hash map, so that nothing depends on
//! luck.

use crate::{
    atomic::{commit, compare_and_swap},
    cells,
    maps::{SOCKETS, socket_rest, socket_set},
    owner::copy,
    tally::inside,
};
use core::arch::asm;
use tcpmon_common::{NEAR, Owner, Present, Socket, SocketSet, TcpState, WAYS};

/// In place of a cookie while what is kept of the socket is being written: no socket has it.
const TAKEN: u64 = u64::MAX;

/// Where what is kept of a socket stands.
pub(crate) struct Place {
    /// What it is now.
    pub(crate) present: *mut Present,
    /// Whose it is.
    pub(crate) owner: *mut Owner,
}

impl Place {
    /// The socket with that cookie at one of the ways of its set.
    #[inline(always)]
    fn new(set: *mut SocketSet, cookie: u64, way: usize) -> Self {
        let is_near = way < NEAR;
        let way = any_way(way, cookie);
        let rest = socket_rest(cookie);
        // SAFETY: pointers to a table's values; the indexes are inside.
        unsafe {
            let half = if is_near { &raw mut (*set).near } else { &raw mut (*rest).far };
            let present = half.cast::<Present>().add(inside::<NEAR>(way));
            let owner = (&raw mut (*rest).owners).cast::<Owner>().add(inside::<WAYS>(way));
            Self { present, owner }
        }
    }
}

/// That way, but for the verifier any: else it would go through all that may follow for each way of
/// its own, and through Linux 6.1 give up. It does not see that a number and its copy differ in no
/// bit.
#[inline(always)]
pub(crate) fn any_way(way: usize, cookie: u64) -> usize {
    let any;
    // SAFETY: reckons with registers.
    unsafe {
        asm!(
            "{copy} = {cookie}",
            "{copy} ^= {cookie}",
            "{way} |= {copy}",
            copy = out(reg) _,
            cookie = in(reg) cookie,
            way = inlateout(reg) way => any,
            options(pure, nomem, nostack),
        );
    }
    any
}

/// Non-zero once a socket has found its set full: until then the hash map need not be asked.
static mut OVERFLOWED: u32 = 0;

#[inline(always)]
fn overflow(cookie: u64) -> Option<Place> {
    // SAFETY: one word, only ever changed from 0 to 1.
    if unsafe { (&raw const OVERFLOWED).read_volatile() } == 0 {
        return None;
    }
    let socket = SOCKETS.get_ptr_mut(cookie)?;
    // SAFETY: a pointer to a map's value.
    let (present, owner) = unsafe { (&raw mut (*socket).present, &raw mut (*socket).owner) };
    Some(Place { present, owner })
}

/// The socket with that cookie, if it is kept.
#[inline(always)]
pub(crate) fn find(cookie: u64) -> Option<Place> {
    let set = socket_set(cookie);
    // SAFETY: a pointer to an array's value; `way` is inside.
    unsafe {
        let mut way = 0;
        while way < WAYS {
            if (&raw const (*set).cookies[way]).read_volatile() == cookie {
                return Some(Place::new(set, cookie, way));
            }
            way += 1;
        }
    }
    overflow(cookie)
}

/// Nanoseconds after which a socket that went into the time-wait table unobserved has left it
/// again: `TCP_TIMEWAIT_LEN` is 60 s, and the timer wheel is up to an eighth late
/// (kernel/time/timer.c).
const A_WHILE_NS: u64 = 70_000_000_000;

/// Marks a socket as perhaps in the time-wait table, where nobody will tell of its end: its place
/// is free for others after [`A_WHILE_NS`]. In the hash map there is no such thing; there it is
/// forgotten.
#[inline(always)]
pub(crate) fn keep_for_a_while(cookie: u64) {
    let set = socket_set(cookie);
    let mut kept = false;
    // SAFETY: a pointer to an array's value; `way` is inside.
    unsafe {
        let mut way = 0;
        while way < WAYS {
            if (&raw const (*set).cookies[way]).read_volatile() == cookie {
                let place = Place::new(set, cookie, way);
                (&raw mut (*place.present).state).write_volatile(PASSING);
                kept = true;
            }
            way += 1;
        }
    }
    if !kept {
        let _ = SOCKETS.remove(cookie);
    }
}

/// The state of a socket that is kept for a while: no state of the kernel's.
const PASSING: u8 = 0;
const _: () = assert!(TcpState::from_number(PASSING).is_none());

/// Reads what is kept of a socket.
///
/// # Safety
///
/// `place` is one that [`find`] found, and `to` is valid.
#[inline(always)]
pub(crate) unsafe fn read(place: &Place, to: *mut Socket) {
    // SAFETY: by the caller.
    unsafe {
        copy(place.owner, &raw mut (*to).owner);
        copy(place.present, &raw mut (*to).present);
    }
}

/// # Safety
///
/// As [`read`].
#[inline(always)]
unsafe fn write(place: &Place, socket: *const Socket) {
    // SAFETY: by the caller.
    unsafe {
        copy(&raw const (*socket).owner, place.owner);
        copy(&raw const (*socket).present, place.present);
    }
}

/// Keeps a socket, in place of what was kept under its cookie.
///
/// False where there was no room, and the socket of the same set that has been in its state for
/// longest was given up for it: an entry whose `-> CLOSE` was never seen goes that way too.
#[inline(always)]
pub(crate) fn put(cookie: u64, socket: &Socket) -> bool {
    if let Some(kept) = find(cookie) {
        // SAFETY: a pointer to a map's value.
        unsafe {
            release(kept.present);
            write(&kept, socket);
        }
        return true;
    }
    let set = socket_set(cookie);
    let mut oldest = 0;
    let mut oldest_ns = u64::MAX;
    // SAFETY: a pointer to an array's value; `way` is inside.
    unsafe {
        let mut way = 0;
        while way < WAYS {
            let whose = &raw mut (*set).cookies[way];
            let place = Place::new(set, cookie, way);
            if whose.read_volatile() == 0 && compare_and_swap(whose, 0, TAKEN) == 0 {
                write(&place, socket);
                commit(whose, cookie);
                return true;
            }
            let since_ns = (&raw const (*place.present).since_ns).read_volatile();
            let state = (&raw const (*place.present).state).read_volatile();
            if state == PASSING && since_ns.wrapping_add(A_WHILE_NS) < socket.present.since_ns {
                let gone = whose.read_volatile();
                if gone != 0 && gone != TAKEN && compare_and_swap(whose, gone, TAKEN) == gone {
                    write(&place, socket);
                    commit(whose, cookie);
                    return true;
                }
            }
            if since_ns < oldest_ns {
                oldest = way;
                oldest_ns = since_ns;
            }
            way += 1;
        }
        (&raw mut OVERFLOWED).write_volatile(1);
    }
    if SOCKETS.insert(cookie, socket, 0).is_ok() {
        return true;
    }
    // SAFETY: as above; `oldest` is one of the ways.
    unsafe {
        let oldest = oldest & (WAYS - 1);
        let place = Place::new(set, cookie, oldest);
        release(place.present);
        write(&place, socket);
        commit(&raw mut (*set).cookies[oldest], cookie);
    }
    false
}

/// Counts a socket no more that is given up while it is in the time-wait table.
///
/// # Safety
///
/// `present` points to a map's value.
#[inline(always)]
unsafe fn release(present: *const Present) {
    // SAFETY: by the caller.
    unsafe {
        if (&raw const (*present).state).read_volatile() == TcpState::TimeWait.number() {
            cells::leave((*present).by_state);
        }
    }
}

/// Forgets a socket.
#[inline(always)]
pub(crate) fn remove(cookie: u64) {
    let set = socket_set(cookie);
    // The iterator may have kept it a second time: all ways are looked at.
    let mut kept = false;
    // SAFETY: a pointer to an array's value; `way` is inside.
    unsafe {
        let mut way = 0;
        while way < WAYS {
            let place = &raw mut (*set).cookies[way];
            if place.read_volatile() == cookie {
                place.write_volatile(0);
                kept = true;
            }
            way += 1;
        }
    }
    if !kept {
        let _ = SOCKETS.remove(cookie);
    }
}
