//! Atomic instructions, which `core` does not offer for this target.

use crate::kernel::constant;
use core::arch::asm;

/// Adds to a number to which others add too (`BPF_ATOMIC` with `BPF_ADD`).
///
/// # Safety
///
/// `place` is valid and aligned.
#[inline(always)]
pub(crate) unsafe fn add(place: *mut u64, number: i64) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "lock *(u64 *)({place} + 0) += {number}",
            place = in(reg) place,
            number = in(reg) number,
            options(nostack),
        );
    }
}

/// Adds to a number to which others add too; returns what it was (`BPF_ATOMIC` with `BPF_ADD` and
/// `BPF_FETCH`).
///
/// # Safety
///
/// As [`add`].
#[inline(always)]
pub(crate) unsafe fn fetch_add(place: *mut u64, number: u64) -> u64 {
    let before;
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "{number} = atomic_fetch_add((u64 *)({place} + 0), {number})",
            place = in(reg) place,
            number = inlateout(reg) number => before,
            options(nostack),
        );
    }
    before
}

/// Writes `new` to `place` if it holds `old`; returns what it held. Nothing is moved across it.
///
/// # Safety
///
/// `place` is valid, aligned and shared with nothing but such operations and volatile ones.
#[inline(always)]
pub(crate) unsafe fn compare_and_swap(place: *mut u64, old: u64, new: u64) -> u64 {
    let held;
    // SAFETY: by the caller. The instruction (`BPF_ATOMIC` with `BPF_CMPXCHG`) compares with r0 and
    // leaves there what it found.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inlateout("r0") old => held,
            options(nostack),
        );
    }
    held
}

/// Writes `new` to `place`; returns what it held. Nothing is moved across it (`BPF_ATOMIC` with
/// `BPF_XCHG`).
///
/// # Safety
///
/// As [`compare_and_swap`].
#[inline(always)]
pub(crate) unsafe fn exchange(place: *mut u64, new: u64) -> u64 {
    let held;
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "{new} = xchg_64({place} + 0, {new})",
            place = in(reg) place,
            new = inlateout(reg) new => held,
            options(nostack),
        );
    }
    held
}

/// Writes to `place` so that whoever sees that sees all that was written before: by a plain
/// instruction where the processor shows its writes in their order.
///
/// # Safety
///
/// As [`compare_and_swap`].
#[inline(always)]
pub(crate) unsafe fn commit(place: *mut u64, new: u64) {
    if constant!(weakly_ordered) != 0 {
        // SAFETY: by the caller.
        unsafe { exchange(place, new) };
        return;
    }
    // SAFETY: by the caller. The compiler moves nothing across the instruction either.
    unsafe {
        asm!(
            "*(u64 *)({place} + 0) = {new}",
            place = in(reg) place,
            new = in(reg) new,
            options(nostack),
        );
    }
}
