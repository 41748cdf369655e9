//! What to change, and why: from what is observed and the sysctls in force. Nothing is advised that
//! would not help there.

mod ports;
mod sysctls;

use super::{
    Assessed,
    alerts::{Alert, AlertName},
    facts::{Facts, NamespaceFacts, Route},
    usage::capacity,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

pub use crate::model::report::AdviceRow as Advice;
pub(super) use ports::{Shortage, short_of_ports};
use sysctls::WIDER_RANGE;

/// Routes that advice is given for, at most: the fullest.
const ROUTES: usize = 3;

/// Pieces of advice in one alert, at most.
const IN_ALERT: usize = 4;

/// From this ratio on a route is in need of advice: connect() searches for long.
const FROM: f64 = 0.5;

/// A forecast of less than this, in seconds, is in need of advice.
const SOON: f64 = 600.0;

/// Sockets in TIME_WAIT of accepting ports that are worth a word.
const MANY: u64 = 1_000;

/// All advice there is, the most useful first, each piece once.
#[must_use]
pub fn advise(facts: &Facts, assessed: &[Assessed], firing: &[Alert]) -> Vec<Advice> {
    let mut advice = Vec::new();
    let exhausted: HashSet<(&str, Route)> = firing
        .iter()
        .filter(|alert| alert.subject.name == AlertName::PortExhausted)
        .filter_map(|alert| Some((&*alert.subject.netns, alert.subject.route?)))
        .collect();
    let in_need = assessed.iter().filter(|it| {
        it.ports.ratio().is_some_and(|ratio| ratio >= FROM)
            || it.forecast.is_some_and(|forecast| forecast.eta_seconds <= SOON)
            || exhausted.contains(&(&*it.netns, it.ports.route))
    });
    for it in in_need.take(ROUTES) {
        let Some(netns) = facts.namespaces.iter().find(|netns| netns.netns == it.netns) else {
            continue;
        };
        advice.extend(of(&it.netns, short_of_ports(&shortage(netns, it))));
    }
    for alert in firing {
        let told = match alert.subject.name {
            AlertName::TimeWaitBucketsNearlyFull => buckets(facts, alert),
            AlertName::CloseWaitLeak => Some(leak(alert)),
            _ => None,
        };
        advice.extend(of(&alert.subject.netns, told));
    }
    for netns in &facts.namespaces {
        advice.extend(of(&netns.netns, harmless(netns)));
    }
    let mut seen = HashSet::new();
    advice.retain(|it| seen.insert((it.netns.clone(), it.id.clone(), it.command.clone())));
    advice
}

/// Advice that is meant for one network namespace: its sysctls are its own.
fn of(netns: &str, advice: impl IntoIterator<Item = Advice>) -> impl Iterator<Item = Advice> {
    advice.into_iter().map(move |it| Advice { netns: netns.to_owned(), ..it })
}

/// Adds to each alert what to do about it: what helps on its own route and in its own network
/// namespace, and nothing that is meant for others.
pub(super) fn add_to<'a>(
    alerts: impl Iterator<Item = &'a mut Alert>,
    facts: &Facts,
    assessed: &[Assessed],
) {
    let mut alerts = alerts.peekable();
    if alerts.peek().is_none() {
        return;
    }
    let by_name: HashMap<&str, &NamespaceFacts> =
        facts.namespaces.iter().map(|netns| (&*netns.netns, netns)).collect();
    let by_route: HashMap<(&str, Route), &Assessed> =
        assessed.iter().map(|it| ((&*it.netns, it.ports.route), it)).collect();
    for alert in alerts {
        let advice = match (alert.subject.name, alert.subject.route) {
            (AlertName::TimeWaitBucketsNearlyFull, _) => {
                buckets(facts, alert).into_iter().collect()
            }
            (AlertName::CloseWaitLeak, _) => vec![leak(alert)],
            (_, Some(route)) => {
                let name = Arc::clone(&alert.subject.netns);
                match (by_name.get(&*name), by_route.get(&(&*name, route))) {
                    (Some(netns), Some(it)) => short_of_ports(&shortage(netns, it)),
                    (Some(netns), None) => nobody_seen(netns, route),
                    (None, _) => Vec::new(),
                }
            }
            (_, None) => Vec::new(),
        };
        alert.advice = advice.iter().take(IN_ALERT).map(line).collect();
    }
}

/// A piece of advice in a line.
fn line(advice: &Advice) -> String {
    if advice.command.is_empty() {
        advice.title.clone()
    } else {
        format!("{}: {}", advice.title, advice.command)
    }
}

fn shortage<'a>(netns: &'a NamespaceFacts, it: &Assessed) -> Shortage<'a> {
    let ports = &it.ports;
    Shortage {
        sysctls: &netns.sysctls,
        route: Some(ports.route),
        capacity: ports.capacity.unwrap_or(0),
        live: ports.live,
        time_wait: ports.time_wait,
        fin_wait2: ports.fin_wait2,
        without_timestamps: ports.without_timestamps,
        rate: it.forecast.map(|forecast| forecast.rate),
    }
}

/// What helps where nobody is seen to hold a port towards there: those who were refused have gone,
/// or it is bind() that took the ports.
fn nobody_seen(netns: &NamespaceFacts, route: Route) -> Vec<Advice> {
    let offered = netns.sysctls.ephemeral_ports();
    let short = Shortage {
        sysctls: &netns.sysctls,
        route: Some(route),
        capacity: capacity(netns).or(offered).unwrap_or(0),
        live: 0,
        time_wait: 0,
        fin_wait2: 0,
        without_timestamps: 0,
        rate: None,
    };
    let mut advice = short_of_ports(&short);
    if short.capacity == 0 {
        // No address more, here or there, has a port to offer.
        advice.retain(|it| it.id == WIDER_RANGE);
    }
    advice
}

fn text(id: &str, title: &str) -> Advice {
    Advice { id: id.to_owned(), title: title.to_owned(), ..Advice::default() }
}

fn buckets(facts: &Facts, alert: &Alert) -> Option<Advice> {
    let netns = facts.namespaces.iter().find(|netns| netns.netns == alert.subject.netns);
    let most = netns.and_then(|netns| netns.sysctls.tcp_max_tw_buckets).unwrap_or(0).max(0);
    sysctls::buckets(most.into(), 0, alert.summary.clone())
}

/// What to do where so many sockets will wait, more than the time-wait table takes; `None` where it
/// takes no more.
pub(super) fn table_too_small(most: i32, sockets: u64) -> Option<Advice> {
    let reason = format!(
        "{sockets} sockets will be in TIME_WAIT, and tcp_max_tw_buckets is {most}: the connections \
         beyond end without it"
    );
    sysctls::buckets(most.into(), i64::try_from(sockets).unwrap_or(i64::MAX), reason)
}

fn leak(alert: &Alert) -> Advice {
    let who = alert.subject.owner.as_deref().unwrap_or("the program");
    Advice {
        reason: alert.summary.clone(),
        command: "ss -tnp state close-wait".to_owned(),
        effect: "each close() frees a socket, its memory, and the peer's socket in FIN_WAIT2"
            .to_owned(),
        risk: "none".to_owned(),
        unless: "no sysctl helps: the kernel waits for the program for ever".to_owned(),
        ..text("close-wait", &format!("Have {who} close connections that the peer has closed"))
    }
}

/// Sockets in TIME_WAIT that take no port.
fn harmless(netns: &NamespaceFacts) -> Option<Advice> {
    let opening: u64 = netns.holders.iter().map(|it| it.time_wait + it.fin_wait2).sum();
    let accepted = netns.time_wait?.checked_sub(opening).filter(|&sockets| sockets >= MANY)?;
    Some(Advice {
        reason: format!(
            "{accepted} sockets of {} wait on accepting ports, because this end closes first",
            netns.netns
        ),
        command: String::new(),
        effect: format!(
            "none is needed: they take no ephemeral port, only memory ({} KiB)",
            accepted / 4
        ),
        risk: "tcp_tw_reuse does nothing on a server; lowering tcp_max_tw_buckets does harm"
            .to_owned(),
        unless: "the clients could close first as well, and are not short of ports".to_owned(),
        ..text("server-time-wait", "Leave TIME_WAIT on listening ports alone")
    })
}

#[cfg(test)]
mod tests;
