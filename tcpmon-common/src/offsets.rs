//! Where the fields that the probes read stand in the running kernel's structures.

/// An [`Offsets`] member that this kernel does not have and that the probes can do without.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets of kernel structure members, found by the daemon in the kernel's BTF and given to
/// the probes before they are loaded.
///
/// Offsets of members of embedded structures are given from the start of the outer one, the type
/// that the verifier knows the pointer by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `struct sock`: `__sk_common.skc_family`, u16.
    pub sock_family: u32,
    /// `struct sock`: `__sk_common.skc_num`, the local port in host order, u16.
    pub sock_num: u32,
    /// `struct sock`: `__sk_common.skc_dport`, the remote port in network order, u16.
    pub sock_dport: u32,
    /// `struct sock`: `__sk_common.skc_state`, u8.
    pub sock_state: u32,
    /// `struct sock`: `__sk_common.skc_daddr`, u32 in network order.
    pub sock_daddr: u32,
    /// `struct sock`: `__sk_common.skc_rcv_saddr`, u32 in network order.
    pub sock_rcv_saddr: u32,
    /// `struct sock`: `__sk_common.skc_v6_daddr`, 16 bytes; [`ABSENT`] without IPv6.
    pub sock_v6_daddr: u32,
    /// `struct sock`: `__sk_common.skc_v6_rcv_saddr`, 16 bytes; [`ABSENT`] without IPv6.
    pub sock_v6_rcv_saddr: u32,
    /// `struct sock`: `__sk_common.skc_net.net`, a `struct net *`.
    pub sock_net: u32,
    /// `struct sock`: `__sk_common.skc_cookie.counter`, u64.
    pub sock_cookie: u32,
    /// `struct sock`: `sk_protocol`, u16 (a byte-sized bit-field before Linux 5.6).
    pub sock_protocol: u32,
    /// `struct sock`: `sk_err`, int.
    pub sock_err: u32,
    /// `struct sock`: `sk_lock.owned`, int.
    pub sock_owned: u32,
    /// `struct net`: `ns.inum`, u32.
    pub net_inum: u32,
    /// `struct net`: `net_cookie`, u64.
    pub net_cookie: u32,
    /// `struct tcp_sock`: `inet_conn.icsk_inet.inet_sport`, network order, u16.
    pub tcp_sport: u32,
    /// `struct tcp_sock`: `tsorted_sent_queue.next`, a pointer.
    pub tcp_sent_queue: u32,
    /// `struct tcp_sock`: `tcp_clock_cache`, u64; [`ABSENT`] from a kernel that keeps no such time.
    pub tcp_clock: u32,
    /// `struct socket`: `sk`, a `struct sock *`.
    pub socket_sk: u32,
    /// `struct task_struct`: `group_leader`, a `struct task_struct *`.
    pub task_group_leader: u32,
    /// `struct task_struct`: `tgid`, int.
    pub task_tgid: u32,
    /// `struct task_struct`: `comm`, 16 bytes.
    pub task_comm: u32,
    /// `struct task_struct`: `start_boottime`, u64.
    pub task_start_boottime: u32,
    /// `struct task_struct`: `cgroups`, a `struct css_set *`.
    pub task_cgroups: u32,
    /// `struct css_set`: `dfl_cgrp`, a `struct cgroup *` of the unified hierarchy.
    pub css_set_dfl_cgrp: u32,
    /// `struct css_set`: `subsys[memory_cgrp_id]`, or `subsys[pids_cgrp_id]` where there is no
    /// memory controller, a `struct cgroup_subsys_state *`; [`ABSENT`] without either.
    pub css_set_v1_subsys: u32,
    /// `struct cgroup_subsys_state`: `cgroup`, a `struct cgroup *`.
    pub css_cgroup: u32,
    /// `struct cgroup`: `kn`, a `struct kernfs_node *`.
    pub cgroup_kn: u32,
    /// `struct kernfs_node`: `id`, u64, which is the directory's inode number.
    pub kernfs_node_id: u32,
    /// `struct sock_common`: `skc_nulls_node.pprev`, a pointer; null once the socket is out of the
    /// table of connections.
    pub common_pprev: u32,
    /// `struct sock_common`: `skc_net.net`, a `struct net *`.
    pub common_net: u32,
    /// `struct inet_timewait_sock`: `__tw_common`, a `struct sock_common`.
    pub tw_common: u32,
    /// `struct timer_list`: `function`, a pointer.
    pub timer_function: u32,
    /// `struct inet_timewait_sock`: `tw_timer`, a `struct timer_list`.
    pub tw_timer: u32,
    /// `struct inet_timewait_sock`: `tw_substate`, u8.
    pub tw_substate: u32,
    /// `struct sock_common`: `skc_family`, u16.
    pub common_family: u32,
    /// `struct sock_common`: `skc_num`, the local port in host order, u16.
    pub common_num: u32,
    /// `struct sock_common`: `skc_dport`, the remote port in network order, u16.
    pub common_dport: u32,
    /// `struct sock_common`: `skc_daddr`, u32 in network order.
    pub common_daddr: u32,
    /// `struct sock_common`: `skc_rcv_saddr`, u32 in network order.
    pub common_rcv_saddr: u32,
    /// `struct sock_common`: `skc_v6_daddr`, 16 bytes; [`ABSENT`] without IPv6.
    pub common_v6_daddr: u32,
    /// `struct sock_common`: `skc_v6_rcv_saddr`, 16 bytes; [`ABSENT`] without IPv6.
    pub common_v6_rcv_saddr: u32,
    /// `struct sock_common`: `skc_cookie.counter`, u64.
    pub common_cookie: u32,
    /// `struct tcp_timewait_sock`: `tw_ts_recent_stamp`, int, 0 without TCP timestamps.
    pub tw_timestamp: u32,
}

const _: () = assert!(size_of::<Offsets>() == 44 * 4 && align_of::<Offsets>() == 4);

#[cfg(feature = "user")]
crate::pod!(Offsets);
