//! Listeners, whose owners their accepted sockets inherit.
//!
//! All of them are in a hash map. To ask that is half of what the first transition of an accepted
//! socket costs, so the first listener that comes to a place of a small table is there too.

use crate::{
    atomic::{commit, compare_and_swap},
    maps::{LISTENERS, listener_place},
    owner::{copy, service_key},
    services,
    sockets::any_way,
    tally::BPF_ANY,
};
use core::arch::asm;
use tcpmon_common::{MIX, Owner};

/// In place of a mark while a place is being written: no listener has it, since marks are addresses.
const TAKEN: u64 = 1;

/// What accepted sockets inherit.
pub(crate) struct Listener {
    pub(crate) owner: *const Owner,
    /// Where their connections are counted: see `ListenerPlace::service`.
    pub(crate) service: u32,
}

/// The listener with that mark, if it is known.
#[inline(always)]
pub(crate) fn find(mark: u64) -> Option<Listener> {
    // As a place is marked that is nobody's.
    if mark == 0 {
        return None;
    }
    let number = number(mark);
    // SAFETY: pointers to a table's value. It stays this listener's until that is closed.
    unsafe {
        let held = (&raw const (*listener_place(number)).mark).read_volatile();
        // Where the rest is depends on what has been read, so that the processor does not read it before.
        let place = listener_place(any_way(number as usize, held) as u64);
        if held == mark {
            let owner = &raw const (*place).owner;
            return Some(Listener {
                owner,
                service: (&raw const (*place).service).read_volatile(),
            });
        }
    }
    LISTENERS.get_ptr(mark).map(|owner| Listener { owner, service: 0 })
}

/// Keeps a listener; false where there is no room for it, or `how` does not let it in.
#[inline(always)]
pub(crate) fn keep(mark: u64, owner: &Owner, how: u64) -> bool {
    if LISTENERS.insert(mark, owner, how).is_err() {
        if how == BPF_ANY {
            // Of one that was there before, whose end was not seen.
            clear(mark);
        }
        return false;
    }
    let place = listener_place(number(mark));
    // SAFETY: pointers to a table's value, which is nobody else's while its mark is `TAKEN`.
    unsafe {
        let whose = &raw mut (*place).mark;
        let held = whose.read_volatile();
        if (held == 0 || held == mark) && compare_and_swap(whose, held, TAKEN) == held {
            copy(owner, &raw mut (*place).owner);
            // Now, not when it first accepts: who is late would write it to another's place.
            let service = services::number_of(&service_key(owner, true));
            (&raw mut (*place).service).write_volatile(service);
            commit(whose, mark);
        }
    }
    true
}

/// Forgets a listener.
#[inline(always)]
pub(crate) fn forget(mark: u64) {
    clear(mark);
    let _ = LISTENERS.remove(mark);
}

/// Gives a listener's place back, if it has one.
#[inline(always)]
fn clear(mark: u64) {
    let place = listener_place(number(mark));
    // SAFETY: a pointer to a table's value.
    unsafe {
        let whose = &raw mut (*place).mark;
        if whose.read_volatile() == mark {
            whose.write_volatile(0);
        }
    }
}

/// The place of a mark: of addresses, the lowest bits are alike.
#[inline(always)]
fn number(mark: u64) -> u64 {
    let half: u64;
    // The verifier knows a mark as a pointer, and lets no probe reckon with one but by a copy of
    // its lower half.
    // SAFETY: copies a register.
    unsafe {
        asm!("w1 = w2", in("r2") mark, out("r1") half, options(pure, nomem, nostack));
    }
    half.wrapping_mul(MIX) >> 32
}
