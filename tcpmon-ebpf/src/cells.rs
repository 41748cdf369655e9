//! Counting the sockets of the time-wait table in groups, as they come and go.
//!
//! A group is found once, when its socket enters; the socket keeps the cell's number, so that to
//! leave is one subtraction. The daemon gives cells that have been empty for long back: it takes
//! away the key, and when nobody can hold the number any more offers it anew.

use crate::{
    atomic::add,
    maps::{CELL_OF, CELLS, FREE_CELLS},
    tally::BPF_NOEXIST,
};
use tcpmon_common::CellKey;

/// Counts a socket that enters; the number of its cell plus 1, or 0 where there is no room for
/// another group.
#[inline(always)]
pub(crate) fn enter(key: &CellKey) -> u32 {
    let index = match CELL_OF.get_ptr(key) {
        // SAFETY: a pointer to a map's value, which is never changed.
        Some(index) => unsafe { *index },
        None => match take(key) {
            Some(index) => index,
            None => return 0,
        },
    };
    let Some(cell) = CELLS.get_ptr_mut(index) else { return 0 };
    // SAFETY: pointers into an array's value.
    unsafe {
        add(&raw mut (*cell).entered, 1);
        add(&raw mut (*cell).sockets, 1);
    }
    index + 1
}

/// Counts a socket that has come back: its timer was set anew.
#[inline(always)]
pub(crate) fn stay(number: u32) {
    change(number, 1);
}

/// Counts a socket that leaves its cell; 0: it is in none.
#[inline(always)]
pub(crate) fn leave(number: u32) {
    change(number, -1);
}

#[inline(always)]
fn change(number: u32, by: i64) {
    if number == 0 {
        return;
    }
    let Some(cell) = CELLS.get_ptr_mut(number - 1) else { return };
    // SAFETY: a pointer into an array's value.
    unsafe { add(&raw mut (*cell).sockets, by) };
}

/// A free cell for a new group; `None` where there is none.
#[inline(always)]
fn take(key: &CellKey) -> Option<u32> {
    let index = FREE_CELLS.pop().ok()??;
    let cell = CELLS.get_ptr_mut(index)?;
    // SAFETY: a pointer to an array's value, which is nobody else's: its number was in the queue.
    unsafe { (*cell).key = *key };
    if CELL_OF.insert(key, index, BPF_NOEXIST).is_ok() {
        return Some(index);
    }
    // Another CPU was first, or there is no room.
    let _ = FREE_CELLS.push(&index, 0);
    // SAFETY: a pointer to a map's value, which is never changed.
    CELL_OF.get_ptr(key).map(|index| unsafe { *index })
}
