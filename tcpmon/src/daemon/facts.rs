//! From what the survey has found and the probes have counted to the facts that the rules of port
//! pressure work on.

use super::{
    names::Names,
    sampler::Gathered,
    survey::{Findings, Found},
};
use crate::{
    model::{
        address,
        census::{CellId, CountedGroup, SocketGroup},
        fast::FastMap,
        sysctls::Sysctls,
    },
    pressure::facts::{CloseWait, Facts, NamespaceFacts, PortFailures, PortHolder, Route, Share},
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tcpmon_common::{FailureKey, Family, ServiceKey, TcpState};

/// How old a socket in TIME_WAIT must be for connect() to take its port over, where the kernel has
/// no sysctl for it (`tcp_twsk_unique()` in net/ipv4/tcp_ipv4.c).
const REUSE_DELAY: Duration = Duration::from_secs(1);

/// Moments that are remembered lie so far apart at least.
const APART: Duration = Duration::from_millis(250);

/// So many are remembered: a delay may be a little longer than the usual second.
const REMEMBERED: usize = 8;

/// Builds facts, and remembers how many sockets had entered each group a moment ago.
#[derive(Debug, Default)]
pub struct FactsBuilder {
    /// The last moments, the latest first.
    moments: VecDeque<Entries>,
}

/// What the sockets of a namespace tell.
#[derive(Default)]
struct Seen {
    bound_ports: Option<u32>,
    holders: Vec<PortHolder>,
    time_wait_owners: Vec<Share>,
    close_wait: Vec<CloseWait>,
}

/// When, and how many had entered each group by then.
#[derive(Debug, Default)]
struct Entries {
    at: Duration,
    /// By the number of the cell: the turn of who had it then, and how many had entered.
    entered: Vec<(u32, u64)>,
}

impl FactsBuilder {
    /// The facts in what was read `at` that time since the daemon began to watch.
    pub fn facts(&mut self, at: Duration, gathered: &Gathered, names: &Names) -> Facts {
        let findings = &gathered.findings;
        let mut namespaces = Vec::with_capacity(findings.namespaces.len());
        for (&inode, found) in &findings.namespaces {
            let counts = gathered.counts.get(&inode).copied().unwrap_or_default();
            let level = found.ledger.level(&counts).or(found.counters.time_wait);
            let seen = self.sockets(at, findings, found, names);
            let is_its = |key: &FailureKey| key.netns == inode && found.is_its(key.net_cookie);
            let failed = gathered.failures().iter().filter(|(key, _)| is_its(key));
            namespaces.push(NamespaceFacts {
                inode,
                net_cookie: found.net_cookie,
                netns: names.counted_netns(inode),
                sysctls: found.sysctls.clone(),
                bound_ports: seen.bound_ports,
                holders: seen.holders,
                time_wait: level,
                time_wait_owners: seen.time_wait_owners,
                time_wait_overflow: found.overflow(),
                close_wait: seen.close_wait,
                failures: failed.map(|(key, total)| failure(key, *total, names)).collect(),
            });
        }
        self.remember(at, findings);
        Facts { at, namespaces }
    }

    /// What the sockets of a namespace tell; nothing before the first snapshot.
    fn sockets(&self, at: Duration, findings: &Findings, found: &Found, names: &Names) -> Seen {
        let (Some(taken), Some(sockets)) = (&found.census, findings.sockets(found)) else {
            return Seen::default();
        };
        let timestamps_are_usual = found.sysctls.tcp_timestamps.is_some_and(|value| value != 0);
        let delay = found
            .sysctls
            .tcp_tw_reuse_delay
            .map_or(REUSE_DELAY, |milliseconds| Duration::from_millis(milliseconds.into()));
        let then = self.moment(at, delay);
        let mut services = names.services();
        let mut holders = Vec::with_capacity(sockets.size_hint().0);
        let mut close_wait: BTreeMap<Option<Arc<str>>, CloseWait> = BTreeMap::new();
        let mut waiting: FastMap<Option<&ServiceKey>, u64> = FastMap::default();
        for alike in sockets {
            let (group, kind) = (alike.group, &alike.group.kind);
            if kind.in_time_wait_table && alike.sockets > 0 {
                *waiting.entry(group.owner.as_ref()).or_default() += alike.sockets;
            }
            let dport = group.dport.filter(|_| is_chosen(group));
            if dport.is_none() && kind.state != TcpState::CloseWait {
                continue;
            }
            let owner = services.name(group.owner.as_ref());
            if kind.state == TcpState::CloseWait {
                let none = || CloseWait { owner: owner.clone(), sockets: 0, old: 0 };
                close_wait.entry(owner.clone()).or_insert_with(none).sockets += alike.sockets;
            }
            let Some(dport) = dport else { continue };
            let waits = kind.in_time_wait_table;
            let time_wait = if waits { alike.sockets - alike.fin_wait2 } else { 0 };
            let young = alike.counted.map_or(0, |counted| young(then, counted).min(time_wait));
            holders.push(PortHolder {
                route: route(group.src, group.dst, dport),
                family: group.family,
                owner,
                // Nothing tells of a socket that was there before the daemon: it had timestamps if
                // connections of its namespace do.
                timestamps: waits && kind.timestamps.unwrap_or(timestamps_are_usual),
                live: if waits { 0 } else { alike.sockets },
                time_wait,
                time_wait_young: young,
                time_wait_entered: alike.counted.map_or(0, |counted| counted.entered),
                fin_wait2: alike.fin_wait2,
            });
        }
        for (owner, old) in &taken.old_close_wait {
            let owner = services.name(owner.as_ref());
            if let Some(waiting) = close_wait.get_mut(&owner) {
                waiting.old += old;
            }
        }
        // Services that differ may have one name.
        let mut time_wait_owners: Vec<_> = waiting
            .into_iter()
            .map(|(key, sockets)| Share { owner: services.name(key), ports: sockets })
            .collect();
        Share::add_up(&mut time_wait_owners);
        Seen {
            bound_ports: bound_ports(&found.sysctls, taken.bound.iter().copied()),
            holders,
            time_wait_owners,
            close_wait: close_wait.into_values().collect(),
        }
    }

    /// The last moment that was at least `delay` ago.
    fn moment(&self, at: Duration, delay: Duration) -> Option<&Entries> {
        self.moments.iter().find(|entries| at.saturating_sub(entries.at) >= delay)
    }

    fn remember(&mut self, at: Duration, findings: &Findings) {
        if self.moments.front().is_some_and(|last| at.saturating_sub(last.at) < APART) {
            return;
        }
        self.moments.truncate(REMEMBERED - 1);
        let groups = findings.counted.values().flatten();
        self.moments.push_front(Entries::new(at, groups));
    }
}

impl Entries {
    fn new<'a>(at: Duration, groups: impl Iterator<Item = &'a CountedGroup>) -> Self {
        let mut entered = Vec::new();
        for group in groups {
            let place = group.id.number as usize;
            if entered.len() <= place {
                entered.resize(place + 1, (0, 0));
            }
            entered[place] = (group.id.turn, group.entered);
        }
        Self { at, entered }
    }

    /// How many had entered a group by then; 0 if it was not there.
    fn of(&self, id: CellId) -> u64 {
        let place = self.entered.get(id.number as usize);
        place.filter(|(turn, _)| *turn == id.turn).map_or(0, |(_, entered)| *entered)
    }
}

/// How many of a group are too young to be taken over: those that have entered since `then`.
fn young(then: Option<&Entries>, counted: &CountedGroup) -> u64 {
    let before = then.map_or(0, |then| then.of(counted.id));
    counted.entered.saturating_sub(before).min(counted.sockets)
}

/// Whether connect() chose the port, as far as is known.
fn is_chosen(group: &SocketGroup) -> bool {
    !group.kind.passive && group.kind.chosen != Some(false)
}

/// A route. IPv6 sockets with IPv4-mapped addresses take their ports from those of IPv4
/// (`tcp_v6_connect()` in net/ipv6/tcp_ipv6.c hands over to `tcp_v4_connect()`).
fn route(src: IpAddr, dst: IpAddr, dport: u16) -> Route {
    Route { src: src.to_canonical(), dst: dst.to_canonical(), dport }
}

/// How many of the ports that the range offers are owned by a bind(); `None` where the range is not
/// known.
fn bound_ports(sysctls: &Sysctls, bound: impl Iterator<Item = u16>) -> Option<u32> {
    let range = sysctls.ip_local_port_range?;
    let reserved = sysctls.ip_local_reserved_ports.as_ref()?;
    let taken = bound.filter(|&port| range.contains(port) && !reserved.contains(port)).count();
    u32::try_from(taken).ok()
}

fn failure(key: &FailureKey, total: u64, names: &Names) -> PortFailures {
    let family = Family::from_number(key.family).unwrap_or(Family::Ipv4);
    let ends = (&key.saddr, &key.daddr);
    let (src, dst) = (address::from_record(family, ends.0), address::from_record(family, ends.1));
    let route = route(src, dst, key.dport);
    PortFailures { route, owner: names.service_of_key(&key.service), total }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ports::{PortRange, PortSet};
    use tcpmon_common::{CellKey, kind};

    fn group(bits: u8) -> SocketGroup {
        let key = CellKey { dport: 443, kind: bits, ..CellKey::default() };
        SocketGroup::from_key(&key).expect("sound")
    }

    #[test]
    fn bound_ports_count_where_the_range_offers_them() {
        let sysctls = Sysctls {
            ip_local_port_range: PortRange::new(1000, 1009),
            ip_local_reserved_ports: Some(PortSet::from_sysctl("1001-1002").expect("ports")),
            ..Sysctls::default()
        };
        let bound =
            |sysctls: &Sysctls| bound_ports(sysctls, [80, 1000, 1001, 1009, 1010].into_iter());
        assert_eq!(bound(&sysctls), Some(2));
        assert_eq!(bound(&Sysctls::default()), None);
    }

    #[test]
    fn what_entered_within_the_delay_is_young() {
        let group = group(TcpState::TimeWait.number() | kind::TIMESTAMPS);
        let id = CellId { number: 5, turn: 2 };
        let counted = |entered, sockets| CountedGroup { id, group, sockets, entered };
        let entries = |seconds, entered| {
            Entries::new(Duration::from_secs(seconds), [&counted(entered, 1)].into_iter())
        };
        let mut builder = FactsBuilder::default();
        let second = Duration::from_secs(1);
        // Nothing is remembered yet: all are as old as is known.
        assert_eq!(young(builder.moment(second, second), &counted(5, 4)), 4);
        builder.moments = [entries(11, 130), entries(10, 100)].into();
        let told = |at: u64, delay: u64, it: CountedGroup| {
            let then = builder.moment(Duration::from_millis(at), Duration::from_millis(delay));
            young(then, &it)
        };
        assert_eq!(told(12_000, 1_000, counted(150, 60)), 20);
        assert_eq!(told(11_500, 1_000, counted(150, 60)), 50, "since the moment before");
        assert_eq!(told(12_000, 0, counted(150, 60)), 20);
        assert_eq!(told(12_000, 1_000, counted(150, 10)), 10);
        // The place is another group's since.
        let later = CountedGroup { id: CellId { turn: 3, ..id }, ..counted(150, 160) };
        assert_eq!(told(12_000, 1_000, later), 150);
        let beyond = CountedGroup { id: CellId { number: 9, ..id }, ..later };
        assert_eq!(told(12_000, 1_000, beyond), 150);
    }
}
