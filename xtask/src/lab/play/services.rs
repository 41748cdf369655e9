//! Load: several services that leave time-wait sockets, each a figure of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::load::{BUCKETS_KEY, SLOWEST, SPARE_BUCKETS, WIDE_RANGE, destinations};
use super::opening::RANGE_KEY;
use crate::lab::edge::{ACTIVE_OPEN, CLOSE_FIRST, CLOSE_SECOND, LISTENER, PASSIVE_OPEN, edges};
use crate::lab::error::{LabError, Result};
use crate::lab::expectation::{Expectation, Namespace, Service, count};
use crate::lab::ledger::Ledger;
use crate::lab::netns;
use crate::lab::place::Lab;
use crate::lab::protocol::{ChurnSpec, Command};
use crate::lab::puppet::{Puppet, STEP};
use crate::lab::recipe::{Addresses, Recipe};
use crate::lab::socket::{Ending, Role};
use crate::lab::table::Table;

/// The most connections of the first service: the other two make two and three times as many.
const MOST: u64 = 50_000;
/// Destinations of the service that exits, of the one in another namespace, and clients'
/// addresses of the server. Each has fewer ports taken than make connect() search long.
const SPREAD: [u64; 3] = [2, 4, 6];

/// The last byte of the first client's address.
const FIRST_SOURCE: u64 = 101;

/// The first service makes `connections`, the second twice, the third three times as many.
pub(super) fn play(
    lab: &mut Lab,
    connections: u64,
    namespaces: &[Namespace],
) -> Result<Expectation> {
    let addresses = lab.options.addresses;
    if addresses == Addresses::Ipv4Mapped {
        return Err(LabError::Unsuitable(
            "loads come with IPv4 or IPv6 addresses: leave out --mapped".into(),
        ));
    }
    if connections > MOST {
        return Err(LabError::Unsuitable(format!(
            "--connections {connections}: three-services makes six times as many, from at most {MOST}"
        )));
    }
    let buckets = (6 * connections + SPARE_BUCKETS).to_string();
    let mut usual = Vec::new();
    for netns in namespaces {
        let _lasting = netns::set_sysctl(&netns.name, BUCKETS_KEY, &buckets)?;
        usual.push((netns, netns::set_sysctl(&netns.name, RANGE_KEY, WIDE_RANGE)?));
    }
    let done = run(lab, connections, namespaces);
    for (netns, range) in usual {
        netns::set_sysctl(&netns.name, RANGE_KEY, &range)?;
    }
    done
}

fn run(lab: &mut Lab, connections: u64, namespaces: &[Namespace]) -> Result<Expectation> {
    let addresses = lab.options.addresses;
    let [here, elsewhere] = namespaces else {
        return Err(LabError::Unsuitable("three services need two namespaces".into()));
    };
    let ports = lab.take_ports();
    let ledgers = |namespaces: &[Namespace]| -> Result<Vec<Ledger>> {
        namespaces.iter().map(Ledger::of).collect()
    };
    let before = ledgers(namespaces)?;
    lab.lasting.clear();
    let (exited, puppet) = client_first(lab, "lab-exited", here, ports[0], connections, SPREAD[0])?;
    drop(puppet);
    lab.tell("lab-exited has exited");
    let (elsewhere, puppet) =
        client_first(lab, "lab-elsewhere", elsewhere, ports[0], 2 * connections, SPREAD[1])?;
    lab.lasting.push(puppet);
    let (server, puppet) = server_first(lab, here, ports[1], 3 * connections, SPREAD[2])?;
    lab.lasting.push(puppet);
    let services = vec![Service { exited: true, ..exited }, elsewhere, server];
    let after = ledgers(namespaces)?;
    let sum = |ledgers: &[Ledger], what: fn(&Ledger) -> u64| ledgers.iter().map(what).sum::<u64>();
    let entered = sum(&after, Ledger::entered) - sum(&before, Ledger::entered);
    let level = |ledgers: &[Ledger]| sum(ledgers, |ledger| ledger.level);
    let expired = (level(&before) + entered).saturating_sub(level(&after));
    let all = 6 * connections;
    if entered != all {
        return Err(LabError::Unsuitable(format!(
            "of {all} connections the kernel says that {entered} entered the time-wait table"
        )));
    }
    let mut totals = BTreeMap::new();
    let family = addresses.family();
    count(&mut totals, family, &edges(LISTENER), 3);
    let (by_clients, by_server) = (3 * connections, 3 * connections);
    for (open, first, second) in
        [(ACTIVE_OPEN, by_clients, by_server), (PASSIVE_OPEN, by_server, by_clients)]
    {
        count(&mut totals, family, &edges(&[open, CLOSE_FIRST].concat()), first);
        count(&mut totals, family, &edges(&[open, CLOSE_SECOND].concat()), second);
    }
    let exited = [(Ending::Expired, expired)].into_iter().filter(|(_, count)| *count > 0);
    Ok(Expectation {
        recipe: Recipe::ThreeServices,
        addresses,
        netns: namespaces.to_vec(),
        sockets: Vec::new(),
        totals,
        time_wait_entered: entered,
        time_wait_exited: exited.collect(),
        time_wait_overflowed: 0,
        load: None,
        services,
    })
}

/// So long may so many connections take.
fn limit(connections: u64) -> Duration {
    STEP + Duration::from_secs(connections / SLOWEST)
}

/// How often each address comes, taken in turn.
fn spread(addresses: &[IpAddr], connections: u64) -> BTreeMap<IpAddr, u64> {
    let mut spread = BTreeMap::new();
    let each = addresses.len() as u64;
    for (at, ip) in (0..).zip(addresses) {
        let more = u64::from(at < connections % each);
        spread.insert(*ip, connections / each + more);
    }
    spread
}

/// A service that connects and closes first.
fn client_first(
    lab: &Lab,
    comm: &str,
    netns: &Namespace,
    port: u16,
    connections: u64,
    spread_over: u64,
) -> Result<(Service, Puppet)> {
    let all = destinations(&netns.name, lab.options.addresses, 1, spread_over)?;
    let mut puppet = Puppet::spawn(&lab.program, comm, Some(&netns.name))?;
    let process = puppet.process().clone();
    let time_wait = spread(&all, connections);
    lab.tell(&format!("{} makes {connections} connections in {}", puppet.name(), netns.name));
    let spec = ChurnSpec { connections, destinations: all, sources: Vec::new(), port, pace: None };
    puppet.tell_patiently(&Command::Churn(spec), limit(connections))?;
    Table::of(process.pid).await_only_time_wait()?;
    let (netns, role) = (netns.clone(), Role::Active);
    Ok((Service { process, exited: false, netns, role, port, time_wait }, puppet))
}

/// A server that closes first, and its client, which comes from several addresses.
fn server_first(
    lab: &Lab,
    netns: &Namespace,
    port: u16,
    connections: u64,
    spread_over: u64,
) -> Result<(Service, Puppet)> {
    // Others than those that the time-wait sockets of the first service have: a client that binds
    // to its port would meet them.
    let sources = destinations(&netns.name, lab.options.addresses, FIRST_SOURCE, spread_over)?;
    let mut server = Puppet::spawn(&lab.program, "lab-server", Some(&netns.name))?;
    let mut client = Puppet::spawn(&lab.program, "lab-client", Some(&netns.name))?;
    let process = server.process().clone();
    let time_wait = spread(&sources, connections);
    let address = SocketAddr::new(sources[0], port);
    let listener = server.listen(address, false)?;
    lab.tell(&format!("{} closes {connections} connections on {address}", server.name()));
    let serve = Command::CloseMany { listener, connections };
    server.begin(&serve)?;
    let spec = ChurnSpec { connections, destinations: vec![sources[0]], sources, port, pace: None };
    client.tell_patiently(&Command::ConnectMany(spec), limit(connections))?;
    server.finish(&serve)?;
    server.tell_done(&Command::Close { socket: listener })?;
    Table::of(process.pid).await_only_time_wait()?;
    let (netns, role) = (netns.clone(), Role::Passive);
    Ok((Service { process, exited: false, netns, role, port, time_wait }, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_its_address() {
        let ips: Vec<IpAddr> = (1..=4).map(|host| IpAddr::from([127, 0, 0, host])).collect();
        let figures: Vec<u64> = spread(&ips, 10).into_values().collect();
        assert_eq!(figures, [3, 3, 2, 2]);
        assert_eq!(spread(&ips, 1).values().sum::<u64>(), 1);
    }
}
