//! Sysctls that are worth a change, each only where it would help there.

use super::{
    Advice,
    ports::{Shortage, carried, to},
    text,
};
use crate::pressure::usage::may_reuse;

/// The widest range that leaves the ports alone below which services are found. Its bounds are one
/// even, one odd: else connect() may not come to the first port, and the kernel warns of it
/// (`ipv4_local_port_range()`, net/ipv4/sysctl_net_ipv4.c).
const WIDE: (u32, u32) = (2_048, 65_001);

/// The advice to widen the range.
pub(super) const WIDER_RANGE: &str = "wider-range";

/// `None` where it is on, or would change nothing.
pub(super) fn reuse(short: &Shortage<'_>) -> Option<Advice> {
    let already = match short.route {
        Some(route) => may_reuse(short.sysctls, &route)?,
        None => short.sysctls.tcp_tw_reuse? == 1,
    };
    let timestamps = short.sysctls.tcp_timestamps?;
    let waiting = short.time_wait.saturating_sub(short.fin_wait2);
    if timestamps == 0 {
        // Taking ports over rests on them.
        let matters = !already || short.without_timestamps > 0 || short.route.is_none();
        return matters.then(|| Advice {
            reason:
                "tcp_timestamps is 0, and without timestamps no port in TIME_WAIT is taken over"
                    .to_owned(),
            command: "sysctl -w net.ipv4.tcp_timestamps=1".to_owned(),
            effect: "new connections may then be taken over where tcp_tw_reuse allows it"
                .to_owned(),
            risk: "twelve bytes more in each segment".to_owned(),
            unless: "the peers do not use timestamps: both ends have to".to_owned(),
            ..text("tcp-timestamps", "Turn TCP timestamps on")
        });
    }
    let gain = waiting.saturating_sub(short.without_timestamps);
    if already || (gain == 0 && short.route.is_some()) {
        return None;
    }
    let delay = f64::from(short.sysctls.tcp_tw_reuse_delay.unwrap_or(1_000).max(1)) / 1_000.0;
    let now = if short.sysctls.tcp_tw_reuse == Some(2) { "2: on loopback only" } else { "0" };
    Some(Advice {
        reason: format!(
            "tcp_tw_reuse is {now}; {gain} ports to {} wait although their connections had \
             timestamps",
            to(short)
        ),
        command: "sysctl -w net.ipv4.tcp_tw_reuse=1".to_owned(),
        effect: format!(
            "connect() takes a port over after {delay:.0} s: up to {gain} ports at once, and {:.0} \
             connections a second instead of {:.0}",
            f64::from(short.capacity) / delay,
            carried(short.capacity.into())
        ),
        risk: "small: a takeover is guarded by timestamps; it is for the end that opens \
               connections. It is not tcp_tw_recycle, which broke clients behind NAT and is gone \
               since Linux 4.12"
            .to_owned(),
        unless: "on a server's accepting port, where it does nothing; where the peers do not use \
                 TCP timestamps; for sockets that bind() a source port themselves"
            .to_owned(),
        ..text("tcp-tw-reuse", "Let connect() take ports in TIME_WAIT over")
    })
}

/// Only where it is the peers' FINs that are waited for.
pub(super) fn fin_timeout(short: &Shortage<'_>) -> Option<Advice> {
    let seconds = short.sysctls.tcp_fin_timeout?;
    if short.fin_wait2 == 0 || 4 * short.fin_wait2 < short.live + short.time_wait || seconds <= 15 {
        return None;
    }
    Some(Advice {
        reason: format!(
            "{} ports to {} wait for the peer's FIN (FIN_WAIT2), for tcp_fin_timeout = {seconds} s",
            short.fin_wait2,
            to(short)
        ),
        command: "sysctl -w net.ipv4.tcp_fin_timeout=15".to_owned(),
        effect: format!("those ports come back after 15 s instead of {seconds} s"),
        risk: "a peer that closes later than that gets a reset".to_owned(),
        unless: "to shorten TIME_WAIT, which is 60 s whatever this is".to_owned(),
        ..text("tcp-fin-timeout", "Wait less long for the peer's FIN")
    })
}

/// Only where the range is not wide already.
pub(super) fn wider(short: &Shortage<'_>) -> Option<Advice> {
    let range = short.sysctls.ip_local_port_range?;
    let wide = WIDE.1 - WIDE.0 + 1;
    let gain = wide.checked_sub(range.len()).filter(|&gain| 10 * gain > range.len())?;
    Some(Advice {
        reason: format!(
            "ip_local_port_range is {} to {}: {} ports",
            range.first(),
            range.last(),
            range.len()
        ),
        command: format!("sysctl -w net.ipv4.ip_local_port_range=\"{} {}\"", WIDE.0, WIDE.1),
        effect: format!(
            "{gain} ports more towards each destination, and so {:.0} connections a second more for ever",
            carried(gain.into())
        ),
        risk: "an outgoing connection may sit on a port on which a service is to listen later: \
               reserve those first, as in sysctl -w net.ipv4.ip_local_reserved_ports=8080,9090-9100"
            .to_owned(),
        unless: "services listen on ports all over the range".to_owned(),
        ..text(WIDER_RANGE, "Widen the range of local ports")
    })
}

/// The most that `tcp_max_tw_buckets` takes.
const MOST_BUCKETS: i64 = i32::MAX as i64;

/// Room for so many sockets in TIME_WAIT and as many again, since there are as many as `reason` says
/// in a table of `most`. `None` where it cannot be raised: to lower it is never advised.
pub(super) fn buckets(most: i64, sockets: i64, reason: String) -> Option<Advice> {
    let more = most.max(sockets).max(32_768).saturating_mul(2).min(MOST_BUCKETS);
    (more > most).then(|| Advice {
        reason,
        command: format!("sysctl -w net.ipv4.tcp_max_tw_buckets={more}"),
        effect: format!(
            "room for {more} sockets in TIME_WAIT, of some 250 bytes each when there are as many"
        ),
        risk: "memory, and nothing else".to_owned(),
        unless: "never lower it to be rid of TIME_WAIT: connections then end without it, and late \
                 segments reach new ones"
            .to_owned(),
        ..text("tcp-max-tw-buckets", "Let more sockets wait")
    })
}
