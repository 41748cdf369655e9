//! What is known of a host at one moment, as plain values: all that the rules of this module work
//! on.

use crate::model::sysctls::Sysctls;
use std::{cmp::Reverse, net::IpAddr, sync::Arc, time::Duration};
use tcpmon_common::Family;

/// All that is known at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When: time since the daemon began to watch, by a clock that never goes back.
    pub at: Duration,
    /// The network namespaces, by name.
    pub namespaces: Vec<NamespaceFacts>,
}

/// What is known of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its inode number: which one it is, whatever it is called, while it is there.
    pub inode: u32,
    /// Its cookie: another may have the number later. 0 where it is not known.
    pub net_cookie: u64,
    /// Its name.
    pub netns: Arc<str>,
    /// Its sysctls.
    pub sysctls: Sysctls,
    /// Ports of `ip_local_port_range`, reserved ones apart, that a bind() owns (listeners with
    /// their connections, explicit binds): connect() takes them for no destination. `None` before
    /// the first snapshot.
    pub bound_ports: Option<u32>,
    /// Sockets that hold a port which connect() chose, in groups: there may be several for one
    /// route and owner.
    pub holders: Vec<PortHolder>,
    /// Sockets in the time-wait table, whatever their port; `None` where that is not known.
    pub time_wait: Option<u64>,
    /// Whose these are, the most first, as far as they have been counted; each owner once.
    pub time_wait_owners: Vec<Share>,
    /// Sockets that the time-wait table had no room for since the daemon watches, a count that
    /// never falls; `None` where that is not known.
    pub time_wait_overflow: Option<u64>,
    /// Sockets in CLOSE_WAIT, by owner.
    pub close_wait: Vec<CloseWait>,
    /// connect() calls refused for want of a port since the daemon watches, by route and owner:
    /// counts that never fall.
    pub failures: Vec<PortFailures>,
}

/// What a local port is held towards: a port taken for one route is free for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Local address.
    pub src: IpAddr,
    /// Remote address.
    pub dst: IpAddr,
    /// Remote port.
    pub dport: u16,
}

/// Sockets of one route and owner that each hold a port which connect() chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// Where to.
    pub route: Route,
    /// Address family of the sockets.
    pub family: Family,
    /// Whose they are; `None` where that is unknown.
    pub owner: Option<Arc<str>>,
    /// Whether the connections had TCP timestamps, which a takeover needs; of sockets in the
    /// time-wait table only.
    pub timestamps: bool,
    /// Sockets that a process has, or the kernel still has to end.
    pub live: u64,
    /// Sockets in the time-wait table with the substate TIME_WAIT.
    pub time_wait: u64,
    /// Of `time_wait`, those too young for a takeover (`tcp_tw_reuse_delay`, one second).
    pub time_wait_young: u64,
    /// How many have entered the time-wait table so far, as far as was counted: does not fall while
    /// there are some.
    pub time_wait_entered: u64,
    /// Sockets in the time-wait table with the substate FIN_WAIT2: nobody may take these over.
    pub fin_wait2: u64,
}

/// What one owner has of something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share {
    /// The owner; `None`: not known.
    pub owner: Option<Arc<str>>,
    /// How many ports; of the time-wait table, sockets, whatever their port.
    pub ports: u64,
}

impl Share {
    /// Each owner once, the one that has most first.
    pub fn add_up(shares: &mut Vec<Self>) {
        if shares.len() < 2 {
            return;
        }
        shares.sort_unstable_by(|a, b| a.owner.cmp(&b.owner));
        shares.dedup_by(|other, kept| {
            let same = other.owner == kept.owner;
            if same {
                kept.ports += other.ports;
            }
            same
        });
        shares.sort_by_key(|share| Reverse(share.ports));
    }
}

/// Sockets in CLOSE_WAIT of one owner: the peer has closed, the program has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseWait {
    /// Whose they are; `None` where that is unknown.
    pub owner: Option<Arc<str>>,
    /// All of them.
    pub sockets: u64,
    /// Those that have been so for more than 60 s.
    pub old: u64,
}

/// connect() calls refused for want of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFailures {
    /// Where to.
    pub route: Route,
    /// Who called; `None` where that is unknown.
    pub owner: Option<Arc<str>>,
    /// How many since the daemon watches.
    pub total: u64,
}
