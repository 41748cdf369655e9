//! Which events a subscriber wants.
//!
//! Values of one filter are alternatives; different filters must all match.

use std::net::IpAddr;
use std::num::NonZeroU64;

use ipnet::IpNet;
use tcpmon_common::TcpState;

use super::comm::Comm;
use super::event::Event;

/// A set of TCP states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSet(u16);

impl StateSet {
    /// Puts `state` in.
    pub const fn insert(&mut self, state: TcpState) {
        self.0 |= 1 << state.number();
    }

    /// Whether `state` is in it.
    #[must_use]
    pub const fn contains(self, state: TcpState) -> bool {
        self.0 & (1 << state.number()) != 0
    }

    /// Whether it holds no state.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The states in it, in the order of the kernel's numbers.
    pub fn iter(self) -> impl Iterator<Item = TcpState> {
        TcpState::ALL.into_iter().filter(move |&state| self.contains(state))
    }
}

impl FromIterator<TcpState> for StateSet {
    fn from_iter<T: IntoIterator<Item = TcpState>>(states: T) -> Self {
        let mut set = Self::default();
        for state in states {
            set.insert(state);
        }
        set
    }
}

/// Which events are wanted; the default wants them all.
///
/// An empty member does not filter. Fill it from a query string ([`super::query`]) or from the
/// command line; text values hold no comma, which separates alternatives there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The old or the new state is one of these.
    pub states: StateSet,
    /// The local or the remote port is one of these.
    pub ports: Vec<u16>,
    /// The local port is one of these.
    pub sports: Vec<u16>,
    /// The remote port is one of these.
    pub dports: Vec<u16>,
    /// The local or the remote address is in one of these networks.
    pub networks: Vec<IpNet>,
    /// The owner's process id is one of these.
    pub pids: Vec<u32>,
    /// The owner's process has one of these names, of which 15 bytes count.
    pub comms: Vec<String>,
    /// The owner is one of these services; `.service` may be left out.
    pub services: Vec<String>,
    /// The network namespace has one of these names or inodes.
    pub netns: Vec<String>,
    /// IPv4 sockets are wanted; with `ipv6` as well, or neither, all are.
    pub ipv4: bool,
    /// IPv6 sockets are wanted.
    pub ipv6: bool,
    /// End the stream after that many events. Whoever streams counts; matching does not.
    pub count: Option<NonZeroU64>,
}

impl Filter {
    /// Whether `event` is wanted.
    ///
    /// `netns_named(inode, name)` tells whether the namespace of that inode bears that name, or,
    /// the name being a number, is that inode: the model does not know the machine's namespaces.
    /// It is called only where the filter names a namespace and all else matches.
    #[must_use]
    pub fn matches(&self, event: &Event, mut netns_named: impl FnMut(u32, &str) -> bool) -> bool {
        (self.states.is_empty()
            || self.states.contains(event.old)
            || self.states.contains(event.new))
            && (self.ipv4 == self.ipv6 || self.ipv4 == event.saddr.is_ipv4())
            && allows(&self.ports, |&port| port == event.sport || port == event.dport)
            && allows(&self.sports, |&port| port == event.sport)
            && allows(&self.dports, |&port| port == event.dport)
            && allows(&self.pids, |&pid| event.pid == Some(pid))
            && allows(&self.comms, |name| event.comm == Some(Comm::truncated(name.as_bytes())))
            && allows(&self.networks, |network| {
                contains(network, event.saddr) || contains(network, event.daddr)
            })
            && allows(&self.services, |wanted| {
                event.service.as_deref().is_some_and(|service| is_service(service, wanted))
            })
            && allows(&self.netns, |name| netns_named(event.netns, name))
    }
}

/// Whether one of `wanted` fits, or none is asked for.
fn allows<T>(wanted: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

/// Whether `address`, or the IPv4 address that it maps, is in `network`.
fn contains(network: &IpNet, address: IpAddr) -> bool {
    network.contains(&address) || network.contains(&address.to_canonical())
}

/// As systemctl does, a name without a suffix stands for the `.service` too.
fn is_service(service: &str, wanted: &str) -> bool {
    service.strip_prefix(wanted).is_some_and(|suffix| suffix.is_empty() || suffix == ".service")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::tests::example;
    use crate::model::values;

    fn wants(filter: &Filter, event: &Event) -> bool {
        filter.matches(event, |inode, name| {
            (inode == 4_026_531_833 && name == "host") || inode.to_string() == name
        })
    }

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| values::network(text).expect(text)).collect()
    }

    #[test]
    fn each_filter_wants_what_it_says() {
        let event = example();
        let all = Filter::default;
        let cases = [
            (all(), true),
            (Filter { states: [TcpState::FinWait2].into_iter().collect(), ..all() }, true),
            (Filter { states: [TcpState::TimeWait].into_iter().collect(), ..all() }, true),
            (Filter { states: [TcpState::Close].into_iter().collect(), ..all() }, false),
            (Filter { ports: vec![1, 40_000], ..all() }, true),
            (Filter { ports: vec![5432], ..all() }, true),
            (Filter { ports: vec![80], ..all() }, false),
            (Filter { sports: vec![40_000], ..all() }, true),
            (Filter { sports: vec![5432], ..all() }, false),
            (Filter { dports: vec![5432], ..all() }, true),
            (Filter { dports: vec![40_000], ..all() }, false),
            (Filter { networks: networks(&["10.0.0.2"]), ..all() }, true),
            (Filter { networks: networks(&["192.168.0.0/16", "10.0.0.0/31"]), ..all() }, true),
            (Filter { networks: networks(&["192.168.0.0/16", "::/0"]), ..all() }, false),
            (Filter { pids: vec![1, 4242], ..all() }, true),
            (Filter { pids: vec![1], ..all() }, false),
            (Filter { comms: vec!["worker".into()], ..all() }, true),
            (Filter { comms: vec!["work".into()], ..all() }, false),
            (Filter { services: vec!["api.service".into()], ..all() }, true),
            (Filter { services: vec!["x".into(), "api".into()], ..all() }, true),
            (Filter { services: vec!["ap".into()], ..all() }, false),
            (Filter { netns: vec!["host".into()], ..all() }, true),
            (Filter { netns: vec!["4026531833".into()], ..all() }, true),
            (Filter { netns: vec!["blue".into(), "4026531834".into()], ..all() }, false),
            (Filter { ipv4: true, ..all() }, true),
            (Filter { ipv6: true, ..all() }, false),
            (Filter { ipv4: true, ipv6: true, ..all() }, true),
            (Filter { count: NonZeroU64::new(1), ..all() }, true),
            (Filter { sports: vec![40_000], dports: vec![5432], ipv4: true, ..all() }, true),
            (Filter { sports: vec![40_000], dports: vec![80], ..all() }, false),
        ];
        for (filter, expected) in cases {
            assert_eq!(wants(&filter, &event), expected, "{filter:?}");
        }
    }

    #[test]
    fn an_unknown_owner_is_nobody_s() {
        let event = Event { pid: None, comm: None, service: None, ..example() };
        for filter in [
            Filter { pids: vec![4242], ..Filter::default() },
            Filter { comms: vec!["worker".into()], ..Filter::default() },
            Filter { services: vec!["api".into()], ..Filter::default() },
        ] {
            assert!(!wants(&filter, &event), "{filter:?}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv6_sockets_with_ipv4_addresses() {
        let event = Event {
            saddr: "::ffff:10.0.0.1".parse().expect("address"),
            daddr: "::ffff:10.0.0.2".parse().expect("address"),
            ..example()
        };
        for (texts, expected) in [
            (["10.0.0.0/8"], true),
            (["::ffff:10.0.0.0/104"], true),
            (["::ffff:0:0/96"], true),
            (["::/0"], true),
            (["11.0.0.0/8"], false),
            (["2001:db8::/32"], false),
        ] {
            let filter = Filter { networks: networks(&texts), ..Filter::default() };
            assert_eq!(wants(&filter, &event), expected, "{texts:?}");
        }
        assert!(wants(&Filter { ipv6: true, ..Filter::default() }, &event));
        assert!(!wants(&Filter { ipv4: true, ..Filter::default() }, &event));
    }
}
