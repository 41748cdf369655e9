//! The programs.

use crate::{
    kernel::{self, Process, Sock},
    maps::counters,
    tally::inside,
    time_wait::TimeWait,
    timers, transition,
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use core::ffi::c_void;
use tcpmon_common::STATE_COUNT;

/// `sock:inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
/// (`include/trace/events/sock.h`).
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn tcpmon_state(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let (old, new) = (state(ctx.arg(1)), state(ctx.arg(2)));
    // SAFETY: the tracepoint's first argument is a `struct sock *`.
    let Some(sock) = (unsafe { Sock::new(sk) }) else { return 0 };
    let Some(counters) = counters() else { return 0 };
    // SAFETY: this CPU's own value. From Linux 6.1 on the kernel does not let the program
    // interrupt itself (`__bpf_trace_run()`): it skips the run and counts it, as is exported. Before,
    // an interrupt in the middle of an addition could make one count fall short.
    let counters = unsafe { &mut *counters };
    transition::observe(&ctx, counters, sock, old, new);
    0
}

/// A state's number. The kernel has none that does not fit.
#[inline(always)]
fn state(number: i32) -> u8 {
    inside::<STATE_COUNT>(number as usize) as u8
}

/// `timer:timer_start(struct timer_list *timer, ...)` (`include/trace/events/timer.h`; what follows
/// the timer differs between kernels).
#[btf_tracepoint(function = "timer_start")]
pub(crate) fn tcpmon_timer_start(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's first argument is a `struct timer_list *`.
    let Some(socket) = (unsafe { TimeWait::of_timer(ctx.arg(0)) }) else { return 0 };
    let Some(counters) = counters() else { return 0 };
    // SAFETY: this CPU's own value, of which the timers' probes have members of their own.
    timers::started(unsafe { &mut *counters }, socket);
    0
}

/// `timer:timer_cancel(struct timer_list *timer)`.
#[btf_tracepoint(function = "timer_cancel")]
pub(crate) fn tcpmon_timer_cancel(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: as above.
    let Some(socket) = (unsafe { TimeWait::of_timer(ctx.arg(0)) }) else { return 0 };
    let Some(counters) = counters() else { return 0 };
    // SAFETY: as above.
    timers::cancelled(unsafe { &mut *counters }, socket);
    0
}

/// `timer:timer_expire_entry(struct timer_list *timer, unsigned long baseclk)`.
#[btf_tracepoint(function = "timer_expire_entry")]
pub(crate) fn tcpmon_timer_expire(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: as above.
    let Some(socket) = (unsafe { TimeWait::of_timer(ctx.arg(0)) }) else { return 0 };
    let Some(counters) = counters() else { return 0 };
    // SAFETY: as above.
    timers::expired(unsafe { &mut *counters }, socket);
    0
}

/// Learns which function the timers of time-wait sockets call, where nobody else tells: from the
/// timer of one socket, which the daemon makes for it.
#[btf_tracepoint(function = "timer_start")]
pub(crate) fn tcpmon_timer_learn(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's first argument is a `struct timer_list *`.
    unsafe { TimeWait::learn(ctx.arg(0)) };
    0
}

/// What an iterator over tasks and their files is given
/// (`struct bpf_iter__task_file`, `kernel/bpf/task_iter.c`).
#[repr(C)]
pub(crate) struct TaskFileContext {
    meta: *const c_void,
    task: *const c_void,
    fd: u32,
    file: *mut c_void,
}

const _: () = assert!(core::mem::offset_of!(TaskFileContext, file) == 24);

/// Names the owners of sockets that are older than the probes.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn tcpmon_owners(ctx: *const TaskFileContext) -> i32 {
    // SAFETY: the kernel gives an iterator's program its context.
    let (task, file) = unsafe {
        ((&raw const (*ctx).task).read_volatile(), (&raw const (*ctx).file).read_volatile())
    };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: `file` is a `struct file *`, `task` a `struct task_struct *`.
    unsafe {
        if let Some(sock) = kernel::sock_of_file(file) {
            transition::adopt(sock, Process::of_task(task));
        }
    }
    0
}
