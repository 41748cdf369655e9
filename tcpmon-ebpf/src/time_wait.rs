//! Reading a time-wait socket from its timer.
//!
//! The tracepoints of timers give a `struct timer_list *`. The socket around it is no type that
//! the verifier would know the result by, so it is read by `bpf_probe_read_kernel()`, which
//! answers an address that has become invalid with an error.

use crate::{
    kernel::{AF_INET6, NOT_THERE, constant, offset, read},
    maps::LEARNT,
};
use aya_ebpf::helpers::bpf_probe_read_kernel;
use core::ffi::c_void;
use tcpmon_common::{Address, Family, TcpState};

/// A network namespace, by its number, which another may have had before, and by its cookie, which
/// none ever had.
#[derive(Clone, Copy)]
pub(crate) struct Netns {
    pub(crate) inode: u32,
    pub(crate) cookie: u64,
}

/// A `struct inet_timewait_sock` in the time-wait table.
#[derive(Clone, Copy)]
pub(crate) struct TimeWait(u64);

impl TimeWait {
    /// The time-wait socket that lives by this timer; `None` for any other timer.
    ///
    /// # Safety
    ///
    /// `timer` is a `struct timer_list *` that the verifier knows as such.
    #[inline(always)]
    pub(crate) unsafe fn of_timer(timer: *const c_void) -> Option<Self> {
        // SAFETY: by the caller.
        let function: u64 = unsafe { read!(timer, timer_function) };
        (function == constant!(tw_handler)).then(|| Self(timer as u64 - offset!(tw_timer)))
    }

    /// Notes the function of this timer if it is that of the socket in [`LEARNT`].
    ///
    /// # Safety
    ///
    /// As [`Self::of_timer`].
    #[inline(always)]
    pub(crate) unsafe fn learn(timer: *const c_void) {
        let Some(learnt) = LEARNT.get_ptr_mut(0) else { return };
        // SAFETY: by the caller; a pointer to a map's value.
        unsafe {
            let around = Self(timer as u64 - offset!(tw_timer));
            if (*learnt).cookie != 0 && around.cookie() == (*learnt).cookie {
                (*learnt).function = read!(timer, timer_function);
            }
        }
    }

    /// Reads a member of its `sock_common`; 0 where it cannot be read.
    #[inline(always)]
    fn peek<T: Default>(self, offset: u64) -> T {
        peek(self.0 + offset!(tw_common) + offset)
    }

    /// Its address, to compare, not to follow.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0
    }

    /// The cookie, that of the full socket before it; 0 if nobody ever asked for it
    /// (`inet_twsk_alloc()` in net/ipv4/inet_timewait_sock.c).
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        self.peek(offset!(common_cookie))
    }

    /// Its network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> Netns {
        let net: u64 = self.peek(offset!(common_net));
        Netns { inode: peek(net + offset!(net_inum)), cookie: peek(net + offset!(net_cookie)) }
    }

    /// The address family.
    #[inline(always)]
    pub(crate) fn family(self) -> Family {
        if self.peek::<u16>(offset!(common_family)) == AF_INET6 {
            Family::Ipv6
        } else {
            Family::Ipv4
        }
    }

    /// Whether it entered before the peer's FIN had come (`tcp_time_wait()` in
    /// net/ipv4/tcp_minisocks.c).
    #[inline(always)]
    pub(crate) fn is_in_fin_wait2(self) -> bool {
        peek::<u8>(self.0 + offset!(tw_substate)) == TcpState::FinWait2.number()
    }

    /// Whether the connection had TCP timestamps (`tcp_time_wait()` keeps when one came last).
    #[inline(always)]
    pub(crate) fn has_timestamps(self) -> bool {
        peek::<u32>(self.0 + offset!(tw_timestamp)) != 0
    }

    /// Whether it has been taken out of the table of connections while its timer runs: only a
    /// connect() that takes its port over does that (`__inet_check_established()` in
    /// net/ipv4/inet_hashtables.c, where the kernel counts `TWRecycled`); everybody else stops the
    /// timer first (`inet_twsk_deschedule_put()`).
    #[inline(always)]
    pub(crate) fn is_taken_over(self) -> bool {
        self.peek::<u64>(offset!(common_pprev)) == 0
    }

    /// Local port, host order.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        self.peek(offset!(common_num))
    }

    /// Remote port, host order.
    #[inline(always)]
    pub(crate) fn remote_port(self) -> u16 {
        u16::from_be(self.peek(offset!(common_dport)))
    }

    /// Local and remote address.
    #[inline(always)]
    pub(crate) fn addresses(self, family: Family) -> (Address, Address) {
        match family {
            Family::Ipv4 => {
                (self.ipv4(offset!(common_rcv_saddr)), self.ipv4(offset!(common_daddr)))
            }
            Family::Ipv6 => {
                (self.ipv6(offset!(common_v6_rcv_saddr)), self.ipv6(offset!(common_v6_daddr)))
            }
        }
    }

    #[inline(always)]
    fn ipv4(self, offset: u64) -> Address {
        // By words: of bytes, the compiler would make a call to a loop.
        let words = [self.peek::<u32>(offset), 0, 0, 0];
        // SAFETY: sixteen bytes without a meaning of their own.
        unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
    }

    #[inline(always)]
    fn ipv6(self, offset: u64) -> Address {
        let words = if offset == NOT_THERE { [0; 2] } else { self.peek::<[u64; 2]>(offset) };
        // SAFETY: as above.
        unsafe { core::mem::transmute::<[u64; 2], Address>(words) }
    }
}

/// Reads a `T` from the kernel; its default where that cannot be done.
#[inline(always)]
fn peek<T: Default>(address: u64) -> T {
    // SAFETY: the helper checks the address and writes a whole `T`, an integer or bytes.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}
