//! Capacity and use: how many ports connect() may choose from towards a destination, and which of
//! them it would not get.

use super::facts::{NamespaceFacts, PortHolder, Route, Share};
use crate::model::{fast::FastMap, sysctls::Sysctls};
use std::net::IpAddr;

/// The ports of one network namespace towards one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Where to.
    pub route: Route,
    /// Ports that connect() may choose from: those of the range, less the reserved ones and those
    /// that a bind() owns. `None` where one of these is not known.
    pub capacity: Option<u32>,
    /// Ports held by live sockets.
    pub live: u64,
    /// Ports in TIME_WAIT that a connect() does not get.
    pub time_wait: u64,
    /// Of `time_wait`, those that wait for the peer's FIN (substate FIN_WAIT2).
    pub fin_wait2: u64,
    /// Of `time_wait`, those whose connections had no TCP timestamps.
    pub without_timestamps: u64,
    /// Ports in TIME_WAIT that a connect() takes over.
    pub time_wait_reusable: u64,
    /// Sockets that entered TIME_WAIT and block for as long as they are there: a count that does
    /// not fall while its owner has sockets there.
    pub entered: u64,
    /// By which rules `entered` and `time_wait` were counted.
    pub counted_by: CountedBy,
    /// Who holds ports, and how many, the most first.
    pub owners: Vec<Share>,
}

/// The sysctls that decide which sockets in TIME_WAIT count as those that block: under others,
/// [`PortUse::entered`] is another count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountedBy {
    /// Whether connect() may take ports over on the route; `None`: not known.
    pub reuse: Option<bool>,
    /// `tcp_timestamps`, which sockets of unknown age are held to have had; `None`: not known.
    pub timestamps: Option<u8>,
}

impl PortUse {
    /// Nothing is held.
    #[must_use]
    pub const fn none(route: Route, capacity: Option<u32>) -> Self {
        Self {
            route,
            capacity,
            live: 0,
            time_wait: 0,
            fin_wait2: 0,
            without_timestamps: 0,
            time_wait_reusable: 0,
            entered: 0,
            counted_by: CountedBy { reuse: None, timestamps: None },
            owners: Vec::new(),
        }
    }

    /// Ports that a new connect() towards there does not get.
    #[must_use]
    pub fn blocking(&self) -> u64 {
        self.live + self.time_wait
    }

    /// [`Self::blocking`] over the capacity; `None` where that is not known. Where there is no port
    /// at all it is 1.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let capacity = self.capacity?;
        if capacity == 0 {
            return Some(1.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most some hundred thousand sockets")]
        let blocking = self.blocking() as f64;
        Some(blocking / f64::from(capacity))
    }
}

/// Ports that connect() may choose from in a namespace, whatever the destination; `None` where that
/// is not known.
#[must_use]
pub fn capacity(netns: &NamespaceFacts) -> Option<u32> {
    Some(netns.sysctls.ephemeral_ports()?.saturating_sub(netns.bound_ports?))
}

/// Whether connect() may take ports in TIME_WAIT over on that route, those of connections with TCP
/// timestamps that are old enough (`tcp_twsk_unique()` in net/ipv4/tcp_ipv4.c); `None` where the
/// sysctl is not known.
#[must_use]
pub fn may_reuse(sysctls: &Sysctls, route: &Route) -> Option<bool> {
    match sysctls.tcp_tw_reuse? {
        0 => Some(false),
        2 => Some(is_loopback(route.src) || is_loopback(route.dst)),
        _ => Some(true),
    }
}

/// Whether an address is one of the loopback interface, as the kernel tests it there.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The use of ports by route, the fullest first.
#[must_use]
pub fn uses(netns: &NamespaceFacts) -> Vec<PortUse> {
    let capacity = capacity(netns);
    let mut places: FastMap<Route, usize> = FastMap::default();
    places.reserve(netns.holders.len());
    let mut uses: Vec<PortUse> = Vec::with_capacity(netns.holders.len());
    for holder in &netns.holders {
        let reuse = may_reuse(&netns.sysctls, &holder.route);
        let place = *places.entry(holder.route).or_insert(uses.len());
        if place == uses.len() {
            let counted_by = CountedBy { reuse, timestamps: netns.sysctls.tcp_timestamps };
            uses.push(PortUse { counted_by, ..PortUse::none(holder.route, capacity) });
        }
        let sum = &mut uses[place];
        // What is not known to be free blocks.
        add(sum, holder, reuse == Some(true) && holder.timestamps);
        let ports = holder.live + holder.time_wait + holder.fin_wait2;
        if ports > 0 {
            sum.owners.push(Share { owner: holder.owner.clone(), ports });
        }
    }
    for it in &mut uses {
        Share::add_up(&mut it.owners);
    }
    // Each route is there once, so that this is an order of all.
    uses.sort_unstable_by(|a, b| {
        b.blocking().cmp(&a.blocking()).then_with(|| a.route.cmp(&b.route))
    });
    uses
}

fn add(sum: &mut PortUse, holder: &PortHolder, reusable: bool) {
    let free = if reusable { holder.time_wait.saturating_sub(holder.time_wait_young) } else { 0 };
    sum.live += holder.live;
    sum.time_wait += holder.time_wait - free + holder.fin_wait2;
    sum.fin_wait2 += holder.fin_wait2;
    sum.time_wait_reusable += free;
    if !reusable {
        sum.entered += holder.time_wait_entered;
    }
    if !holder.timestamps {
        sum.without_timestamps += holder.time_wait;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::ports::{PortRange, PortSet};
    use tcpmon_common::Family;

    pub(crate) fn route(src: &str, dst: &str) -> Route {
        let ip = |text: &str| text.parse().expect("an address");
        Route { src: ip(src), dst: ip(dst), dport: 443 }
    }

    /// Ten waiting, four of them young, three in FIN_WAIT2, and five that are live.
    pub(crate) fn holder(route: Route, timestamps: bool) -> PortHolder {
        PortHolder {
            route,
            family: Family::Ipv4,
            owner: Some("api".into()),
            timestamps,
            live: 5,
            time_wait: 10,
            time_wait_young: 4,
            time_wait_entered: 100,
            fin_wait2: 3,
        }
    }

    pub(crate) fn namespace(reuse: u8, holders: Vec<PortHolder>) -> NamespaceFacts {
        NamespaceFacts {
            netns: "shop".into(),
            sysctls: Sysctls {
                tcp_tw_reuse: Some(reuse),
                tcp_timestamps: Some(1),
                tcp_fin_timeout: Some(60),
                tcp_max_tw_buckets: Some(1_000),
                ip_local_port_range: PortRange::new(20_000, 20_099),
                ip_local_reserved_ports: Some(PortSet::from_sysctl("20000-20009").expect("ports")),
                ..Sysctls::default()
            },
            bound_ports: Some(2),
            holders,
            ..NamespaceFacts::default()
        }
    }

    #[test]
    fn what_blocks_and_what_may_be_taken_over() {
        let far = route("10.0.0.1", "10.0.0.2");
        let near = route("127.0.0.1", "127.0.0.2");
        let (six, mapped) = (route("::1", "::1"), route("::ffff:127.0.0.1", "::ffff:127.0.0.1"));
        let half = route("10.0.0.1", "127.0.0.1");
        // tcp_tw_reuse, route, timestamps; blocking in TIME_WAIT, reusable.
        for (reuse, route, timestamps, time_wait, reusable) in [
            (0, near, true, 13, 0),
            (1, far, true, 7, 6),
            (1, far, false, 13, 0),
            (2, far, true, 13, 0),
            (2, near, true, 7, 6),
            (2, near, false, 13, 0),
            (2, six, true, 7, 6),
            (2, mapped, true, 7, 6),
            (2, half, true, 7, 6),
        ] {
            let uses = uses(&namespace(reuse, vec![holder(route, timestamps)]));
            let [it] = &uses[..] else { panic!("{uses:?}") };
            let told = (it.live, it.time_wait, it.time_wait_reusable, it.fin_wait2);
            assert_eq!(told, (5, time_wait, reusable, 3), "{reuse} {route:?} {timestamps}");
            assert_eq!(it.entered, if reusable > 0 { 0 } else { 100 });
        }
    }

    #[test]
    fn the_range_less_what_is_reserved_or_bound() {
        let full = namespace(0, Vec::new());
        assert_eq!(capacity(&full), Some(88));
        assert_eq!(capacity(&NamespaceFacts { bound_ports: None, ..full.clone() }), None);
        assert_eq!(capacity(&NamespaceFacts { bound_ports: Some(200), ..full }), Some(0));
        let unknown = NamespaceFacts {
            sysctls: Sysctls::default(),
            ..namespace(0, vec![holder(route("10.0.0.1", "10.0.0.2"), true)])
        };
        let uses = uses(&unknown);
        assert_eq!((uses[0].capacity, uses[0].ratio()), (None, None));
        assert_eq!(uses[0].time_wait, 13, "what is not known to be free blocks");
    }

    #[test]
    fn owners_and_routes_are_added_up_the_fullest_first() {
        let (one, other) = (route("10.0.0.1", "10.0.0.2"), route("10.0.0.1", "10.0.0.3"));
        let small = PortHolder { owner: None, live: 1, time_wait: 0, ..holder(one, true) };
        let small = PortHolder { fin_wait2: 0, time_wait_young: 0, ..small };
        let holders =
            vec![small.clone(), holder(other, true), holder(one, false), holder(one, true)];
        let uses = uses(&namespace(1, holders));
        assert_eq!(uses.iter().map(|it| it.route).collect::<Vec<_>>(), [one, other]);
        assert_eq!((uses[0].live, uses[0].time_wait, uses[0].without_timestamps), (11, 20, 10));
        let shares: Vec<_> =
            uses[0].owners.iter().map(|it| (it.owner.as_deref(), it.ports)).collect();
        assert_eq!(shares, [(Some("api"), 36), (None, 1)]);
        assert!((uses[0].ratio().expect("a ratio") - 31.0 / 88.0).abs() < 1e-9);
    }
}
