//! The exact counters.

use crate::{
    kernel::Sock,
    maps::{ENTERED, NAMESPACES, PORT_FAILURES},
    time_wait::Netns,
};
use aya_ebpf::maps::PerCpuHashMap;
use core::{
    arch::asm,
    hint::{assert_unchecked, cold_path},
};
use tcpmon_common::{
    ACTIVITY, Counters, DURATION_UNKNOWN, EDGES, EnteredKey, FailureKey, LONG, SHORT, STATES,
    ServiceKey, TcpState, TimeWaits, duration_bucket, edge_index, short_bucket,
};

/// Flag of `bpf_map_update_elem`: insert or replace.
pub(crate) const BPF_ANY: u64 = 0;

/// Flag of `bpf_map_update_elem`: leave an existing element alone. Where another CPU was first there
/// is one, which is all that is wanted.
pub(crate) const BPF_NOEXIST: u64 = 1;

/// An index cut to a table of `SIZE` elements, a power of two, by an instruction that the compiler
/// can neither drop nor move: before it, bits are joined by OR, and through Linux 6.8 the verifier
/// holds the OR of an unknown value for unknown (`adjust_scalar_min_max_vals()` in
/// kernel/bpf/verifier.c).
#[inline(always)]
pub(crate) fn inside<const SIZE: usize>(index: usize) -> usize {
    const { assert!(SIZE.is_power_of_two()) };
    let cut;
    // SAFETY: one AND of a register.
    unsafe {
        asm!(
            "{index} &= {mask}",
            index = inlateout(reg) index => cut,
            mask = const SIZE - 1,
            options(pure, nomem, nostack),
        );
        // So that the compiler does not cut it once more.
        assert_unchecked(cut < SIZE);
    }
    cut
}

/// This CPU's value under a key, begun where there is none; `None` where there is no room for one.
#[inline(always)]
fn found_or_begun<K, V>(
    map: &PerCpuHashMap<K, V>,
    key: &K,
    begin: impl FnOnce() -> V,
) -> Option<*mut V> {
    map.get_ptr_mut(key).or_else(|| {
        let _ = map.insert(key, begin(), BPF_NOEXIST);
        map.get_ptr_mut(key)
    })
}

/// Counts one transition of a socket that was so long in its old state, and notes that something
/// happened in its network namespace.
#[inline(always)]
pub(crate) fn transition(
    counters: &mut Counters,
    sock: Sock,
    (old, new): (u8, u8),
    duration_ns: u64,
) {
    count(counters, sock.family as u8, (old, new), duration_ns);
    let namespace = inside::<ACTIVITY>(sock.netns() as usize);
    counters.last = counters.last.wrapping_add(1);
    // SAFETY: the index is inside.
    unsafe { *counters.activity.as_mut_ptr().add(namespace) = counters.last };
}

/// Counts one transition, and the duration where it is known.
#[inline(always)]
fn count(counters: &mut Counters, family: u8, (old, new): (u8, u8), duration_ns: u64) {
    let index = edge_index(old, new);
    if index >= EDGES {
        cold_path();
        return;
    }
    // SAFETY: the indexes are inside.
    unsafe {
        let edge = &mut *counters.edges.as_mut_ptr().add(index);
        *edge.transitions.as_mut_ptr().add(inside::<2>(family as usize)) += 1;
        if duration_ns == DURATION_UNKNOWN {
            return;
        }
        edge.sum_ns += duration_ns;
        if let Some(bucket) = short_bucket(duration_ns) {
            *edge.short.as_mut_ptr().add(bucket) += 1;
        } else {
            cold_path();
            let state = (old as usize).wrapping_sub(1);
            let bucket = duration_bucket(duration_ns).wrapping_sub(SHORT);
            if state < STATES && bucket < LONG {
                *counters.long.as_mut_ptr().add(state).cast::<u64>().add(bucket) += 1;
            }
        }
    }
}

/// Counts one `time_wait -> close` and how long it took.
#[inline(always)]
pub(crate) fn time_wait_end(counters: &mut Counters, family: u8, duration_ns: u64) {
    let edge = (TcpState::TimeWait.number(), TcpState::Close.number());
    count(counters, family, edge, duration_ns);
}

/// This CPU's counts of time-wait sockets in a namespace, begun anew where its number was
/// another's; `None` where there is no room for them, which is counted.
#[inline(always)]
pub(crate) fn time_waits(counters: &mut Counters, netns: Netns) -> Option<*mut TimeWaits> {
    let Some(counts) = found_or_begun(&NAMESPACES, &netns.inode, TimeWaits::default) else {
        counters.losses.namespaces += 1;
        return None;
    };
    // SAFETY: this CPU's own value.
    unsafe {
        if (*counts).net_cookie != netns.cookie {
            *counts = TimeWaits { net_cookie: netns.cookie, ..TimeWaits::default() };
        }
    }
    Some(counts)
}

/// Counts one entry into the time-wait table for its owner; false where there is no room for that
/// owner.
#[inline(always)]
pub(crate) fn entered(counters: &mut Counters, service: ServiceKey, netns: Netns) -> bool {
    let key = EnteredKey { service, net_cookie: netns.cookie, netns: netns.inode, reserved: 0 };
    let Some(count) = found_or_begun(&ENTERED, &key, || 0) else {
        counters.losses.entered += 1;
        return false;
    };
    // SAFETY: this CPU's own value.
    unsafe { *count += 1 };
    true
}

/// Counts one connect() that found no free port.
#[inline(always)]
pub(crate) fn port_failure(counters: &mut Counters, key: &FailureKey) {
    counters.port_failures += 1;
    match found_or_begun(&PORT_FAILURES, key, || 0) {
        // SAFETY: this CPU's own value.
        Some(count) => unsafe { *count += 1 },
        None => counters.losses.failures += 1,
    }
}
