//! Loads: as many connections as one thread makes, told by totals alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::opening::RANGE_KEY;
use crate::lab::edge::{ACTIVE_OPEN, CLOSE_FIRST, CLOSE_SECOND, LISTENER, PASSIVE_OPEN, edges};
use crate::lab::error::{LabError, Result};
use crate::lab::expectation::{Expectation, Load, count};
use crate::lab::ledger::Ledger;
use crate::lab::place::{Lab, add_loopback_address};
use crate::lab::protocol::{ChurnSpec, Command, Reply};
use crate::lab::puppet::{Puppet, STEP};
use crate::lab::recipe::{Addresses, Recipe};
use crate::lab::socket::Ending;
use crate::lab::table::Table;

pub(super) const BUCKETS_KEY: &str = "ipv4/tcp_max_tw_buckets";
/// Load A's `tcp_max_tw_buckets`.
const OVERFLOWING: u64 = 1000;
/// Room that a load which must not overflow leaves for the lab's other time-wait sockets.
pub(super) const SPARE_BUCKETS: u64 = 100_000;
pub(super) const WIDE_RANGE: &str = "1024 65535";
/// Destinations of load A, and at least of any load.
const DESTINATIONS: u64 = 8;
/// Ports taken towards one destination, at most: less than half of the wide range, since from
/// there `connect()` searches long.
pub(super) const PER_DESTINATION: u64 = 28_000;
/// As many destinations as there are addresses 127.0.0.1 to .254.
const MOST_TIME_WAIT: u64 = PER_DESTINATION * 254;
/// The slowest pace that is waited for: connections a second.
pub(super) const SLOWEST: u64 = 100;

pub(super) fn play(lab: &mut Lab, recipe: Recipe, connections: u64) -> Result<Expectation> {
    let addresses = lab.options.addresses;
    if addresses == Addresses::Ipv4Mapped {
        return Err(LabError::Unsuitable(
            "loads come with IPv4 or IPv6 addresses: leave out --mapped".into(),
        ));
    }
    let lasting = recipe == Recipe::TimeWait;
    if lasting && connections > MOST_TIME_WAIT {
        return Err(LabError::Unsuitable(format!(
            "time-wait makes at most {MOST_TIME_WAIT} sockets"
        )));
    }
    // Load A lets the time-wait table overflow, so that the pace is the same from first to last.
    let buckets = if lasting { connections + SPARE_BUCKETS } else { OVERFLOWING };
    let usual_range = lab.set_sysctl(RANGE_KEY, WIDE_RANGE)?;
    let usual_buckets = lab.set_sysctl(BUCKETS_KEY, &buckets.to_string())?;
    let done = run(lab, recipe, connections);
    // Whatever happened: the lab may go on to other recipes.
    lab.set_sysctl(RANGE_KEY, &usual_range)?;
    if !lasting {
        lab.set_sysctl(BUCKETS_KEY, &usual_buckets)?;
    }
    done
}

fn run(lab: &mut Lab, recipe: Recipe, connections: u64) -> Result<Expectation> {
    let addresses = lab.options.addresses;
    let lasting = recipe == Recipe::TimeWait;
    let wanted = if lasting {
        connections.div_ceil(PER_DESTINATION).max(DESTINATIONS)
    } else {
        DESTINATIONS
    };
    let netns = lab.namespaces[0].clone();
    let destinations = destinations(&netns.name, addresses, 1, wanted)?;
    let before = Ledger::of(&netns)?;
    let [port, _] = lab.take_ports();
    let mut puppet = Puppet::spawn(&lab.program, "lab-load", Some(&lab.namespaces[0].name))?;
    let process = puppet.process().clone();
    lab.tell(&format!(
        "{} makes {connections} connections to port {port} of {} addresses",
        puppet.name(),
        destinations.len()
    ));
    let pace = lab.pace();
    let slowest = pace.map_or(SLOWEST, |pace| SLOWEST.min(pace.into())).max(1);
    let limit = STEP + Duration::from_secs(connections / slowest);
    let destinations_too = destinations.clone();
    let spec =
        ChurnSpec { connections, destinations: destinations_too, sources: Vec::new(), port, pace };
    let command = Command::Churn(spec);
    let (connections, seconds) = match puppet.tell_patiently(&command, limit)? {
        Reply::Churned { connections, seconds } => (connections, seconds),
        other => {
            return Err(LabError::Step {
                who: puppet.name(),
                what: "run a load".into(),
                why: format!("{other:?}"),
            });
        }
    };
    let time_wait = Table::of(process.pid).await_only_time_wait()?;
    let after = Ledger::of(&netns)?;
    let entered = after.entered() - before.entered();
    let overflowed = after.overflowed - before.overflowed;
    if entered + overflowed != connections {
        return Err(LabError::Unsuitable(format!(
            "of {connections} connections the kernel says that {entered} entered the time-wait table and {overflowed} found it full"
        )));
    }
    let expired = (before.level + entered).saturating_sub(after.level);
    let mut totals = BTreeMap::new();
    let family = addresses.family();
    count(&mut totals, family, &edges(LISTENER), 1);
    count(&mut totals, family, &edges(&[ACTIVE_OPEN, CLOSE_FIRST].concat()), connections);
    count(&mut totals, family, &edges(&[PASSIVE_OPEN, CLOSE_SECOND].concat()), connections);
    // Nanoseconds in a double are exact for months.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people, far below 2^52")]
    let connections_per_second = connections as f64 / seconds.max(1e-9);
    lab.tell(&format!("{connections_per_second:.0} connections/s; {time_wait} are in TIME_WAIT"));
    Ok(Expectation {
        recipe,
        addresses,
        netns: vec![netns],
        sockets: Vec::new(),
        totals,
        time_wait_entered: entered,
        time_wait_exited: [(Ending::Expired, expired)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect(),
        time_wait_overflowed: overflowed,
        load: Some(Load {
            process,
            port,
            destinations,
            connections,
            seconds,
            connections_per_second,
            time_wait,
        }),
        services: Vec::new(),
    })
}

/// Loopback addresses of the namespace `netns`, so many from the one that ends with `first`: with
/// IPv4 all of 127.0.0.0/8 is there, IPv6 has `::1` alone, so the namespace gets more.
pub(super) fn destinations(
    netns: &str,
    addresses: Addresses,
    first: u64,
    wanted: u64,
) -> Result<Vec<IpAddr>> {
    let all = (first..first + wanted).filter_map(|host| u8::try_from(host).ok());
    let all = all.map(|host| match addresses {
        Addresses::Ipv6 => Ipv6Addr::new(0xfd74, 0x6370, 0xff, 0, 0, 0, 0, host.into()).into(),
        _ => Ipv4Addr::new(127, 0, 0, host).into(),
    });
    let all: Vec<IpAddr> = all.collect();
    for ip in all.iter().filter(|ip| ip.is_ipv6()) {
        add_loopback_address(netns, *ip)?;
    }
    Ok(all)
}
