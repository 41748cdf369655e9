//! Atomic instructions, which `core` does not offer for this target.

use crate::kernel::set_by_daemon;
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

/// Non-zero: this processor may show others two writes in another order; set by the daemon.
#[unsafe(no_mangle)]
static WEAKLY_ORDERED: u32 = 0;

/// Writes to `place` so that whoever sees that sees all that was written before: by a plain
/// instruction where the processor shows its writes in their order.
///
/// # Safety
///
/// As [`compare_and_swap`].
#[inline(always)]
pub(crate) unsafe fn commit(place: *mut u64, new: u64) {
    if set_by_daemon(&WEAKLY_ORDERED) != 0 {
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
