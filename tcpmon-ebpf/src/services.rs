//! The table of owners whose connections are counted.
//!
//! Two look-ups in a kernel hash map would be a tenth of what a connection costs. Owners are few, and
//! none is ever given up, so an array does: an owner stands at the place that its hash gives, or at
//! one of the others that it gives. A place is claimed by a compare-and-swap.

use crate::{
    atomic::{add, commit, compare_and_swap, fetch_add},
    kernel::{constant, cpu},
    maps::{SERVICE_COUNTS, SERVICES, SERVICES_HELD},
};
use tcpmon_common::{Counters, MIX, ServiceKey, ServicePlace};

/// A key by words, as which it is hashed, compared and written.
type Words = [u64; 4];
const _: () = assert!(size_of::<ServiceKey>() == size_of::<Words>());

/// How many places an owner may stand at. Where a tenth of all is held, one new owner in ten thousand
/// finds none; where half is, which is as many as may be, one in sixteen. More would be too long a
/// way for the verifier.
const TRIES: u32 = 4;

/// The number of an owner's place plus 1; 0 where there is none for it.
#[inline(always)]
pub(crate) fn number_of(key: &ServiceKey) -> u32 {
    // SAFETY: the same size, and both are integers only.
    let words = unsafe { core::mem::transmute::<ServiceKey, Words>(*key) };
    place_of(words).map_or(0, |place| place + 1)
}

/// Counts one established connection for the owner whose place has this number: see [`number_of`].
#[inline(always)]
pub(crate) fn connection(counters: &mut Counters, number: u32, passive: bool) {
    let places = constant!(service_mask) as u32 + 1;
    let counts =
        if number == 0 { None } else { SERVICE_COUNTS.get_ptr_mut(cpu() * places + number - 1) };
    match counts {
        // SAFETY: this CPU's own value.
        Some(counts) => unsafe {
            if passive {
                (*counts).passive += 1;
            } else {
                (*counts).active += 1;
            }
        },
        None => counters.losses.services[usize::from(passive)] += 1,
    }
}

/// Which place is that owner's; `None` where there is none for it.
#[inline(always)]
fn place_of(key: Words) -> Option<u32> {
    let hash = hash(key);
    // Odd, so that it comes to other places each time, and other owners' steps differ.
    let step = (hash >> 32) as u32 | 1;
    // With the hash: of a key that another CPU is just writing down this one may see less than it
    // sees of `held`.
    let mine = hash & !ServicePlace::STATE | ServicePlace::HELD;
    let mut index = hash as u32;
    let mut tries = 0;
    while tries < TRIES {
        index &= constant!(service_mask) as u32;
        let place = SERVICES.get_ptr_mut(index)?;
        // SAFETY: pointers into an array's value.
        let (held, whose) = unsafe { (&raw mut (*place).held, (&raw mut (*place).key).cast()) };
        // SAFETY: as above; shared with nothing but this and the operations of `atomic`.
        let now = unsafe { held.read_volatile() };
        // SAFETY: as above; a key is written before its place is held, and never changed.
        if now == mine && unsafe { is_same(whose, key) } {
            return Some(index);
        }
        if now == ServicePlace::FREE {
            if !reserve() {
                return None;
            }
            // SAFETY: as above.
            if unsafe { hold(held, mine, whose, key) } {
                return Some(index);
            }
            // Another CPU was first, for whatever owner.
            release();
        }
        index = index.wrapping_add(step);
        tries += 1;
    }
    None
}

#[inline(always)]
fn hash(key: Words) -> u64 {
    let mut hash = 0u64;
    let mut word = 0;
    while word < key.len() {
        hash = (hash ^ key[word]).wrapping_mul(MIX);
        hash ^= hash >> 32;
        word += 1;
    }
    hash
}

/// # Safety
///
/// `whose` is valid.
#[inline(always)]
unsafe fn is_same(whose: *const Words, key: Words) -> bool {
    // SAFETY: by the caller.
    let whose = unsafe { whose.read() };
    (whose[0] ^ key[0]) | (whose[1] ^ key[1]) | (whose[2] ^ key[2]) | (whose[3] ^ key[3]) == 0
}

/// Writes down whose a place is; false if it is not free any more.
///
/// # Safety
///
/// `held` is valid, aligned and shared with nothing but this and volatile reads, and `whose` is
/// valid.
#[inline(always)]
unsafe fn hold(held: *mut u64, mine: u64, whose: *mut Words, key: Words) -> bool {
    // SAFETY: by the caller.
    unsafe {
        if compare_and_swap(held, ServicePlace::FREE, ServicePlace::TAKEN) != ServicePlace::FREE {
            return false;
        }
        whose.write(key);
        commit(held, mine);
    }
    true
}

/// Whether one more place may be held, which is counted as held then.
#[inline(always)]
fn reserve() -> bool {
    let Some(held) = SERVICES_HELD.get_ptr_mut(0) else { return false };
    // SAFETY: a pointer to a map's value, shared with nothing but this and `release()`.
    unsafe {
        // First, so that CPUs do not write there again and again once there are enough.
        if held.read_volatile() >= constant!(max_services) {
            return false;
        }
        if fetch_add(held, 1) < constant!(max_services) {
            return true;
        }
    }
    release();
    false
}

#[inline(always)]
fn release() {
    if let Some(held) = SERVICES_HELD.get_ptr_mut(0) {
        // SAFETY: as in `reserve()`.
        unsafe { add(held, -1) };
    }
}
