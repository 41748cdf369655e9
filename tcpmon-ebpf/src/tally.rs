//! The exact counters.

use crate::{
    kernel::Sock,
    maps::{ENTERED, NAMESPACES, PORT_FAILURES},
    time_wait::Netns,
};
use aya_ebpf::maps::PerCpuHashMap;
use core::arch::asm;
use tcpmon_common::{
    ACTIVITY, Counters, DURATION_BUCKETS, DURATION_UNKNOWN, EnteredKey, FailureKey, STATE_COUNT,
    ServiceKey, TcpState, TimeWaits, duration_bucket, transition_index,
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

/// Counts one transition, and notes that something happened in its network namespace.
#[inline(always)]
pub(crate) fn transition(counters: &mut Counters, sock: Sock, old: u8, new: u8) {
    let mark = count(counters, sock.family as u8, old, new);
    let namespace = inside::<ACTIVITY>(sock.netns() as usize);
    // SAFETY: the index is inside.
    unsafe { *counters.activity.as_mut_ptr().add(namespace) = mark };
}

/// Counts one transition; returns a number that no other on this CPU gives.
#[inline(always)]
fn count(counters: &mut Counters, family: u8, old: u8, new: u8) -> u64 {
    const SIZE: usize = 2 * STATE_COUNT * STATE_COUNT;
    let index = inside::<SIZE>(transition_index(family, old, new));
    // SAFETY: the index is inside.
    let place = unsafe { &mut *counters.transitions.as_mut_ptr().add(index) };
    *place += 1;
    (index as u64) << 48 | *place
}

/// Observes the time that a socket spent in a state.
#[inline(always)]
pub(crate) fn duration(counters: &mut Counters, state: u8, duration_ns: u64) {
    let state = inside::<STATE_COUNT>(state as usize);
    let bucket = inside::<DURATION_BUCKETS>(duration_bucket(duration_ns));
    // SAFETY: both indexes are inside.
    unsafe {
        let of_state = counters.durations.as_mut_ptr().add(state);
        (*of_state).sum_ns += duration_ns;
        *(&raw mut (*of_state).buckets).cast::<u64>().add(bucket) += 1;
    }
}

/// Counts one `time_wait -> close` and observes how long it took.
#[inline(always)]
pub(crate) fn time_wait_end(counters: &mut Counters, family: u8, duration_ns: u64) {
    count(counters, family, TcpState::TimeWait.number(), TcpState::Close.number());
    if duration_ns != DURATION_UNKNOWN {
        duration(counters, TcpState::TimeWait.number(), duration_ns);
    }
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
