//! What helps where ports run short: what the program or the other end can do, and, from
//! [`sysctls`], what the kernel can.

use super::{Advice, sysctls, text};
use crate::{
    model::sysctls::Sysctls,
    pressure::{
        conditions::destination, facts::Route, forecast::TIME_WAIT_SECONDS, usage::is_loopback,
    },
};

/// What to do where ports run short towards one destination.
#[derive(Clone, Copy, Debug)]
pub(in crate::pressure) struct Shortage<'a> {
    /// Whose sysctls count.
    pub(in crate::pressure) sysctls: &'a Sysctls,
    /// Where to; `None` where it is only planned.
    pub(in crate::pressure) route: Option<Route>,
    /// All ports there are.
    pub(in crate::pressure) capacity: u32,
    /// Held by live sockets.
    pub(in crate::pressure) live: u64,
    /// In TIME_WAIT, and taken.
    pub(in crate::pressure) time_wait: u64,
    /// Of these, in substate FIN_WAIT2.
    pub(in crate::pressure) fin_wait2: u64,
    /// Of these, without TCP timestamps.
    pub(in crate::pressure) without_timestamps: u64,
    /// New connections a second; `None` where that is not known.
    pub(in crate::pressure) rate: Option<f64>,
}

/// What helps where ports run short.
pub(in crate::pressure) fn short_of_ports(short: &Shortage<'_>) -> Vec<Advice> {
    let blocking = short.live + short.time_wait;
    let is_waiting = 2 * short.time_wait >= blocking && short.time_wait > 0
        || blocking == 0 && short.rate.is_some();
    [
        is_waiting.then(|| keep_alive(short)),
        (10 * short.live >= 8 * blocking && short.live > 0).then(|| fewer_open(short)),
        is_waiting.then(|| other_side_first(short)),
        sysctls::reuse(short).filter(|_| is_waiting),
        sysctls::fin_timeout(short),
        sysctls::wider(short),
        Some(more_sources(short)),
        Some(more_destinations(short)),
        (short.route.is_some()).then(|| own_range(short)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn to(short: &Shortage<'_>) -> String {
    short.route.map_or_else(|| "one destination".to_owned(), |route| destination(&route))
}

/// Connections a second that so many ports carry for ever.
pub(super) fn carried(ports: f64) -> f64 {
    ports / TIME_WAIT_SECONDS
}

fn keep_alive(short: &Shortage<'_>) -> Advice {
    let rate = short.rate.filter(|rate| *rate >= 1.0);
    let observed =
        rate.map_or_else(String::new, |rate| format!("{rate:.0} new connections a second, "));
    Advice {
        reason: format!(
            "{observed}{} of {} ports to {} only wait for their minute to end",
            short.time_wait,
            short.capacity,
            to(short)
        ),
        command: String::new(),
        effect: format!(
            "a connection that is used a second time saves one port for 60 s; with a pool of 100 \
             connections the same work takes 100 ports instead of {}",
            rate.map_or(short.time_wait, whole_minute)
        ),
        risk: "a pool that is not bounded holds live ports instead; set its size and idle time-out"
            .to_owned(),
        unless: "the other end closes after each request whatever is asked of it".to_owned(),
        ..text(
            "keep-alive",
            "Keep connections open: pooling, HTTP keep-alive, persistent database sessions",
        )
    }
}

/// Connections that begin in a minute.
fn whole_minute(rate: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below")]
    let count = (rate * TIME_WAIT_SECONDS).round() as u64;
    count
}

fn fewer_open(short: &Shortage<'_>) -> Advice {
    Advice {
        reason: format!(
            "{} of {} ports to {} are held by open connections, not by TIME_WAIT",
            short.live,
            short.capacity,
            to(short)
        ),
        command: format!(
            "ss -tnp dst {}",
            short.route.map_or_else(String::new, |it| it.dst.to_string())
        ),
        effect: "each connection that is closed at the other end first frees its port at once"
            .to_owned(),
        risk: "requests wait for a free connection of the pool".to_owned(),
        unless: "they all carry traffic: then the ports themselves are too few".to_owned(),
        ..text("fewer-open", "Bound the number of open connections, and close those that leak")
    }
}

fn other_side_first(short: &Shortage<'_>) -> Advice {
    Advice {
        reason: format!("this end closes first, so its ports to {} wait", to(short)),
        command: String::new(),
        effect: format!(
            "up to {} ports free here; the other end has as many sockets in TIME_WAIT on its \
             listening port, which costs it memory, not ports",
            short.time_wait
        ),
        risk:
            "a server that closes too early cuts off answers; it should close after its last byte"
                .to_owned(),
        unless: "the other end is itself short of ports towards this one".to_owned(),
        ..text(
            "other-side-first",
            "Let the server close first (Connection: close sent by the server)",
        )
    }
}

fn more_sources(short: &Shortage<'_>) -> Advice {
    let near = short.route.is_some_and(|route| is_loopback(route.dst));
    let example = if near {
        "ip address add 127.0.0.2/8 dev lo"
    } else {
        "ip address add 192.0.2.11/24 dev eth0"
    };
    Advice {
        reason: format!(
            "ports are taken by source address; one address has {} to {}",
            short.capacity,
            to(short)
        ),
        command: example.to_owned(),
        effect: format!(
            "each address more: {} ports and {:.0} connections a second more",
            short.capacity,
            carried(short.capacity.into())
        ),
        risk: "the program has to bind() to it, with IP_BIND_ADDRESS_NO_PORT so that connect() \
               still chooses the port; firewalls and peers have to know the address"
            .to_owned(),
        unless: "a NAT puts all of them behind one address again".to_owned(),
        ..text("more-sources", "Use more source addresses (virtual IPs)")
    }
}

fn more_destinations(short: &Shortage<'_>) -> Advice {
    Advice {
        reason: format!("all these connections go to {}", to(short)),
        command: String::new(),
        effect: format!(
            "each address or port more at the other end: {} ports and {:.0} connections a second more",
            short.capacity,
            carried(short.capacity.into())
        ),
        risk: "the load has to be spread over them evenly".to_owned(),
        unless: "they lie behind one address that translates (a virtual IP is one destination)"
            .to_owned(),
        ..text("more-destinations", "Spread the load over more destination addresses or ports")
    }
}

fn own_range(short: &Shortage<'_>) -> Advice {
    Advice {
        reason: format!(
            "from half of the {} ports on, connect() searches 50 times longer: it tries every other \
             port first",
            short.capacity
        ),
        command: String::new(),
        effect:
            "with IP_LOCAL_PORT_RANGE (setsockopt, Linux 6.3) each service has ports of its own \
                 and the search goes through them one by one: some 26 us up to 99 % instead of a \
                 millisecond"
                .to_owned(),
        risk: "the ports are no more than before; services have to agree on their parts".to_owned(),
        unless: "the program cannot be changed".to_owned(),
        ..text("own-range", "Give the service a port range of its own")
    }
}
