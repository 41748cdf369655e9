//! The probes of tcpmon: one program on the tracepoint `sock:inet_sock_set_state`, three on those of
//! timers, by which time-wait sockets live, and one iterator that names the owners of sockets older
//! than the daemon.
//!
//! The probes count, remember and report; whatever user space can do is left to it. They are
//! built for the BPF target only, by `tcpmon/build.rs`; for the host this crate is an empty
//! program, so that the whole workspace can be checked at once.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// For atomic instructions, which `core` does not offer for this target: see `atomic`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod accepted;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod cells;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod listeners;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod owner;
#[cfg(target_arch = "bpf")]
mod probes;
#[cfg(target_arch = "bpf")]
mod record;
#[cfg(target_arch = "bpf")]
mod ring;
#[cfg(target_arch = "bpf")]
mod services;
#[cfg(target_arch = "bpf")]
mod sockets;
#[cfg(target_arch = "bpf")]
mod tally;
#[cfg(target_arch = "bpf")]
mod time_wait;
#[cfg(target_arch = "bpf")]
mod timers;
#[cfg(target_arch = "bpf")]
mod transition;

/// The kernel lends `bpf_get_socket_cookie` and others only to programs under a licence that it
/// takes for GPL-compatible. The source is MIT OR Apache-2.0; the object is offered under MIT or
/// GPL-2.0.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that could get here, so nothing ever does.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
