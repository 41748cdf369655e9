//! Counters, compared to the unit on a machine that is not ours alone.
//!
//! The counters know no namespace, so any connection of anybody between two scrapes would be
//! counted too. A second daemon watches for that: a measurement during which it saw a transition
//! outside the lab's namespaces is made again.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::time::{Duration, Instant};

use xtask::lab::{Expectation, Lab, Recipe};

use super::PATIENCE;
use super::daemon::Daemon;
use super::event::{self, Event, Line};
use super::exposition::Metrics;
use super::lab;
use super::program::{Lines, run};
use super::tail::Tail;
use super::turn::Turn;

/// How often a measurement is tried on a machine that is never quiet.
const ATTEMPTS: usize = 20;

/// A stream that is silent for so long has shown all there is.
const SILENCE: Duration = Duration::from_secs(2);

/// A daemon that sees everything, and that nobody measures.
pub(crate) struct Witness {
    daemon: Daemon,
}

/// What was done, and the metrics of the measured daemon around it.
pub(crate) struct Measured<T> {
    pub(crate) done: T,
    pub(crate) before: Metrics,
    pub(crate) after: Metrics,
    /// At most so many sockets left the time-wait table meanwhile, of anybody: those that entered
    /// before end when their minute is over, or with their namespace.
    pub(crate) endings: u64,
    /// All other transitions, as the witness saw them with probes of its own.
    pub(crate) witnessed: Vec<Event>,
}

impl<T> Measured<T> {
    /// How often the witness saw each of `family,old,new`.
    pub(crate) fn witnessed_totals(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for it in &self.witnessed {
            *sum.entry(format!("{},{},{}", it.family, it.old, it.new)).or_default() += 1;
        }
        sum
    }

    /// What the witness saw of the sockets that it did not see end.
    pub(crate) fn unfinished(&self) -> Vec<&Event> {
        let ends = |event: &&Event| ["close", "time_wait"].contains(&event.new.as_str());
        let ended: HashSet<u64> =
            self.witnessed.iter().filter(ends).map(|event| event.cookie).collect();
        self.witnessed.iter().filter(|event| !ended.contains(&event.cookie)).collect()
    }
}

impl Witness {
    pub(crate) fn start(turn: &Turn) -> Self {
        Self { daemon: Daemon::start(turn, &[]) }
    }

    /// Does `work` while nothing else happens on the machine.
    pub(crate) fn measure<T>(
        &self,
        daemon: &Daemon,
        lab: &mut Lab,
        mut work: impl FnMut(&mut Lab) -> T,
    ) -> Measured<T> {
        for _ in 0..ATTEMPTS {
            let lines = Lines::of(self.daemon.stream(""));
            let before = daemon.metrics();
            let done = work(lab);
            let after = daemon.metrics();
            if hidden(&before) != hidden(&after) {
                eprintln!("measured again, because the kernel hid a transition from the probe");
                continue;
            }
            let mark = lab.perform(Recipe::Refused, Some(1)).expect("a mark");
            let namespaces = lab.inodes();
            let mut endings = 0;
            let mut witnessed = Vec::new();
            let disturbed = loop {
                match event::parse(&lines.next().expect("the witness goes on")) {
                    Line::Event(event) if event.old == "time_wait" => endings += 1,
                    Line::Event(event) if !namespaces.contains(&event.netns) => {
                        eprintln!("measured again, because of {event:?}");
                        break true;
                    }
                    Line::Event(event)
                        if event.sport == mark.sockets[0].local.port()
                            && event.edge() == "syn_sent>close" =>
                    {
                        witnessed.retain(|it: &Event| it.cookie != event.cookie);
                        break false;
                    }
                    Line::Event(event) => witnessed.push(*event),
                    Line::Gap { lost, place } => panic!("the witness lost {lost} on the {place}"),
                }
            };
            if !disturbed {
                return Measured { done, before, after, endings, witnessed };
            }
        }
        panic!("other programs made TCP connections during each of {ATTEMPTS} measurements")
    }
}

/// See [`Daemon::hidden`].
fn hidden(metrics: &Metrics) -> u64 {
    metrics.count("tcpmon_events_lost_total", &[("where", "probe")])
}

/// Carries out a recipe and reads from `tail` what it shows of it: no more and no less than must
/// be seen; what leaves the time-wait table, but entered it before, is passed over. `None` where
/// this kernel cannot do what the recipe is about. Where the kernel hid a transition from the probe, which a busy machine makes happen
/// once in a hundred thousand, all is done again.
pub(crate) fn watch(
    daemon: &Daemon,
    tail: &Tail,
    lab: &mut Lab,
    recipe: Recipe,
    connections: u64,
) -> Option<(Expectation, Vec<Event>)> {
    for _ in 0..ATTEMPTS {
        let hidden = daemon.hidden();
        let done = lab::perform(lab, recipe, connections)?;
        let wanted = done.shown_transitions();
        let mut seen: Vec<Event> = Vec::new();
        let begun = Instant::now();
        while (seen.len() as u64) < wanted {
            match tail.lines.next_within(SILENCE).as_deref().map(event::event) {
                Some(event)
                    if event.old == "time_wait"
                        && seen.iter().all(|other| other.cookie != event.cookie) => {}
                Some(event) => seen.push(event),
                None if daemon.hidden() > hidden => break,
                None => assert!(
                    begun.elapsed() < PATIENCE,
                    "{}: only {} of {wanted} events came: {seen:#?}",
                    recipe.name(),
                    seen.len(),
                ),
            }
        }
        if seen.len() as u64 == wanted {
            return Some((done, seen));
        }
        eprintln!("{} again, because the kernel hid a transition from the probe", recipe.name());
    }
    panic!("the kernel hid transitions from the probe during each of {ATTEMPTS} attempts")
}

/// The kernel's own counters of TCP in a namespace, `Tcp:` and `TcpExt:` together, by name
/// (`proc_pid_net(5)`).
pub(crate) fn kernel_counter(netns: &str, name: &str) -> u64 {
    let path = format!("--net=/run/netns/{netns}");
    let files = ["/proc/net/snmp", "/proc/net/netstat"];
    let text = run(Command::new("nsenter").args([&path, "cat"]).args(files)).stdout;
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.chunks_exact(2).find_map(|pair| {
        let place = pair[0].split_whitespace().position(|word| word == name)?;
        pair[1].split_whitespace().nth(place)?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("no counter {name}: {text}"))
}
