//! The planning question: what do I need for so many new connections a second?

use super::{
    advice::{Advice, Shortage, short_of_ports, table_too_small},
    forecast::TIME_WAIT_SECONDS,
};
use crate::model::sysctls::Sysctls;
use serde::Serialize;

/// The ports that the kernel offers unless told otherwise.
const USUAL_PORTS: u32 = 28_232;

/// What it takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// New connections a second that are wanted.
    pub rate: f64,
    /// Destinations (address and port) over which they are spread evenly.
    pub dest_count: u32,
    /// Ports that each destination takes when this end closes first: for 60 s each.
    pub ports_needed: f64,
    /// Ports that there are towards each destination.
    pub ports_offered: u32,
    /// These are of this machine; else of the kernel's defaults.
    pub of_this_machine: bool,
    /// New connections a second that these carry for ever, towards all destinations.
    pub rate_carried: f64,
    /// Whether that is enough.
    pub fits: bool,
    /// Part of the ports that will be taken.
    pub utilization_ratio: f64,
    /// connect() will take over ports in TIME_WAIT, so that each is needed for a second, not for
    /// sixty.
    pub reuses: bool,
    /// Source addresses that would be enough as things are.
    pub sources_needed: u32,
    /// Destinations that would be enough as things are.
    pub dest_needed: u32,
    /// Sockets that will be in TIME_WAIT at a time, towards all destinations.
    pub time_wait_sockets: u64,
    /// `tcp_max_tw_buckets` of this machine; `None` where it is not known. What is more than that
    /// ends without TIME_WAIT.
    pub time_wait_buckets: Option<i32>,
    /// What to change; empty where it fits.
    pub advice: Vec<Advice>,
}

/// Plans for `rate` connections a second to `dest_count` destinations that are not on loopback, each
/// closed by this end first.
#[must_use]
pub fn plan(rate: f64, dest_count: u32, sysctls: Option<&Sysctls>) -> Plan {
    let known = sysctls.and_then(Sysctls::ephemeral_ports);
    let ports_offered = known.unwrap_or(USUAL_PORTS);
    let reuses = sysctls.is_some_and(|it| {
        it.tcp_tw_reuse == Some(1) && it.tcp_timestamps.is_some_and(|on| on != 0)
    });
    let delay = sysctls.and_then(|it| it.tcp_tw_reuse_delay).unwrap_or(1_000);
    let held_seconds = if reuses { f64::from(delay) / 1_000.0 } else { TIME_WAIT_SECONDS };
    let dest_count = dest_count.max(1);
    let ports_needed = rate / f64::from(dest_count) * held_seconds;
    let offered = f64::from(ports_offered);
    let rate_carried = offered * f64::from(dest_count) / held_seconds;
    let utilization_ratio = if offered > 0.0 { ports_needed / offered } else { f64::INFINITY };
    let fits = utilization_ratio <= 1.0;
    let of = |part: f64| {
        // More than four thousand million addresses are no plan.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let whole = part.ceil().clamp(1.0, f64::from(u32::MAX)) as u32;
        whole
    };
    let basis = sysctls.cloned().unwrap_or_else(usual);
    let advice = short_of_ports(&Shortage {
        sysctls: &basis,
        route: None,
        capacity: ports_offered,
        live: 0,
        // As it would be, once the load has run for a minute.
        time_wait: if reuses { 0 } else { u64::from(of(ports_needed.min(offered))) },
        fin_wait2: 0,
        without_timestamps: 0,
        rate: Some(rate),
    });
    // From half on connect() is slow already.
    let advice = if utilization_ratio < 0.5 { Vec::new() } else { advice };
    let waiting = rate * TIME_WAIT_SECONDS;
    // A port that is taken over has one socket, whatever the rate.
    let waiting = if reuses { waiting.min(offered * f64::from(dest_count)) } else { waiting };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below")]
    let time_wait_sockets = waiting.ceil() as u64;
    let mut plan = Plan {
        rate,
        dest_count,
        ports_needed,
        ports_offered,
        of_this_machine: known.is_some(),
        rate_carried,
        fits,
        utilization_ratio,
        reuses,
        sources_needed: of(utilization_ratio),
        dest_needed: of(utilization_ratio * f64::from(dest_count)),
        time_wait_sockets,
        time_wait_buckets: sysctls.and_then(|it| it.tcp_max_tw_buckets),
        advice,
    };
    let most = plan.table_too_small();
    plan.advice.extend(most.and_then(|most| table_too_small(most, time_wait_sockets)));
    plan
}

impl Plan {
    /// `tcp_max_tw_buckets`, where more sockets will wait than that.
    #[must_use]
    pub fn table_too_small(&self) -> Option<i32> {
        self.time_wait_buckets
            .filter(|&most| u64::try_from(most).map_or(true, |most| self.time_wait_sockets > most))
    }
}

/// What a kernel has set unless told otherwise.
fn usual() -> Sysctls {
    Sysctls::from_texts(|name| {
        let text = match name {
            "tcp_tw_reuse" => "2",
            "tcp_tw_reuse_delay" => "1000",
            "ip_local_port_range" => "32768 60999",
            "ip_local_reserved_ports" => "",
            "tcp_timestamps" => "1",
            "tcp_fin_timeout" => "60",
            _ => return None,
        };
        Some(text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_range_carries_470_a_second() {
        for (rate, dest_count, fits, sources, advised) in [
            (100.0, 1, true, 1, false),
            (300.0, 1, true, 1, true),
            (470.0, 1, true, 1, true),
            (471.0, 1, false, 2, true),
            (2_000.0, 1, false, 5, true),
            (2_000.0, 10, true, 1, false),
        ] {
            let plan = plan(rate, dest_count, None);
            assert_eq!((plan.fits, plan.sources_needed), (fits, sources), "{rate} {dest_count}");
            assert_eq!(!plan.advice.is_empty(), advised, "{rate} {dest_count}");
            assert!(!plan.of_this_machine);
        }
        assert!((plan(1.0, 1, None).rate_carried - 470.5).abs() < 0.1);
        assert_eq!(plan(2_000.0, 1, None).dest_needed, 5);
    }

    #[test]
    fn takeovers_need_a_port_for_a_second() {
        let sysctls = Sysctls { tcp_tw_reuse: Some(1), ..usual() };
        let plan = plan(2_000.0, 1, Some(&sysctls));
        assert!(plan.fits && plan.reuses && plan.of_this_machine, "{plan:?}");
        let without = Sysctls { tcp_timestamps: Some(0), ..sysctls };
        let plan = super::plan(2_000.0, 1, Some(&without));
        assert!(!plan.fits && !plan.reuses, "{plan:?}");
        let ids: Vec<&str> = plan.advice.iter().map(|it| &*it.id).collect();
        assert!(ids.contains(&"tcp-timestamps") && !ids.contains(&"tcp-tw-reuse"), "{ids:?}");
    }

    #[test]
    fn more_sockets_than_the_table_takes_are_told_with_their_figure() {
        // Rate, destinations, tcp_tw_reuse, tcp_max_tw_buckets; sockets, what to raise it to.
        for (rate, dest_count, reuse, most, sockets, raised) in [
            (100.0, 1, 2, 6_000, 6_000, None),
            (100.0, 1, 2, 5_999, 6_000, Some("65536")),
            (2_000.0, 10, 2, 65_536, 120_000, Some("240000")),
            (2_000.0, 10, 2, 131_072, 120_000, None),
            // Each port has one socket at most where it is taken over.
            (2_000.0, 1, 1, 28_232, 28_232, None),
            (2_000.0, 1, 1, 10_000, 28_232, Some("65536")),
            // As high as it goes, and nobody is told to lower it.
            (1e9, 1, 2, 2_000_000_000, 60_000_000_000, Some("2147483647")),
            (1e9, 1, 2, i32::MAX, 60_000_000_000, None),
            (1.0, 1, 2, -1, 60, Some("65536")),
        ] {
            let sysctls =
                Sysctls { tcp_tw_reuse: Some(reuse), tcp_max_tw_buckets: Some(most), ..usual() };
            let plan = plan(rate, dest_count, Some(&sysctls));
            assert_eq!(plan.time_wait_sockets, sockets, "{rate} {most}");
            let advice = plan.advice.iter().find(|it| it.id == "tcp-max-tw-buckets");
            let told = advice.map(|it| it.command.rsplit_once('=').expect("a value").1);
            assert_eq!(told, raised, "{rate} {most}");
            if let Some(advice) = advice {
                assert!(advice.reason.contains(&sockets.to_string()), "{}", advice.reason);
                assert!(advice.reason.contains(&most.to_string()), "{}", advice.reason);
            }
            let is_too_small = plan.table_too_small().is_some();
            assert_eq!(is_too_small, raised.is_some() || most == i32::MAX, "{rate} {most}");
        }
        // The kernel's own bound goes by the memory it has: of another machine nothing is known.
        let elsewhere = plan(1e6, 1, None);
        assert_eq!((elsewhere.time_wait_buckets, elsewhere.table_too_small()), (None, None));
    }

    #[test]
    fn a_plan_is_json() {
        let text = serde_json::to_string(&plan(2_000.0, 3, None)).expect("JSON");
        for part in [
            r#""rate":2000.0"#,
            r#""dest_count":3"#,
            r#""fits":false"#,
            r#""time_wait_sockets":120000"#,
            r#""advice":[{"id":"keep-alive""#,
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
