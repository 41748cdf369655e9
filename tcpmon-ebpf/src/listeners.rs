//! Listeners, whose owners their accepted sockets inherit.
//!
//! All of them are in a hash map. To ask that costs more than all else that is done for a connection
//! that is accepted, so the first listener that comes to a place of a small table is there too.

use crate::{
    atomic::{commit, compare_and_swap},
    maps::{LISTENERS, listener_place},
    owner::service_key,
    services,
    sockets::copy,
};
use core::arch::asm;
use tcpmon_common::Owner;

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
    let place = listener_place(number(mark));
    // SAFETY: pointers to a table's value. It stays this listener's until that is closed.
    unsafe {
        if (&raw const (*place).mark).read_volatile() == mark {
            let owner = &raw const (*place).owner;
            let mut service = (&raw const (*place).service).read_volatile();
            if service == 0 {
                service = services::number_of(&service_key(&*owner, true));
                (&raw mut (*place).service).write_volatile(service);
            }
            return Some(Listener { owner, service });
        }
    }
    LISTENERS.get_ptr(mark).map(|owner| Listener { owner, service: 0 })
}

/// Keeps a listener; false where there is no room for it, or `how` does not let it in.
#[inline(always)]
pub(crate) fn keep(mark: u64, owner: &Owner, how: u64) -> bool {
    if LISTENERS.insert(mark, owner, how).is_err() {
        return false;
    }
    let place = listener_place(number(mark));
    // SAFETY: pointers to a table's value, which is nobody else's while its mark is `TAKEN`.
    unsafe {
        let whose = &raw mut (*place).mark;
        let held = whose.read_volatile();
        // There may be one with the same mark, whose end was not seen.
        if (held == 0 || held == mark) && compare_and_swap(whose, held, TAKEN) == held {
            copy(owner, &raw mut (*place).owner);
            (&raw mut (*place).service).write_volatile(0);
            commit(whose, mark);
        }
    }
    true
}

/// Forgets a listener.
#[inline(always)]
pub(crate) fn forget(mark: u64) {
    let place = listener_place(number(mark));
    // SAFETY: a pointer to a table's value.
    unsafe {
        let whose = &raw mut (*place).mark;
        if whose.read_volatile() == mark {
            whose.write_volatile(0);
        }
    }
    let _ = LISTENERS.remove(mark);
}

/// The place of a mark: of addresses, the lowest bits are alike.
#[inline(always)]
fn number(mark: u64) -> u64 {
    /// Odd, and with bits all over.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let half: u64;
    // The verifier knows a mark as a pointer, and lets no probe reckon with one but by a copy of
    // its lower half.
    // SAFETY: copies a register.
    unsafe {
        asm!("w1 = w2", in("r2") mark, out("r1") half, options(pure, nomem, nostack));
    }
    half.wrapping_mul(MIX) >> 32
}
