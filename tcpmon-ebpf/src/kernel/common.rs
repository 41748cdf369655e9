//! What full sockets, time-wait sockets and request sockets have in common, as the iterator over
//! sockets is given it.

use super::read;
use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_skc_to_tcp_timewait_sock};
use core::ffi::c_void;
use tcpmon_common::{ABSENT, Family, TcpState};

/// A `struct sock_common` of TCP over IPv4 or IPv6.
#[derive(Clone, Copy)]
pub(crate) struct SockCommon {
    skc: *const c_void,
    pub(crate) family: Family,
    /// The state's number: `TIME_WAIT` for everything in the time-wait table.
    pub(crate) state: u8,
}

impl SockCommon {
    /// `None` for another address family.
    ///
    /// # Safety
    ///
    /// `skc` is a `struct sock_common *` that the verifier knows as such.
    #[inline(always)]
    pub(crate) unsafe fn new(skc: *const c_void) -> Option<Self> {
        // SAFETY: by the caller.
        let (family, state) = unsafe {
            (read::<u16>(skc, offset!(common_family)), read::<u8>(skc, offset!(common_state)))
        };
        let family = match family {
            super::AF_INET => Family::Ipv4,
            super::AF_INET6 => Family::Ipv6,
            _ => return None,
        };
        Some(Self { skc, family, state })
    }

    /// The local port.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        // SAFETY: a `struct sock_common *`.
        unsafe { read(self.skc, offset!(common_num)) }
    }

    /// The remote port; 0 of a listener.
    #[inline(always)]
    pub(crate) fn remote_port(self) -> u16 {
        // SAFETY: a `struct sock_common *`.
        u16::from_be(unsafe { read(self.skc, offset!(common_dport)) })
    }

    /// The cookie; given to the socket now if it had none, so that it can be followed from here
    /// on: it keeps it when it goes to the time-wait table.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        // SAFETY: a `struct sock_common *`.
        let cookie = unsafe { read(self.skc, offset!(common_cookie)) };
        if cookie != 0 {
            return cookie;
        }
        // SAFETY: a `struct sock_common *`; `__sock_gen_cookie()` (net/core/sock_diag.c) touches
        // nothing behind it.
        unsafe { bpf_get_socket_cookie(self.skc.cast_mut()) }
    }

    /// What the socket waits for in the time-wait table: the peer's FIN (`FIN_WAIT2`), or late
    /// segments (`TIME_WAIT`).
    #[inline(always)]
    pub(crate) fn substate(self) -> u8 {
        // SAFETY: a `struct sock_common *`.
        let waiting = unsafe { bpf_skc_to_tcp_timewait_sock(self.skc.cast_mut()) };
        if waiting.is_null() {
            return TcpState::TimeWait.number();
        }
        // SAFETY: the helper returned a `struct tcp_timewait_sock *`.
        unsafe { read(waiting.cast(), offset!(timewait_substate)) }
    }

    /// Local and remote address, in words of the machine's byte order.
    #[inline(always)]
    pub(crate) fn addresses(self) -> ([u64; 2], [u64; 2]) {
        match self.family {
            Family::Ipv4 => {
                (self.ipv4(offset!(common_rcv_saddr)), self.ipv4(offset!(common_daddr)))
            }
            Family::Ipv6 => {
                (self.ipv6(offset!(common_v6_rcv_saddr)), self.ipv6(offset!(common_v6_daddr)))
            }
        }
    }

    #[inline(always)]
    fn ipv4(self, offset: u32) -> [u64; 2] {
        // SAFETY: a `struct sock_common *`.
        let address: u32 = unsafe { read(self.skc, offset) };
        let [a, b, c, d] = address.to_ne_bytes();
        [u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]), 0]
    }

    #[inline(always)]
    fn ipv6(self, offset: u32) -> [u64; 2] {
        if offset == ABSENT {
            return [0; 2];
        }
        // SAFETY: a `struct sock_common *`.
        unsafe { [read(self.skc, offset), read(self.skc, offset + 8)] }
    }
}
