//! Who opens sockets.

use crate::kernel::Process;
use tcpmon_common::{Comm, Owner, ServiceKey, flags};

/// A process as an owner, and the flags that say what is known of it.
#[inline(always)]
pub(crate) fn owner(process: Process) -> (Owner, u8) {
    let (cgroup_id, version1) = process.cgroup();
    let owner = Owner {
        cgroup_id,
        birth_ns: process.birth_ns(),
        comm: process.comm(),
        pid: process.pid(),
        cgroup_v1: u32::from(version1),
    };
    (owner, flags::OWNER_KNOWN)
}

/// The owner of a socket whose beginning was not seen.
pub(crate) static STRANGER: Owner =
    Owner { cgroup_id: 0, birth_ns: 0, comm: [0; 16], pid: 0, cgroup_v1: 0 };

/// Copies by words: of a plain assignment the compiler may make a call to a loop over bytes.
///
/// # Safety
///
/// Both are valid.
#[inline(always)]
pub(crate) unsafe fn copy<T>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    let mut word = 0;
    while word < size_of::<T>() / 8 {
        // SAFETY: by the caller; the word is inside.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
        word += 1;
    }
}

/// Copies a name by words: of bytes, the compiler would make a call to a loop.
///
/// # Safety
///
/// Both are valid, and aligned to eight bytes, as names in the records are.
#[inline(always)]
pub(crate) unsafe fn copy_comm(from: *const Comm, to: *mut Comm) {
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    // SAFETY: by the caller; a name is two words long.
    unsafe {
        to.write(from.read());
        to.add(1).write(from.add(1).read());
    }
}

/// The key under which an owner's connections are counted.
#[inline(always)]
pub(crate) fn service_key(owner: &Owner, known: bool) -> ServiceKey {
    let mut comm = [0u64; 2];
    // SAFETY: the name stands at a multiple of eight bytes in its record, which is asserted where
    // the record is declared.
    unsafe { copy_comm(&raw const owner.comm, (&raw mut comm).cast()) };
    ServiceKey {
        cgroup_id: owner.cgroup_id,
        // SAFETY: both are sixteen bytes without a meaning of their own.
        comm: unsafe { core::mem::transmute::<[u64; 2], Comm>(comm) },
        cgroup_v1: owner.cgroup_v1,
        known: u32::from(known),
    }
}
