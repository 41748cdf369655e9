//! Fields of made-up kernels, and of the running one.

use super::*;
use crate::kernel::btf::builder::{Builder, NewMember, kind};

/// What differs from one made-up kernel to the next.
#[derive(Clone, Copy)]
struct Config {
    ipv6: bool,
    controllers: &'static [(&'static str, u32)],
    subsystems: u32,
    protocol: Protocol,
    sent_queue: &'static str,
    clock: &'static str,
}

#[derive(Clone, Copy)]
enum Protocol {
    Half,
    Word,
    BitField,
}

const USUAL: Config = Config {
    ipv6: true,
    controllers: &[("cpu_cgrp_id", 1), ("memory_cgrp_id", 4), ("pids_cgrp_id", 11)],
    subsystems: 12,
    protocol: Protocol::Half,
    sent_queue: "tsorted_sent_queue",
    clock: "tcp_clock_cache",
};

/// A kernel whose every field is somewhere else than in any real one, in as many anonymous
/// members and typedefs as real ones have.
fn kernel(config: Config) -> Result<Offsets, OffsetsError> {
    let mut builder = Builder::new();
    let b = &mut builder;
    let [byte, half, word, long] =
        [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)].map(|(name, size)| b.int(name, size));
    let pointer = b.plain(kind::PTR, "", 0);
    let state = b.plain(kind::VOLATILE, "", byte);
    let words = b.array(word, 4);
    let v6 = b.structure("in6_addr", 16, &[NewMember("u6_addr32", words, 0, 0)]);
    let net = b.structure("", 8, &[NewMember("net", pointer, 0, 0)]);
    let net = b.plain(kind::TYPEDEF, "possible_net_t", net);
    let ports = b.structure(
        "",
        4,
        &[NewMember("skc_dport", half, 0, 0), NewMember("skc_num", half, 16, 0)],
    );
    let portpair = b.aggregate(
        kind::UNION,
        "",
        4,
        false,
        &[NewMember("skc_portpair", word, 0, 0), NewMember("", ports, 0, 0)],
    );
    let cookie = b.structure("", 8, &[NewMember("counter", long, 0, 0)]);
    let node = b.structure(
        "hlist_nulls_node",
        16,
        &[NewMember("next", pointer, 0, 0), NewMember("pprev", pointer, 64, 0)],
    );
    let nodes = b.aggregate(kind::UNION, "", 16, false, &[NewMember("skc_nulls_node", node, 0, 0)]);
    let mut common = vec![
        NewMember("skc_family", half, 0, 0),
        NewMember("skc_state", state, 16, 0),
        NewMember("", portpair, 32, 0),
        NewMember("skc_daddr", word, 64, 0),
        NewMember("skc_rcv_saddr", word, 96, 0),
        NewMember("skc_net", net, 128, 0),
        NewMember("skc_cookie", cookie, 448, 0),
        NewMember("", nodes, 512, 0),
    ];
    if config.ipv6 {
        common.push(NewMember("skc_v6_daddr", v6, 192, 0));
        common.push(NewMember("skc_v6_rcv_saddr", v6, 320, 0));
    }
    let common = b.structure("sock_common", 80, &common);
    let function = b.plain(kind::PTR, "", pointer);
    let timer = b.structure("timer_list", 24, &[NewMember("function", function, 128, 0)]);
    let waiting = b.structure(
        "inet_timewait_sock",
        136,
        &[
            NewMember("__tw_common", common, 64, 0),
            NewMember("tw_substate", state, 704, 0),
            NewMember("tw_timer", timer, 768, 0),
        ],
    );
    b.structure(
        "tcp_timewait_sock",
        144,
        &[NewMember("tw_sk", waiting, 0, 0), NewMember("tw_ts_recent_stamp", word, 1088, 0)],
    );
    let protocol = match config.protocol {
        Protocol::Half => NewMember("sk_protocol", half, 768, 0),
        Protocol::Word => NewMember("sk_protocol", word, 768, 0),
        Protocol::BitField => NewMember("sk_protocol", word, 768, 8),
    };
    let flag = matches!(config.protocol, Protocol::BitField);
    let lock = b.structure("", 8, &[NewMember("owned", word, 32, 0)]);
    b.plain(kind::FWD, "sock", 0);
    let sock = b.aggregate(
        kind::STRUCT,
        "sock",
        112,
        flag,
        &[
            NewMember("__sk_common", common, 64, 0),
            NewMember("sk_err", word, 736, 0),
            protocol,
            NewMember("sk_lock", lock, 800, 0),
        ],
    );
    let inet = b.structure(
        "inet_sock",
        120,
        &[NewMember("sk", sock, 0, 0), NewMember("inet_sport", half, 896, 0)],
    );
    let connection =
        b.structure("inet_connection_sock", 120, &[NewMember("icsk_inet", inet, 0, 0)]);
    let list = b.structure(
        "list_head",
        16,
        &[NewMember("prev", pointer, 0, 0), NewMember("next", pointer, 64, 0)],
    );
    b.structure(
        "tcp_sock",
        152,
        &[
            NewMember("inet_conn", connection, 64, 0),
            NewMember(config.sent_queue, list, 1024, 0),
            NewMember(config.clock, long, 1152, 0),
        ],
    );
    let common = b.structure("ns_common", 8, &[NewMember("inum", word, 32, 0)]);
    b.structure(
        "net",
        24,
        &[NewMember("ns", common, 64, 0), NewMember("net_cookie", long, 128, 0)],
    );
    b.structure("socket", 16, &[NewMember("sk", pointer, 64, 0)]);
    let character = b.int("char", 1);
    let comm = b.array(character, 16);
    b.structure(
        "task_struct",
        64,
        &[
            NewMember("tgid", word, 0, 0),
            NewMember("group_leader", pointer, 64, 0),
            NewMember("comm", comm, 128, 0),
            NewMember("start_boottime", long, 256, 0),
            NewMember("cgroups", pointer, 320, 0),
        ],
    );
    let subsystems = b.array(pointer, config.subsystems);
    b.structure(
        "css_set",
        8 + 8 * config.subsystems,
        &[NewMember("dfl_cgrp", pointer, 0, 0), NewMember("subsys", subsystems, 64, 0)],
    );
    b.structure("cgroup_subsys_state", 16, &[NewMember("cgroup", pointer, 64, 0)]);
    b.structure("cgroup", 16, &[NewMember("kn", pointer, 64, 0)]);
    let id = b.aggregate(
        kind::UNION,
        "kernfs_node_id",
        8,
        false,
        &[NewMember("id", long, 0, 0), NewMember("ino", word, 0, 0)],
    );
    b.structure("kernfs_node", 24, &[NewMember("id", id, 128, 0)]);
    b.enumeration("cgroup_subsys_id", false, config.controllers);
    resolve(&Btf::parse(&builder.finish()).expect("sound BTF"))
}

#[test]
fn every_field_is_found_where_it_was_put() {
    assert_eq!(
        kernel(USUAL).expect("a usable kernel"),
        Offsets {
            sock_family: 8,
            sock_num: 14,
            sock_dport: 12,
            sock_state: 10,
            sock_daddr: 16,
            sock_rcv_saddr: 20,
            sock_v6_daddr: 32,
            sock_v6_rcv_saddr: 48,
            sock_net: 24,
            sock_cookie: 64,
            sock_protocol: 96,
            sock_err: 92,
            sock_owned: 104,
            net_inum: 12,
            net_cookie: 16,
            tcp_sport: 120,
            tcp_sent_queue: 136,
            tcp_clock: 144,
            socket_sk: 8,
            task_group_leader: 8,
            task_tgid: 0,
            task_comm: 16,
            task_start_boottime: 32,
            task_cgroups: 40,
            css_set_dfl_cgrp: 0,
            css_set_v1_subsys: 8 + 8 * 4,
            css_cgroup: 8,
            cgroup_kn: 8,
            kernfs_node_id: 16,
            common_pprev: 72,
            common_net: 16,
            tw_common: 8,
            timer_function: 16,
            tw_timer: 96,
            tw_substate: 88,
            common_family: 0,
            common_num: 6,
            common_dport: 4,
            common_daddr: 8,
            common_rcv_saddr: 12,
            common_v6_daddr: 24,
            common_v6_rcv_saddr: 40,
            common_cookie: 56,
            tw_timestamp: 136,
        }
    );
}

#[test]
fn what_a_configuration_leaves_out_is_absent() {
    let offsets = kernel(Config { ipv6: false, ..USUAL }).expect("a usable kernel");
    assert_eq!((offsets.sock_v6_daddr, offsets.sock_v6_rcv_saddr), (ABSENT, ABSENT));
    assert_eq!((offsets.common_v6_daddr, offsets.common_v6_rcv_saddr), (ABSENT, ABSENT));
    assert_eq!(offsets.sock_net, 24);
    let offsets = kernel(Config { clock: "tcp_mstamp", ..USUAL }).expect("a usable kernel");
    assert_eq!(offsets.tcp_clock, ABSENT);
    let pids: &[_] = &[("pids_cgrp_id", 2)];
    for (controllers, expected) in [(pids, 8 + 8 * 2), (&[("cpu_cgrp_id", 0)], ABSENT)] {
        let offsets = kernel(Config { controllers, ..USUAL }).expect("a usable kernel");
        assert_eq!(offsets.css_set_v1_subsys, expected, "{controllers:?}");
    }
}

#[test]
fn all_that_cannot_be_used_is_told_in_one_line() {
    let error = kernel(Config {
        protocol: Protocol::BitField,
        sent_queue: "renamed",
        controllers: &[("memory_cgrp_id", 12)],
        ..USUAL
    })
    .expect_err("a fault");
    assert_eq!(
        error.to_string(),
        "this kernel's structures are not those that the probes read: sk_protocol of struct \
         sock is a bit-field; struct tcp_sock has no member tsorted_sent_queue in this \
         kernel's BTF; subsys of struct css_set has 96 bytes, controller 12 none"
    );
    let error = kernel(Config { protocol: Protocol::Word, ..USUAL }).expect_err("a fault");
    let error = error.to_string();
    assert!(error.ends_with(": sk_protocol of struct sock has 4 bytes, 2 expected"), "{error}");
}

#[test]
fn what_stands_further_than_an_instruction_reads_is_told() {
    let find = |bytes: u32| {
        let mut builder = Builder::new();
        let word = builder.int("u32", 4);
        builder.structure("net", bytes + 4, &[NewMember("inum", word, bytes * 8, 0)]);
        let blob = builder.finish();
        let field = Field::new(|to| &mut to.net_inum, "net", "inum", 4);
        field.find(&Btf::parse(&blob).expect("types"))
    };
    assert_eq!(find(32_764), Ok(32_764));
    assert_eq!(
        find(32_768).expect_err("too far"),
        "inum of struct net stands 32768 bytes in, further than the 32767 that the probes read"
    );
}

/// Against facts about real kernels that come from elsewhere than BTF.
#[test]
fn the_running_kernel_is_as_its_headers_say() {
    let offsets = of_running_kernel().expect("a usable kernel");
    // `struct sock_common` of include/net/sock.h begins with the fields that a look-up
    // compares, in an order and of sizes that no configuration changes: two addresses, a hash
    // of 4 bytes, two ports, the family, the state.
    assert_eq!(offsets.sock_daddr, 0);
    assert_eq!(offsets.sock_rcv_saddr, 4);
    assert_eq!(offsets.sock_dport, 12);
    assert_eq!(offsets.sock_num, 14);
    assert_eq!(offsets.sock_family, 16);
    assert_eq!(offsets.sock_state, 18);
    assert_eq!(offsets.sock_v6_rcv_saddr, offsets.sock_v6_daddr + 16);
    // `struct sock` begins with its `struct sock_common`, and so does `struct inet_timewait_sock`.
    assert_eq!(offsets.common_daddr, offsets.sock_daddr);
    assert_eq!(offsets.common_rcv_saddr, offsets.sock_rcv_saddr);
    assert_eq!(offsets.common_dport, offsets.sock_dport);
    assert_eq!(offsets.common_num, offsets.sock_num);
    assert_eq!(offsets.common_family, offsets.sock_family);
    assert_eq!(offsets.common_v6_daddr, offsets.sock_v6_daddr);
    assert_eq!(offsets.common_v6_rcv_saddr, offsets.sock_v6_rcv_saddr);
    assert_eq!(offsets.common_cookie, offsets.sock_cookie);
    // `struct tcp_timewait_sock` begins with its `struct inet_timewait_sock`.
    assert!(offsets.tw_timestamp > offsets.tw_timer);
    // `struct cgroup_subsys_state` of include/linux/cgroup-defs.h: "the cgroup that this css
    // is attached to" comes first.
    assert_eq!(offsets.css_cgroup, 0);
    // Everything that is embedded lies behind `struct sock`, which comes first in each.
    assert!(offsets.tcp_sport > offsets.sock_protocol);
    assert!(offsets.tcp_sent_queue > offsets.tcp_sport);
    assert!(offsets.tcp_clock > offsets.tcp_sport && offsets.tcp_clock != ABSENT);
}
