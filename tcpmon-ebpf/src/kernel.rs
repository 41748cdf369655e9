//! Reading the kernel's structures, at the offsets that the daemon found in the kernel's BTF.
//!
//! The verifier knows the pointers by their type and turns a read through one that has become
//! invalid into a read of 0, so none of these reads can fault. It also proves that each read
//! stays inside a member of the type, for the offsets that are in force: they are constants of the
//! code that it is given.

use aya_ebpf::helpers::{
    bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_get_socket_cookie, bpf_ktime_get_ns,
    bpf_skc_to_tcp_sock,
};
use core::{arch::asm, ffi::c_void};
use tcpmon_common::{ABSENT, Address, Comm, Family};

/// A number that the daemon puts into the code: a member of `tcpmon_common::Constants`.
macro_rules! constant {
    ($($member:ident).+) => {
        $crate::kernel::put_by_daemon::<
            {
                tcpmon_common::Placeholder::Constant {
                    offset: core::mem::offset_of!(tcpmon_common::Constants, $($member).+),
                    size: tcpmon_common::size_of_member(|constants| &constants.$($member).+),
                }
                .number()
            },
        >()
    };
}
pub(crate) use constant;

/// The offset of one member of a kernel structure, where it is not for [`read`].
macro_rules! offset {
    ($member:ident) => {
        $crate::kernel::constant!(offsets.$member)
    };
}
pub(crate) use offset;

/// The number, or the address, for which `PLACEHOLDER` stands in the object.
///
/// Not `pure`: the compiler would keep it in a register or on the stack from one use to the next,
/// where to load it anew costs nothing.
#[inline(always)]
pub(crate) fn put_by_daemon<const PLACEHOLDER: u64>() -> u64 {
    let number;
    // SAFETY: loads a number into a register.
    unsafe {
        asm!(
            "{number} = {placeholder} ll",
            number = out(reg) number,
            placeholder = const PLACEHOLDER,
            options(nomem, nostack),
        );
    }
    number
}

/// [`ABSENT`], as a constant of the code.
pub(crate) const NOT_THERE: u64 = ABSENT as u64;

/// `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// The number of the CPU that this runs on.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_smp_processor_id() }
}

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

/// Reads a member of a kernel structure, through a pointer whose type the verifier knows.
macro_rules! read {
    ($base:expr, $member:ident) => {
        $crate::kernel::Word::read::<{ $crate::kernel::displacement!($member) }>($base)
    };
}
pub(crate) use read;

/// What stands for the offset of one member in an instruction that reads it.
macro_rules! displacement {
    ($member:ident) => {
        tcpmon_common::displacement(core::mem::offset_of!(tcpmon_common::Offsets, $member))
    };
}
pub(crate) use displacement;

/// What one instruction reads.
pub(crate) trait Word: Copy {
    /// Reads one, at the offset for which `DISPLACEMENT` stands in the object.
    ///
    /// # Safety
    ///
    /// `base` comes from the kernel: a program argument, a helper's result or a read through one.
    unsafe fn read<const DISPLACEMENT: i16>(base: *const c_void) -> Self;
}

macro_rules! word {
    ($word:ty, $instruction:literal) => {
        impl Word for $word {
            #[inline(always)]
            unsafe fn read<const DISPLACEMENT: i16>(base: *const c_void) -> Self {
                let word: u64;
                // SAFETY: the verifier checks the read against the pointer's type; the instruction
                // clears the rest of the register.
                unsafe {
                    asm!(
                        concat!("{word} = *(", $instruction, " *)({base} - {displacement})"),
                        word = lateout(reg) word,
                        base = in(reg) base,
                        displacement = const -DISPLACEMENT,
                        options(nostack, readonly),
                    );
                    core::hint::assert_unchecked(word <= u64::MAX >> (64 - 8 * size_of::<Self>()));
                }
                word as Self
            }
        }
    };
}
word!(u8, "u8");
word!(u16, "u16");
word!(u32, "u32");
word!(i32, "u32");
word!(u64, "u64");
word!(*const c_void, "u64");

/// Reads a `T` at `offset` bytes from such a pointer, where one member is more than one word.
///
/// # Safety
///
/// As [`Word::read`].
#[inline(always)]
unsafe fn read_at<T: Copy>(base: *const c_void, offset: u64) -> T {
    // SAFETY: the verifier checks the read against the pointer's type.
    unsafe { core::ptr::read_volatile(base.byte_add(offset as usize).cast::<T>()) }
}

/// A `struct sock` known to be TCP over IPv4 or IPv6.
#[derive(Clone, Copy)]
pub(crate) struct Sock {
    sk: *const c_void,
    pub(crate) family: Family,
}

impl Sock {
    /// `None` for anything but TCP over IP: MPTCP, SCTP and DCCP use the same tracepoint.
    ///
    /// # Safety
    ///
    /// `sk` is a `struct sock *` that the verifier knows as such.
    #[inline(always)]
    pub(crate) unsafe fn new(sk: *const c_void) -> Option<Self> {
        // SAFETY: by the caller.
        let (protocol, family): (u16, u16) =
            unsafe { (read!(sk, sock_protocol), read!(sk, sock_family)) };
        if protocol != IPPROTO_TCP {
            return None;
        }
        let family = match family {
            AF_INET => Family::Ipv4,
            AF_INET6 => Family::Ipv6,
            _ => return None,
        };
        Some(Self { sk, family })
    }

    /// Reads a member of its `struct tcp_sock`; the default where the kernel says that it is none.
    /// Asked for only where it is needed: it takes a call into the kernel.
    #[inline(always)]
    fn of_tcp<T: Word + Default, const DISPLACEMENT: i16>(self) -> T {
        // SAFETY: `sk` is a `struct sock *`.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.sk.cast_mut()) };
        if tcp.is_null() {
            return T::default();
        }
        // SAFETY: `tcp` is a `struct tcp_sock *`.
        unsafe { T::read::<DISPLACEMENT>(tcp.cast()) }
    }

    /// The address of the structure, to compare, not to follow.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.sk as u64
    }

    /// The socket's cookie; given to it now if it had none.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        // SAFETY: `sk` is a `struct sock *`.
        let cookie: u64 = unsafe { read!(self.sk, sock_cookie) };
        if cookie != 0 {
            return cookie;
        }
        // SAFETY: `sk` is a `struct sock *`.
        unsafe { bpf_get_socket_cookie(self.sk.cast_mut()) }
    }

    /// The present state's number.
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        // SAFETY: `sk` is a `struct sock *`.
        unsafe { read!(self.sk, sock_state) }
    }

    /// The local port that the socket holds now: 0 once it is closed, and in connect() before
    /// the kernel has chosen one.
    #[inline(always)]
    pub(crate) fn held_port(self) -> u16 {
        // SAFETY: `sk` is a `struct sock *`.
        unsafe { read!(self.sk, sock_num) }
    }

    /// The local port as last set: it outlives the close, and even a later connect() that finds
    /// no new one.
    #[inline(always)]
    pub(crate) fn last_port(self) -> u16 {
        u16::from_be(self.of_tcp::<_, { displacement!(tcp_sport) }>())
    }

    /// When TCP began to deal with what it deals with now, a segment or a timer, by its own reading
    /// of `CLOCK_MONOTONIC`, in nanoseconds (`tcp_mstamp_refresh()` in net/ipv4/tcp_output.c); in a
    /// system call, when it last did. 0 where the kernel keeps no such time.
    #[inline(always)]
    pub(crate) fn stamp_ns(self) -> u64 {
        if offset!(tcp_clock) == NOT_THERE {
            0
        } else {
            self.of_tcp::<_, { displacement!(tcp_clock) }>()
        }
    }

    /// The remote port; 0 before connect().
    #[inline(always)]
    pub(crate) fn remote_port(self) -> u16 {
        // SAFETY: `sk` is a `struct sock *`.
        u16::from_be(unsafe { read!(self.sk, sock_dport) })
    }

    /// The pending error, 0 if none.
    #[inline(always)]
    pub(crate) fn error(self) -> i32 {
        // SAFETY: `sk` is a `struct sock *`.
        unsafe { read!(self.sk, sock_err) }
    }

    /// Whether a process owns the socket's lock (`lock_sock()`). If none does, this mostly is softirq,
    /// and in any case the CPU stays the same until the lock is let go of.
    #[inline(always)]
    pub(crate) fn is_owned(self) -> bool {
        // SAFETY: `sk` is a `struct sock *`.
        unsafe { u32::read::<{ displacement!(sock_owned) }>(self.sk) != 0 }
    }

    /// Inode of the socket's network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        // SAFETY: `sk` is a `struct sock *`, and `skc_net.net` a `struct net *`.
        unsafe {
            let net: *const c_void = read!(self.sk, sock_net);
            read!(net, net_inum)
        }
    }

    /// Cookie of the socket's network namespace.
    #[inline(always)]
    pub(crate) fn net_cookie(self) -> u64 {
        // SAFETY: as `netns`.
        unsafe {
            let net: *const c_void = read!(self.sk, sock_net);
            read!(net, net_cookie)
        }
    }

    /// Local and remote address.
    #[inline(always)]
    pub(crate) fn addresses(self) -> (Address, Address) {
        match self.family {
            Family::Ipv4 => (
                self.ipv4::<{ displacement!(sock_rcv_saddr) }>(),
                self.ipv4::<{ displacement!(sock_daddr) }>(),
            ),
            Family::Ipv6 => {
                (self.ipv6(offset!(sock_v6_rcv_saddr)), self.ipv6(offset!(sock_v6_daddr)))
            }
        }
    }

    #[inline(always)]
    fn ipv4<const DISPLACEMENT: i16>(self) -> Address {
        let mut address = [0u8; 16];
        // SAFETY: `sk` is a `struct sock *`.
        let bytes = unsafe { u32::read::<DISPLACEMENT>(self.sk) };
        address[..4].copy_from_slice(&bytes.to_ne_bytes());
        address
    }

    #[inline(always)]
    fn ipv6(self, offset: u64) -> Address {
        if offset == NOT_THERE {
            return [0; 16];
        }
        let mut address = [0u8; 16];
        // SAFETY: `sk` is a `struct sock *`. The words are read as the kernel declares them.
        let words: [u32; 4] = unsafe {
            [
                read_at(self.sk, offset),
                read_at(self.sk, offset + 4),
                read_at(self.sk, offset + 8),
                read_at(self.sk, offset + 12),
            ]
        };
        address[..4].copy_from_slice(&words[0].to_ne_bytes());
        address[4..8].copy_from_slice(&words[1].to_ne_bytes());
        address[8..12].copy_from_slice(&words[2].to_ne_bytes());
        address[12..].copy_from_slice(&words[3].to_ne_bytes());
        address
    }

    /// What a listener and a socket just cloned from it have in common, and no other socket has.
    ///
    /// `tcp_init_sock()` makes the empty list `tsorted_sent_queue` point to itself.
    /// `tcp_create_openreq_child()` clones the listener, which reports `LISTEN -> SYN_RECV` of the
    /// clone, and only then makes the clone's list its own: until then its `next` still points
    /// into the listener (`net/ipv4/tcp_minisocks.c`, the same from 4.15 on). The value is
    /// compared, never followed, and only ever matched against listeners that are alive.
    #[inline(always)]
    pub(crate) fn listener_mark(self) -> u64 {
        self.of_tcp::<_, { displacement!(tcp_sent_queue) }>()
    }
}

/// A `struct task_struct`, the thread-group leader: the process.
#[derive(Clone, Copy)]
pub(crate) struct Process(*const c_void);

impl Process {
    /// The process that runs on this CPU.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper takes nothing and returns a `struct task_struct *`.
        unsafe { Self::of_task(bpf_get_current_task_btf().cast()) }
    }

    /// The process that a task belongs to.
    ///
    /// # Safety
    ///
    /// `task` is a `struct task_struct *` that the verifier knows as such.
    #[inline(always)]
    pub(crate) unsafe fn of_task(task: *const c_void) -> Self {
        // SAFETY: by the caller.
        Self(unsafe { read!(task, task_group_leader) })
    }

    /// The process id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        // SAFETY: a `struct task_struct *`.
        unsafe { read!(self.0, task_tgid) }
    }

    /// Start of the process, nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub(crate) fn birth_ns(self) -> u64 {
        // SAFETY: a `struct task_struct *`.
        unsafe { read!(self.0, task_start_boottime) }
    }

    /// Name of the process.
    #[inline(always)]
    pub(crate) fn comm(self) -> Comm {
        let mut comm = [0u8; 16];
        // SAFETY: a `struct task_struct *`; `comm` is 16 bytes, and 8-aligned or not, the kernel
        // is read bytewise by nothing but whole words here, as it allows inside an array.
        let words: [u64; 2] =
            unsafe { [read!(self.0, task_comm), read_at(self.0, offset!(task_comm) + 8)] };
        comm[..8].copy_from_slice(&words[0].to_ne_bytes());
        comm[8..].copy_from_slice(&words[1].to_ne_bytes());
        comm
    }

    /// Id of the process's cgroup, and whether it is of a version 1 hierarchy.
    ///
    /// The unified hierarchy's wherever the process has been put into one; a process that is at
    /// its root may still be told by the version 1 hierarchies of a host that uses those.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> (u64, bool) {
        /// The id of a hierarchy's root (`kernfs_create_root()`: ids are given from 1).
        const ROOT: u64 = 1;
        // SAFETY: `cgroups` is a `struct css_set *`, `dfl_cgrp` a `struct cgroup *`.
        let (css_set, unified) = unsafe {
            let css_set: *const c_void = read!(self.0, task_cgroups);
            (css_set, cgroup_id(read!(css_set, css_set_dfl_cgrp)))
        };
        if unified != ROOT || offset!(css_set_v1_subsys) == NOT_THERE {
            return (unified, false);
        }
        // SAFETY: an element of `subsys` is a `struct cgroup_subsys_state *`.
        let version1 = unsafe {
            let css: *const c_void = read!(css_set, css_set_v1_subsys);
            cgroup_id(read!(css, css_cgroup))
        };
        if version1 > ROOT { (version1, true) } else { (unified, false) }
    }
}

/// # Safety
///
/// `cgroup` is a `struct cgroup *` that the verifier knows as such.
#[inline(always)]
unsafe fn cgroup_id(cgroup: *const c_void) -> u64 {
    // SAFETY: by the caller; `kn` is a `struct kernfs_node *`.
    unsafe {
        let node: *const c_void = read!(cgroup, cgroup_kn);
        read!(node, kernfs_node_id)
    }
}

/// The socket of an open file, if it is one of TCP.
///
/// # Safety
///
/// `file` is a `struct file *` that the verifier knows as such.
#[inline(always)]
pub(crate) unsafe fn sock_of_file(file: *mut c_void) -> Option<Sock> {
    // SAFETY: by the caller.
    let socket = unsafe { aya_ebpf::helpers::bpf_sock_from_file(file.cast()) };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the helper returned a `struct socket *`.
    let sk: *const c_void = unsafe { read!(socket.cast(), socket_sk) };
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` of a `struct socket` is a `struct sock *`.
    unsafe { Sock::new(sk) }
}
