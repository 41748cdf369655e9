//! Finds the places of all the kernel fields that the probes read.
//!
//! What each one is for stands at [`Offsets`]. Each is looked up with the size that the probes
//! read it with: a field that has changed its size is as unusable as one that is gone, and better
//! refused here, by name, than read wrongly.

use std::fs;
use std::io;

use tcpmon_common::{ABSENT, Offsets};
use thiserror::Error;

use super::btf::{Btf, BtfError, VMLINUX};

/// Why the places of the kernel's fields are not known.
#[derive(Debug, Error)]
pub enum OffsetsError {
    /// The kernel shows no BTF, or it cannot be read.
    #[error("cannot read {VMLINUX}: {0}")]
    Read(#[source] io::Error),
    /// The BTF is not what this program knows as BTF.
    #[error("cannot understand {VMLINUX}: {0}")]
    Parse(#[source] BtfError),
    /// Fields are missing or of another shape than the probes can read.
    #[error("this kernel's structures are not those that the probes read: {}", .0.join("; "))]
    Unusable(Vec<String>),
}

/// The places in the running kernel.
///
/// Takes about 6 MB while it runs and nothing afterwards.
///
/// # Errors
///
/// If the kernel's BTF cannot be read, or see [`resolve`].
pub fn of_running_kernel() -> Result<Offsets, OffsetsError> {
    let blob = fs::read(VMLINUX).map_err(OffsetsError::Read)?;
    resolve(&Btf::parse(&blob).map_err(OffsetsError::Parse)?)
}

/// The places in the kernel that this BTF describes.
///
/// # Errors
///
/// [`OffsetsError::Unusable`] with everything that is missing, not only the first.
pub fn resolve(btf: &Btf<'_>) -> Result<Offsets, OffsetsError> {
    let mut offsets = Offsets::default();
    let mut faults = Vec::new();
    for field in FIELDS {
        match field.find(btf) {
            Ok(offset) => *(field.slot)(&mut offsets) = offset,
            Err(fault) => faults.push(fault),
        }
    }
    match v1_subsystem(btf) {
        Ok(offset) => offsets.css_set_v1_subsys = offset,
        Err(fault) => faults.push(fault),
    }
    if faults.is_empty() { Ok(offsets) } else { Err(OffsetsError::Unusable(faults)) }
}

/// Bytes of a kernel pointer.
const POINTER: u32 = 8;

/// How far into a structure an instruction reads.
const FURTHEST: u32 = i16::MAX as u32;

/// In place of a size: any will do.
const ANY: u32 = 0;

/// A field that the probes read.
struct Field {
    /// The structure whose pointer the verifier knows.
    outer: &'static str,
    /// The way from there, as [`Btf::member_offset`] takes it.
    path: &'static str,
    /// Bytes that the probes read.
    size: u32,
    /// Whether the probes can do without; [`ABSENT`] is then put in.
    optional: bool,
    /// Where the result belongs.
    slot: fn(&mut Offsets) -> &mut u32,
}

impl Field {
    const fn new(
        slot: fn(&mut Offsets) -> &mut u32,
        outer: &'static str,
        path: &'static str,
        size: u32,
    ) -> Self {
        Self { outer, path, size, optional: false, slot }
    }

    /// A structure, of which only the place is of interest.
    const fn whole(
        slot: fn(&mut Offsets) -> &mut u32,
        outer: &'static str,
        path: &'static str,
    ) -> Self {
        Self { outer, path, size: ANY, optional: false, slot }
    }

    const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Its offset, or in words why it cannot be used.
    fn find(&self, btf: &Btf<'_>) -> Result<u32, String> {
        match btf.member_offset(self.outer, self.path) {
            Ok(member) if member.bit_field.is_some() => {
                Err(format!("{} of struct {} is a bit-field", self.path, self.outer))
            }
            Ok(member) if self.size != ANY && member.size != self.size => Err(format!(
                "{} of struct {} has {} bytes, {} expected",
                self.path, self.outer, member.size, self.size
            )),
            Ok(member) if member.offset > FURTHEST => Err(format!(
                "{} of struct {} stands {} bytes in, further than the {FURTHEST} that the probes read",
                self.path, self.outer, member.offset
            )),
            Ok(member) => Ok(member.offset),
            Err(error) if self.optional && error.is_absence() => Ok(ABSENT),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Every field but those of cgroup version 1, see [`v1_subsystem`].
const FIELDS: &[Field] = &[
    Field::new(|to| &mut to.sock_family, "sock", "__sk_common.skc_family", 2),
    Field::new(|to| &mut to.sock_num, "sock", "__sk_common.skc_num", 2),
    Field::new(|to| &mut to.sock_dport, "sock", "__sk_common.skc_dport", 2),
    Field::new(|to| &mut to.sock_state, "sock", "__sk_common.skc_state", 1),
    Field::new(|to| &mut to.sock_daddr, "sock", "__sk_common.skc_daddr", 4),
    Field::new(|to| &mut to.sock_rcv_saddr, "sock", "__sk_common.skc_rcv_saddr", 4),
    // Gone from a kernel that is built without IPv6.
    Field::new(|to| &mut to.sock_v6_daddr, "sock", "__sk_common.skc_v6_daddr", 16).optional(),
    Field::new(|to| &mut to.sock_v6_rcv_saddr, "sock", "__sk_common.skc_v6_rcv_saddr", 16)
        .optional(),
    Field::new(|to| &mut to.sock_net, "sock", "__sk_common.skc_net.net", POINTER),
    Field::new(|to| &mut to.sock_cookie, "sock", "__sk_common.skc_cookie.counter", 8),
    Field::new(|to| &mut to.sock_protocol, "sock", "sk_protocol", 2),
    Field::new(|to| &mut to.sock_err, "sock", "sk_err", 4),
    Field::new(|to| &mut to.sock_owned, "sock", "sk_lock.owned", 4),
    Field::new(|to| &mut to.net_inum, "net", "ns.inum", 4),
    Field::new(|to| &mut to.net_cookie, "net", "net_cookie", 8),
    Field::new(|to| &mut to.tcp_sport, "tcp_sock", "inet_conn.icsk_inet.inet_sport", 2),
    Field::new(|to| &mut to.tcp_sent_queue, "tcp_sock", "tsorted_sent_queue.next", POINTER),
    Field::new(|to| &mut to.tcp_clock, "tcp_sock", "tcp_clock_cache", 8).optional(),
    Field::new(|to| &mut to.socket_sk, "socket", "sk", POINTER),
    Field::new(|to| &mut to.task_group_leader, "task_struct", "group_leader", POINTER),
    Field::new(|to| &mut to.task_tgid, "task_struct", "tgid", 4),
    Field::new(|to| &mut to.task_comm, "task_struct", "comm", 16),
    Field::new(|to| &mut to.task_start_boottime, "task_struct", "start_boottime", 8),
    Field::new(|to| &mut to.task_cgroups, "task_struct", "cgroups", POINTER),
    Field::new(|to| &mut to.css_set_dfl_cgrp, "css_set", "dfl_cgrp", POINTER),
    Field::new(|to| &mut to.css_cgroup, "cgroup_subsys_state", "cgroup", POINTER),
    Field::new(|to| &mut to.cgroup_kn, "cgroup", "kn", POINTER),
    // A union of eight bytes before Linux 5.5, the same number nevertheless.
    Field::new(|to| &mut to.kernfs_node_id, "kernfs_node", "id", 8),
    Field::new(|to| &mut to.common_pprev, "sock_common", "skc_nulls_node.pprev", POINTER),
    Field::new(|to| &mut to.common_net, "sock_common", "skc_net.net", POINTER),
    Field::whole(|to| &mut to.tw_common, "inet_timewait_sock", "__tw_common"),
    Field::new(|to| &mut to.timer_function, "timer_list", "function", POINTER),
    Field::whole(|to| &mut to.tw_timer, "inet_timewait_sock", "tw_timer"),
    Field::new(|to| &mut to.tw_substate, "inet_timewait_sock", "tw_substate", 1),
    Field::new(|to| &mut to.common_family, "sock_common", "skc_family", 2),
    Field::new(|to| &mut to.common_num, "sock_common", "skc_num", 2),
    Field::new(|to| &mut to.common_dport, "sock_common", "skc_dport", 2),
    Field::new(|to| &mut to.common_daddr, "sock_common", "skc_daddr", 4),
    Field::new(|to| &mut to.common_rcv_saddr, "sock_common", "skc_rcv_saddr", 4),
    Field::new(|to| &mut to.common_v6_daddr, "sock_common", "skc_v6_daddr", 16).optional(),
    Field::new(|to| &mut to.common_v6_rcv_saddr, "sock_common", "skc_v6_rcv_saddr", 16).optional(),
    Field::new(|to| &mut to.common_cookie, "sock_common", "skc_cookie.counter", 8),
    Field::new(|to| &mut to.tw_timestamp, "tcp_timewait_sock", "tw_ts_recent_stamp", 4),
];

/// The element of `css_set.subsys` that leads to a process's cgroup in a version 1 hierarchy: the
/// memory controller's, which systemd and every container runtime use, or the pids controller's.
/// [`ABSENT`] where the kernel has neither.
fn v1_subsystem(btf: &Btf<'_>) -> Result<u32, String> {
    let mut index = None;
    for controller in ["memory_cgrp_id", "pids_cgrp_id"] {
        match btf.enum_value("cgroup_subsys_id", controller) {
            Ok(value) => {
                index = Some(value);
                break;
            }
            Err(error) if error.is_absence() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let Some(index) = index else { return Ok(ABSENT) };
    let array = btf.member_offset("css_set", "subsys").map_err(|error| error.to_string())?;
    u32::try_from(index)
        .ok()
        .and_then(|index| index.checked_mul(POINTER))
        .filter(|&within| within < array.size)
        .and_then(|within| array.offset.checked_add(within))
        .filter(|&offset| offset <= FURTHEST)
        .ok_or_else(|| {
            format!("subsys of struct css_set has {} bytes, controller {index} none", array.size)
        })
}

#[cfg(test)]
mod tests;
