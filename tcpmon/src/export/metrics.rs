//! `/metrics`: every family, from the probes' exact counters.

use super::{
    alertmanager,
    families::{Family, to_f64},
    labels::{OTHER, UNKNOWN, label},
    pressure::{self, PressureSample},
    time_wait::{self, TimeWaitSample, by_netns},
    top::Top,
};
use crate::model::{event::Role, probe::ProbeStats, totals::Totals};
use prometheus::{
    Encoder, TextEncoder, core::Collector, process_collector::ProcessCollector, proto::MetricFamily,
};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tcpmon_common::{DURATION_BOUNDS_NS, Family as IpFamily, ServiceCounts, TcpState};

/// Transitions that RFC 9293 and the kernel know: shown from the start, at 0, so that the first
/// one is seen as an increase.
const USUAL: [(TcpState, TcpState); 23] = {
    use TcpState::{
        Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv,
        SynSent, TimeWait,
    };
    [
        (Close, Listen),
        (Close, SynSent),
        (Listen, Close),
        (Listen, SynRecv),
        (SynSent, Established),
        (SynSent, SynRecv),
        (SynSent, Close),
        (SynRecv, Established),
        (SynRecv, FinWait1),
        (SynRecv, Close),
        (Established, FinWait1),
        (Established, CloseWait),
        (Established, Close),
        (FinWait1, FinWait2),
        (FinWait1, Closing),
        (FinWait1, Close),
        (FinWait2, TimeWait),
        (FinWait2, Close),
        (CloseWait, LastAck),
        (LastAck, Close),
        (Closing, TimeWait),
        (Closing, Close),
        (TimeWait, Close),
    ]
};

/// What the metrics are made of: read at the scrape, with the names already found.
#[derive(Debug)]
pub struct Sample {
    /// The probes' counters, summed over the CPUs.
    pub totals: Box<Totals>,
    /// Connections by service; `None`: the owner is not known.
    pub connections: Vec<(Option<Arc<str>>, ServiceCounts)>,
    /// connect() calls refused for want of a port.
    pub failures: Vec<(Destination, u64)>,
    /// Records lost on the rings.
    pub ring_lost: u64,
    /// Events lost in the queues of slow subscribers.
    pub subscriber_lost: u64,
    /// Open streams.
    pub subscribers: usize,
    /// The kernel's account of each attached probe.
    pub probes: Vec<(&'static str, ProbeStats)>,
    /// TIME_WAIT, and the sockets there are.
    pub time_wait: TimeWaitSample,
    /// What the rules of port pressure made of it.
    pub pressure: PressureSample,
    /// What became of alerts that were pushed.
    pub alertmanagers: Vec<alertmanager::Counts>,
    /// Connections to the Unix socket of users whose it is not.
    pub turned_away: u64,
}

/// Labels of a port failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Name of the network namespace.
    pub netns: Arc<str>,
    /// Local address.
    pub src: IpAddr,
    /// Remote address.
    pub dst: IpAddr,
    /// Remote port.
    pub dport: u16,
    /// The owner; `None`: not known.
    pub service: Option<Arc<str>>,
}

/// Writes samples down, with a bounded number of series.
#[derive(Debug)]
pub struct Exporter {
    revision: &'static str,
    process: ProcessCollector,
    memory: Mutex<Memory>,
    top: usize,
}

/// What is remembered from scrape to scrape.
#[derive(Debug)]
struct Memory {
    services: Top<Arc<str>>,
    failures: Top<Destination>,
    entered: Top<(Arc<str>, Arc<str>)>,
}

impl Exporter {
    /// An exporter with `top` series at most in each family whose labels have no bound of their
    /// own. `revision` is the source's, for `tcpmon_build_info`.
    #[must_use]
    pub fn new(top: usize, revision: &'static str) -> Self {
        Self {
            revision,
            process: ProcessCollector::for_self(),
            memory: Mutex::new(Memory {
                services: Top::new(top),
                failures: Top::new(top),
                entered: Top::new(top),
            }),
            top,
        }
    }

    /// The Prometheus text format, version 0.0.4.
    ///
    /// # Errors
    ///
    /// Where the library finds a family that the format cannot show.
    pub fn text(&self, sample: Sample) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.families(sample);
        families.extend(self.process.collect());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(with_infinity(text))
    }

    fn families(&self, sample: Sample) -> Vec<MetricFamily> {
        let totals = &sample.totals;
        let lost = lost(&sample);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let families = [
            transitions(totals),
            connections(sample.connections, totals, &mut memory.services),
            durations(totals),
            failures(sample.failures, totals, &mut memory.failures),
            events(totals),
            lost,
            map_failures(totals),
            subscribers(sample.subscribers),
            turned_away(sample.turned_away),
            build_info(self.revision),
        ];
        let probes = probes(&sample.probes);
        let time_wait = time_wait::families(sample.time_wait, &mut memory.entered, self.top);
        let pressure = pressure::families(sample.pressure, self.top);
        let pushed = alertmanager::families(&sample.alertmanagers);
        let families = families.into_iter().chain(probes).chain(time_wait).chain(pressure);
        let families = families.chain(pushed);
        families.filter_map(Family::finish).collect()
    }
}

/// The library writes infinity as Rust does; the format's word for it is another.
fn with_infinity(text: Vec<u8>) -> Vec<u8> {
    const RUST: &[u8] = b" inf\n";
    if !text.windows(RUST.len()).any(|window| window == RUST) {
        return text;
    }
    let mut lines = Vec::with_capacity(text.len() + 256);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_suffix(RUST) {
            Some(series) => {
                lines.extend_from_slice(series);
                lines.extend_from_slice(b" +Inf\n");
            }
            None => lines.extend_from_slice(line),
        }
    }
    lines
}

fn connections(
    counts: Vec<(Option<Arc<str>>, ServiceCounts)>,
    totals: &Totals,
    top: &mut Top<Arc<str>>,
) -> Family {
    let mut named: HashMap<Arc<str>, ServiceCounts> = HashMap::new();
    for (service, counts) in counts {
        let sum = named.entry(label(service)).or_default();
        sum.active += counts.active;
        sum.passive += counts.passive;
    }
    let (own, rest) =
        top.split(named.into_iter().collect(), |counts| counts.active + counts.passive);
    let [mut active, mut passive] = totals.losses.services;
    for (_, counts) in rest {
        active += counts.active;
        passive += counts.passive;
    }
    let mut family = Family::counter(
        "tcpmon_connections_total",
        "Connections established, by the side that this end is and its owner.",
    );
    let mut add = |service: &str, role: Role, count| {
        if count > 0 {
            family.add_count(&[("role", role.name()), ("service", service)], count);
        }
    };
    for (service, counts) in own {
        add(&service, Role::Active, counts.active);
        add(&service, Role::Passive, counts.passive);
    }
    add(OTHER, Role::Active, active);
    add(OTHER, Role::Passive, passive);
    family
}

/// Failures by destination and the label of the owner, added up where several owners have one.
pub(crate) fn by_destination(
    counts: impl IntoIterator<Item = (Destination, u64)>,
) -> HashMap<Destination, u64> {
    let mut named: HashMap<Destination, u64> = HashMap::new();
    for (mut destination, count) in counts {
        destination.service = Some(label(destination.service));
        *named.entry(destination).or_default() += count;
    }
    named
}

fn failures(
    counts: Vec<(Destination, u64)>,
    totals: &Totals,
    top: &mut Top<Destination>,
) -> Family {
    let named = by_destination(counts);
    // The counts of a namespace that has gone are gone too.
    top.forget(|key| !named.contains_key(key));
    let (own, rest) = top.split(named.into_iter().collect(), |count| *count);
    let mut family = Family::counter(
        "tcpmon_connect_port_failures_total",
        "connect() calls refused for want of a free local port.",
    );
    let mut add = |netns: &str, src: &str, dst: &str, dport: &str, service: &str, count| {
        let labels =
            [("netns", netns), ("src", src), ("dst", dst), ("dport", dport), ("service", service)];
        family.add_count(&labels, count);
    };
    for (of, count) in own {
        let (src, dst, dport) = (of.src.to_string(), of.dst.to_string(), of.dport.to_string());
        add(&of.netns, &src, &dst, &dport, of.service.as_deref().unwrap_or(UNKNOWN), count);
    }
    // With their namespace, so that no sum falls when one of them ends; where there was no room for
    // them, nothing is known of them.
    let nowhere = (totals.losses.failures > 0).then(|| (OTHER.into(), totals.losses.failures));
    let rest = rest.into_iter().map(|(of, count)| (of.netns, count)).chain(nowhere);
    for (netns, count) in by_netns(rest) {
        add(&netns, OTHER, OTHER, OTHER, OTHER, count);
    }
    family
}

fn lost(sample: &Sample) -> Family {
    let mut family = Family::counter(
        "tcpmon_events_lost_total",
        "Events lost: on the ring between kernel and daemon, or in the queue of a subscriber that \
         reads too slowly, which no counter depends on; or by the probe, which the kernel does not \
         let interrupt itself.",
    );
    let missed = sample.probes.iter().map(|(_, stats)| stats.recursion_misses).sum();
    family.add_count(&[("where", "ring")], sample.ring_lost);
    family.add_count(&[("where", "subscriber")], sample.subscriber_lost);
    family.add_count(&[("where", "probe")], missed);
    family
}

fn turned_away(count: u64) -> Family {
    let mut family = Family::counter(
        "tcpmon_socket_refused_total",
        "Connections to the Unix socket by users that may not use it, whatever its file's rights.",
    );
    family.add_count(&[], count);
    family
}

fn subscribers(count: usize) -> Family {
    let mut family = Family::gauge("tcpmon_subscribers", "Streams of events that are open.");
    family.add_count(&[], count as u64);
    family
}

fn probes(probes: &[(&'static str, ProbeStats)]) -> [Family; 4] {
    let mut attached = Family::gauge("tcpmon_probe_attached", "1: the probe is attached.");
    let mut runs =
        Family::counter("tcpmon_probe_runs_total", "Runs of the probe that the kernel measured.");
    let mut seconds = Family::counter(
        "tcpmon_probe_run_seconds_total",
        "Time spent in the measured runs of the probe.",
    );
    let mut misses = Family::counter(
        "tcpmon_probe_recursion_misses_total",
        "Transitions that the probe missed, because it would have interrupted itself.",
    );
    for (name, stats) in probes {
        let labels = [("probe", *name)];
        attached.add_count(&labels, 1);
        runs.add_count(&labels, stats.runs);
        seconds.add(&labels, stats.run_time.as_secs_f64());
        misses.add_count(&labels, stats.recursion_misses);
    }
    [attached, runs, seconds, misses]
}

fn transitions(totals: &Totals) -> Family {
    let mut metric = Family::counter(
        "tcpmon_transitions_total",
        "TCP state transitions, those to and from TIME_WAIT included.",
    );
    for family in IpFamily::ALL {
        for old in TcpState::ALL {
            for new in TcpState::ALL {
                let count = totals.transitions(family, old, new);
                if count > 0 || USUAL.contains(&(old, new)) {
                    let labels =
                        [("family", family.name()), ("old", old.name()), ("new", new.name())];
                    metric.add_count(&labels, count);
                }
            }
        }
    }
    metric
}

fn events(totals: &Totals) -> Family {
    let mut family = Family::counter(
        "tcpmon_events_total",
        "Events that the probes saw, whether a stream showed them or not.",
    );
    family.add_count(&[], totals.all_transitions());
    family
}

fn durations(totals: &Totals) -> Family {
    let bounds = DURATION_BOUNDS_NS.map(|bound| to_f64(bound) / 1e9);
    let mut family = Family::histogram(
        "tcpmon_state_duration_seconds",
        "Time that sockets spent in a state, observed as they leave it.",
    );
    for state in TcpState::ALL {
        let observed = totals.durations(state);
        if observed.buckets.iter().any(|count| *count > 0) {
            let sum = to_f64(observed.sum_ns) / 1e9;
            family.add_histogram(&[("state", state.name())], &bounds, &observed.buckets, sum);
        }
    }
    family
}

fn map_failures(totals: &Totals) -> Family {
    let losses = &totals.losses;
    let mut family = Family::counter(
        "tcpmon_map_insert_failures_total",
        "Entries for which a map of the probes had no room: raise the flag named by the label.",
    );
    family.add_count(&[("flag", "max-sockets")], losses.sockets + losses.time_waits);
    family.add_count(&[("flag", "max-listeners")], losses.listeners);
    let services = losses.services.iter().sum::<u64>() + losses.entered;
    family.add_count(&[("flag", "max-services")], services);
    family.add_count(&[("flag", "max-namespaces")], losses.namespaces);
    family.add_count(&[("flag", "max-failures")], losses.failures);
    family
}

fn build_info(revision: &str) -> Family {
    let mut family =
        Family::gauge("tcpmon_build_info", "1, with what this program was built from.");
    family.add_count(&[("version", env!("CARGO_PKG_VERSION")), ("revision", revision)], 1);
    family
}
