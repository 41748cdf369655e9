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
        visit::{VisitError, Visitor},
    },
    model::{budget::Budget, ledger::Reading, sysctls::Sysctls},
};
use aya::maps::MapError;
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::{BTreeMap, HashMap},
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
    /// When it was last visited, and counted.
    visited: Option<Sign>,
    counted: Option<(Sign, Instant)>,
}

/// The thread's own state.
pub(super) struct Surveyor {
    census: Census,
    counters: Arc<Mutex<CounterMaps>>,
    sources: Keep,
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
            sources: Keep { names, exact },
            visitor: Visitor::new()?,
            namespaces,
            budget: Budget::new(share, now),
            known: BTreeMap::new(),
            lost: HashMap::new(),
            censuses: 0,
            cpu: Duration::ZERO,
            first_pass: true,
        })
    }

    /// Visits every namespace in which something has happened, unless it `is_over`.
    pub(super) fn look(&mut self, now: Instant, is_over: &dyn Fn() -> bool) -> Findings {
        let begun = cpu_time();
        if let Err(error) = self.visit_all(now, is_over) {
            log::warn!("the survey of sockets cannot read the probes' counters: {error}");
        }
        self.cpu += cpu_time().saturating_sub(begun);
        let age = |memory: &Memory| match (memory.counted, memory.visited) {
            (Some((sign, at)), Some(visited)) if sign != visited => now.duration_since(at),
            _ => Duration::ZERO,
        };
        Findings {
            namespaces: self.known.iter().map(|(id, it)| (*id, Arc::clone(&it.found))).collect(),
            censuses: self.censuses,
            cpu: self.cpu,
            lag: self.known.values().map(age).max().unwrap_or_default(),
        }
    }

    fn visit_all(&mut self, now: Instant, is_over: &dyn Fn() -> bool) -> Result<(), MapError> {
        let (totals, time_waits) = {
            let counters = self.counters();
            let time_waits: HashMap<u32, TimeWaits> = counters.time_waits()?.into_iter().collect();
            (counters.totals()?, time_waits)
        };
        for inode in time_waits.keys().filter(|inode| !self.known.contains_key(inode)) {
            // To be asked for is what makes a search for namespaces come soon.
            let _ = self.sources.names.containers().name(*inode);
        }
        if self.namespaces.is_due(now) {
            let changes = self.namespaces.refresh(now);
            self.follow(&changes, &time_waits)?;
        }
        let present: Vec<Namespace> = self.namespaces.reachable().cloned().collect();
        for namespace in present {
            if is_over() {
                break;
            }
            let sign = sign(namespace.inode, &totals, &time_waits);
            let memory = self.known.entry(namespace.inode).or_default();
            let counted = memory.counted.map(|(sign, _)| sign);
            if memory.visited == Some(sign) && counted == Some(sign) {
                continue;
            }
            self.visit(&namespace, sign, now)?;
        }
        Ok(())
    }

    /// Takes note of namespaces that have come or gone.
    fn follow(
        &mut self,
        changes: &Changes,
        time_waits: &HashMap<u32, TimeWaits>,
    ) -> Result<(), MapError> {
        for inode in &changes.departed {
            self.known.remove(inode);
            self.sources.names.forget_netns(*inode);
            self.counters().forget_namespace(*inode)?;
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
                    self.counters().forget_namespace(*inode)?;
                    self.sources.names.forget_netns(*inode);
                }
            }
        }
        Ok(())
    }

    fn visit(&mut self, namespace: &Namespace, sign: Sign, now: Instant) -> Result<(), MapError> {
        let inode = namespace.inode;
        let begun = cpu_time();
        let counts = self.budget.allows(now);
        let (counters, census, exact) = (&self.counters, &mut self.census, self.sources.exact);
        let older = self.known.get(&inode).map(|memory| Arc::clone(&memory.found));
        let mut found = older.map(|found| (*found).clone()).unwrap_or_default();
        let done = self.visitor.visit(namespace, || {
            reconcile(&mut found, inode, counters, exact)?;
            found.sysctls = Sysctls::of_this_thread();
            Ok::<_, MapError>(counts.then(|| census.take()))
        });
        let taken = match done {
            Ok(taken) => taken?,
            Err(VisitError::Gone(_)) => return Ok(()),
            Err(error) => {
                log::warn!("{error}");
                None
            }
        };
        let memory = self.known.entry(inode).or_default();
        memory.visited = Some(sign);
        match taken {
            Some(Ok(taken)) => {
                found.census = Some(Arc::new(taken));
                memory.counted = Some((sign, now));
                self.censuses += 1;
            }
            Some(Err(error)) => log::warn!("{error}"),
            None => {}
        }
        if let Some(drift) = found.drift.filter(|drift| *drift != 0) {
            log::warn!(
                "the ledger of TIME_WAIT in the network namespace {inode} was off by {drift}; \
                 it has been corrected to the kernel's number"
            );
        }
        memory.found = Arc::new(found);
        self.budget.spend(cpu_time().saturating_sub(begun), now);
        Ok(())
    }

    fn counters(&self) -> MutexGuard<'_, CounterMaps> {
        lock(&self.counters)
    }
}

/// Reads the kernel's counters of this thread's namespace and holds the ledger against them.
fn reconcile(
    found: &mut Found,
    inode: u32,
    counters: &Mutex<CounterMaps>,
    exact: bool,
) -> Result<(), MapError> {
    let is_first = found.counters == NetCounters::default();
    for attempt in 1..=READINGS {
        let before = lock(counters).time_waits_of(inode)?;
        match NetCounters::of_this_thread() {
            Ok(read) => found.counters = read,
            Err(error) => {
                log::warn!("{error}");
                found.drift = None;
                return Ok(());
            }
        }
        let after = lock(counters).time_waits_of(inode)?;
        let Some(kernel) = found.counters.time_wait.filter(|_| exact) else {
            found.drift = None;
            break;
        };
        let mut ledger = found.ledger;
        let drift = ledger.reconcile(&Reading { before, kernel, after });
        if drift == 0 || attempt == READINGS {
            found.ledger = ledger;
            found.drift = Some(drift);
            break;
        }
    }
    if is_first && found.first == NetCounters::default() {
        found.first = found.counters;
    }
    Ok(())
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
