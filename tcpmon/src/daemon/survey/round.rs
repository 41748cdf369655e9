//! One round of the survey: which namespaces to visit, and what to do there.

use super::{
    Sources,
    findings::{Findings, Found},
};
use crate::{
    kernel::{
        census::Census,
        counters::CounterMaps,
        namespaces::{Changes, Namespace, Namespaces},
        net_counters::NetCounters,
        visit::{self, VisitError, Visitor},
    },
    model::{
        budget::Budget,
        ledger::{Drift, KernelBooks, Reading},
        sysctls::Sysctls,
    },
};
use aya::maps::MapError;
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tcpmon_common::{ACTIVITY, Counters, TimeWaits};

/// How often the kernel's number is read again where it does not agree with the counts: a socket
/// may be half-way into the table or out of it.
const READINGS: usize = 4;

/// Passes of the search for namespaces after which counts of a namespace that nothing leads to are
/// given up.
const PASSES_MISSED: u8 = 2;

/// What tells whether something has happened in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sign {
    transitions: u64,
    time_waits: TimeWaits,
}

/// What is remembered of a namespace between rounds.
#[derive(Debug, Default)]
struct Memory {
    found: Arc<Found>,
    /// The sign under which the ledger was last held against the kernel.
    visited: Option<Sign>,
    /// The sign under which its sockets were last counted, and when.
    counted: Option<(Sign, Instant)>,
}

/// The thread's own state.
pub(super) struct Surveyor {
    census: Census,
    counters: Arc<Mutex<CounterMaps>>,
    keep: Keep,
    visitor: Visitor,
    namespaces: Namespaces,
    budget: Budget,
    known: BTreeMap<u32, Memory>,
    /// Namespaces with counts that nothing leads to, and how many passes have missed them.
    lost: HashMap<u32, u8>,
    censuses: u64,
    cpu: Duration,
    /// The first pass finds namespaces that are older than the daemon.
    first_pass: bool,
    /// What has been complained of: once is enough.
    complaints: HashSet<String>,
}

struct Keep {
    names: Arc<super::Names>,
    exact: bool,
}

impl Surveyor {
    pub(super) fn new(
        sources: Sources,
        namespaces: Namespaces,
        now: Instant,
    ) -> Result<Self, VisitError> {
        let Sources { census, counters, names, exact, share, .. } = sources;
        Ok(Self {
            census,
            counters,
            keep: Keep { names, exact },
            visitor: Visitor::new()?,
            namespaces,
            budget: Budget::new(share, now),
            known: BTreeMap::new(),
            lost: HashMap::new(),
            censuses: 0,
            cpu: Duration::ZERO,
            first_pass: true,
            complaints: HashSet::new(),
        })
    }

    /// What has been found so far.
    pub(super) fn findings(&self, now: Instant) -> Findings {
        let age = |memory: &Memory| match memory.counted {
            Some((sign, at)) if Some(sign) != memory.visited => now.saturating_duration_since(at),
            _ => Duration::ZERO,
        };
        Findings {
            namespaces: self.known.iter().map(|(id, it)| (*id, Arc::clone(&it.found))).collect(),
            censuses: self.censuses,
            cpu: self.cpu,
            lag: self.known.values().map(age).max().unwrap_or_default(),
        }
    }

    /// Follows namespaces as they come and go, and in each in which something has happened holds
    /// the ledger against the kernel, unless it `is_over`.
    pub(super) fn reconcile(&mut self, now: Instant, is_over: &dyn Fn() -> bool) {
        let begun = cpu_time();
        if let Err(error) = self.reconcile_all(now, is_over) {
            log::warn!("the survey of sockets cannot read the probes' counters: {error}");
        }
        self.spend(begun, now);
    }

    fn reconcile_all(&mut self, now: Instant, is_over: &dyn Fn() -> bool) -> Result<(), MapError> {
        let (totals, time_waits) = {
            let counters = lock(&self.counters);
            let mut time_waits: HashMap<u32, TimeWaits> = HashMap::new();
            for (inode, counts) in counters.time_waits()? {
                time_waits.entry(inode).or_default().add(&counts);
            }
            (counters.totals()?, time_waits)
        };
        for inode in time_waits.keys().filter(|inode| !self.known.contains_key(inode)) {
            // To be asked for is what makes a search for namespaces come soon.
            let _ = self.keep.names.containers().name(*inode);
        }
        if self.namespaces.is_due(now) {
            let changes = self.namespaces.refresh(now);
            self.follow(&changes, &time_waits)?;
        }
        if self.visit_each(&totals, &time_waits, is_over)? {
            // The way to one leads nowhere: it has gone, and another may have its number already.
            let changes = self.namespaces.refresh(now);
            self.follow(&changes, &time_waits)?;
            self.visit_each(&totals, &time_waits, is_over)?;
        }
        Ok(())
    }

    /// Visits the namespaces in which something has happened; whether one of them has gone.
    fn visit_each(
        &mut self,
        totals: &Counters,
        time_waits: &HashMap<u32, TimeWaits>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<bool, MapError> {
        let mut one_has_gone = false;
        let present: Vec<Namespace> = self.namespaces.reachable().cloned().collect();
        for namespace in present {
            if is_over() {
                break;
            }
            let sign = sign(namespace.inode, totals, time_waits);
            let memory = self.known.entry(namespace.inode).or_default();
            if memory.visited == Some(sign) && !is_restless(memory, self.keep.exact) {
                // Is it still the same? A number is given again within a moment.
                match self.visitor.visit(&namespace, visit::cookie_of_this_thread) {
                    Ok(Ok(cookie)) if cookie != memory.found.net_cookie => {}
                    Err(VisitError::Gone(_)) => {
                        one_has_gone = true;
                        continue;
                    }
                    _ => continue,
                }
            }
            let mut found = (*memory.found).clone();
            let (counters, exact) = (&self.counters, self.keep.exact);
            let older = found.net_cookie;
            let done = self.visitor.visit(&namespace, || {
                let net_cookie = visit::cookie_of_this_thread().unwrap_or(0);
                if ![0, net_cookie].contains(&older) {
                    // Another has the number now, and it was made while the daemon ran.
                    found = Found { first: NetCounters::zeros(), ..Found::default() };
                }
                found.net_cookie = net_cookie;
                found.sysctls = Sysctls::of_this_thread();
                reconcile(&mut found, namespace.inode, counters, exact)
            });
            match done {
                Ok(done) => done?,
                Err(VisitError::Gone(_)) => {
                    one_has_gone = true;
                    continue;
                }
                Err(error) => complain(&mut self.complaints, &error),
            }
            if let Some(drift) = found.drift.filter(|drift| *drift != Drift::default()) {
                let Drift { level, entered, reused } = drift;
                log::warn!(
                    "the ledger of TIME_WAIT in the network namespace {} was off by {level} \
                     sockets, {entered} entries and {reused} reused; it has been corrected to the \
                     kernel's numbers",
                    namespace.inode
                );
            }
            if found.net_cookie != older {
                let mut counters = lock(&self.counters);
                counters.forget_namespace(namespace.inode, Some(found.net_cookie))?;
            }
            memory.visited = Some(sign);
            memory.found = Arc::new(found);
        }
        Ok(one_has_gone)
    }

    /// Takes a census of each namespace in which something has happened since the last one, as far
    /// as the budget allows, unless it `is_over`; of those that have waited longest first.
    pub(super) fn count(&mut self, now: Instant, is_over: &dyn Fn() -> bool) {
        let exact = self.keep.exact;
        let stale = |memory: &Memory| {
            memory.visited != memory.counted.map(|(sign, _)| sign) || is_restless(memory, exact)
        };
        let mut waiting: Vec<(Option<Instant>, u32)> = self
            .known
            .iter()
            .filter(|(_, memory)| stale(memory))
            .map(|(&inode, memory)| (memory.counted.map(|(_, at)| at), inode))
            .collect();
        waiting.sort_unstable();
        for (_, inode) in waiting {
            if is_over() || !self.budget.allows(now) {
                return;
            }
            let begun = cpu_time();
            self.count_one(inode, now);
            self.spend(begun, now);
        }
    }

    fn count_one(&mut self, inode: u32, now: Instant) {
        let Some(namespace) = self.namespaces.get(inode).cloned() else { return };
        let Some(memory) = self.known.get_mut(&inode) else { return };
        let census = &mut self.census;
        match self.visitor.visit(&namespace, || census.take()) {
            Ok(Ok(taken)) => {
                let found = Found { census: Some(Arc::new(taken)), ..(*memory.found).clone() };
                memory.found = Arc::new(found);
                // What happened since the visit is of the next round.
                memory.counted = memory.visited.map(|sign| (sign, now));
                self.censuses += 1;
            }
            Ok(Err(error)) => complain(&mut self.complaints, &error),
            Err(VisitError::Gone(_)) => {}
            Err(error) => complain(&mut self.complaints, &error),
        }
    }

    fn spend(&mut self, begun: Duration, now: Instant) {
        let used = cpu_time().saturating_sub(begun);
        self.cpu += used;
        self.budget.spend(used, now);
    }

    /// Takes note of namespaces that have come or gone.
    fn follow(
        &mut self,
        changes: &Changes,
        time_waits: &HashMap<u32, TimeWaits>,
    ) -> Result<(), MapError> {
        for inode in &changes.departed {
            self.known.remove(inode);
            self.keep.names.forget_netns(*inode);
            // Where another has the number now, its first visit sees to it.
            if !changes.arrived.contains(inode) {
                lock(&self.counters).forget_namespace(*inode, None)?;
            }
        }
        for inode in &changes.arrived {
            let mut found = Found::default();
            if !self.first_pass {
                // Its counters run from its making, which the daemon was there for.
                found.first = NetCounters::zeros();
            }
            self.known.insert(*inode, Memory { found: Arc::new(found), ..Memory::default() });
        }
        self.first_pass &= !changes.complete;
        if changes.complete {
            let known = &self.known;
            self.lost
                .retain(|inode, _| time_waits.contains_key(inode) && !known.contains_key(inode));
            for (inode, counts) in time_waits {
                if self.known.contains_key(inode) || counts.balance() > 0 {
                    continue;
                }
                let missed = self.lost.entry(*inode).or_default();
                *missed += 1;
                if *missed >= PASSES_MISSED {
                    lock(&self.counters).forget_namespace(*inode, None)?;
                    self.keep.names.forget_netns(*inode);
                }
            }
        }
        Ok(())
    }
}

/// Complaints that are remembered, so that each is made once.
const COMPLAINTS: usize = 64;

fn complain(made: &mut HashSet<String>, error: &dyn std::fmt::Display) {
    let text = error.to_string();
    if made.contains(&text) {
        log::debug!("{text}");
        return;
    }
    log::warn!("{text}");
    if made.len() < COMPLAINTS {
        made.insert(text);
    }
}

/// Reads the kernel's counters of this thread's namespace and holds the ledger against them.
fn reconcile(
    found: &mut Found,
    inode: u32,
    counters: &Mutex<CounterMaps>,
    exact: bool,
) -> Result<(), MapError> {
    let half_way = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let is_first = found.counters == NetCounters::default();
    for attempt in 1..=READINGS {
        let before = lock(counters).time_waits_of(inode, found.net_cookie)?;
        match NetCounters::of_this_thread() {
            Ok(read) => found.counters = read,
            Err(error) => {
                log::warn!("{error}");
                found.drift = None;
                return Ok(());
            }
        }
        let after = lock(counters).time_waits_of(inode, found.net_cookie)?;
        let Some(level) = found.counters.time_wait.filter(|_| exact) else {
            found.drift = None;
            break;
        };
        let (entered, reused) = (found.counters.entered(), found.counters.recycled);
        let kernel = KernelBooks { level, entered, reused };
        let mut ledger = found.ledger;
        let drift = ledger.reconcile(&Reading { before, kernel, after, half_way });
        if drift == Drift::default() || attempt == READINGS {
            found.ledger = ledger;
            found.drift = Some(drift);
            let missed = |drift: i64| u64::try_from(-drift).unwrap_or(0);
            found.missed_entered += missed(drift.entered);
            found.missed_reused += missed(drift.reused);
            break;
        }
    }
    if is_first && found.first == NetCounters::default() {
        found.first = found.counters;
    }
    Ok(())
}

/// Whether sockets may leave the time-wait table without a sign: no probe tells of it.
fn is_restless(memory: &Memory, exact: bool) -> bool {
    !exact && memory.found.counters.time_wait.is_none_or(|sockets| sockets > 0)
}

fn sign(inode: u32, totals: &Counters, time_waits: &HashMap<u32, TimeWaits>) -> Sign {
    Sign {
        transitions: totals.activity[inode as usize % ACTIVITY],
        time_waits: time_waits.get(&inode).copied().unwrap_or_default(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}
