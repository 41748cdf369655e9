//! One round of the survey: which namespaces to visit, and what to do there.

use super::{
    Sources,
    counting::is_restless,
    findings::{Findings, Found},
    reconciling::{Pauses, reconcile},
};
use crate::{
    kernel::{
        cells::Counted,
        census::Census,
        clock,
        counters::CounterMaps,
        namespaces::{Namespace, Namespaces},
        net_counters::NetCounters,
        visit::{self, VisitError, Visitor},
    },
    model::{budget::Budget, sysctls::Sysctls, totals::Totals},
};
use aya::maps::MapError;
use rustix::time::ClockId;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tcpmon_common::TimeWaits;

/// What tells whether something has happened in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sign {
    /// Changes with each transition; counts nothing.
    pub(super) mark: u64,
    pub(super) time_waits: TimeWaits,
}

/// What is remembered of a namespace between rounds.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) found: Arc<Found>,
    /// The sign under which the ledger was last held against the kernel.
    pub(super) visited: Option<Sign>,
    /// The sign under which its sockets were last counted, and when.
    pub(super) counted: Option<(Sign, Instant)>,
    /// The ledger contradicted the kernel at the last visit, and has not been changed for it yet.
    pub(super) doubted: bool,
    /// When its sysctls were last read.
    pub(super) sysctls_read: Option<Instant>,
}

/// Where a namespace has no sockets, its sysctls are read so often.
const SYSCTLS_EVERY: Duration = Duration::from_secs(10);

impl Memory {
    /// Whether its sysctls are to be read although nothing else has happened: nothing tells of a
    /// change, and where there are sockets the next moment may depend on it.
    fn is_due_for_sysctls(&self, now: Instant) -> bool {
        let has_sockets = self.found.counters.time_wait.is_none_or(|sockets| sockets > 0)
            || self.found.census.as_ref().is_some_and(|taken| !taken.groups.is_empty());
        has_sockets
            || self
                .sysctls_read
                .is_none_or(|then| now.saturating_duration_since(then) >= SYSCTLS_EVERY)
    }

    fn take_sysctls(&mut self, sysctls: Sysctls, now: Instant) {
        self.sysctls_read = Some(now);
        if sysctls == self.found.sysctls {
            return;
        }
        if sysctls.ip_local_port_range != self.found.sysctls.ip_local_port_range {
            // Which bound ports count is known of the old range only.
            self.counted = None;
        }
        self.found = Arc::new(Found { sysctls, ..(*self.found).clone() });
    }
}

/// The thread's own state.
pub(super) struct Surveyor {
    pub(super) census: Census,
    pub(super) counters: Arc<Mutex<CounterMaps>>,
    pub(super) keep: Keep,
    pub(super) visitor: Visitor,
    pub(super) namespaces: Namespaces,
    pub(super) budget: Budget,
    pub(super) known: BTreeMap<u32, Memory>,
    /// Namespaces with counts that nothing leads to, and how many passes have missed them.
    pub(super) lost: HashMap<u32, u8>,
    /// Sockets in the time-wait table that the probes count.
    pub(super) counted: Arc<Counted>,
    pub(super) censuses: u64,
    pub(super) cpu: Duration,
    /// The first pass finds namespaces that are older than the daemon.
    pub(super) first_pass: bool,
    /// What has been complained of: once is enough.
    pub(super) complaints: HashSet<String>,
}

pub(super) struct Keep {
    pub(super) names: Arc<super::Names>,
    pub(super) exact: bool,
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
            counted: Arc::default(),
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
            counted: Arc::clone(&self.counted),
            censuses: self.censuses,
            cpu: self.cpu,
            unwatched: self.namespaces.beyond().len(),
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
        // Not from the censuses' share: whoever asks all the time, or has hundreds of namespaces,
        // would have no census any more.
        self.cpu += cpu_time().saturating_sub(begun);
    }

    fn reconcile_all(&mut self, now: Instant, is_over: &dyn Fn() -> bool) -> Result<(), MapError> {
        let (totals, time_waits) = {
            let counters = lock(&self.counters);
            let mut time_waits: HashMap<u32, TimeWaits> = HashMap::new();
            for (inode, counts) in counters.time_waits()? {
                time_waits.entry(inode).or_default().add(&counts);
            }
            (counters.totals(), time_waits)
        };
        let beyond = self.namespaces.beyond();
        let is_new = |inode: &&u32| !self.known.contains_key(inode) && !beyond.contains(inode);
        for inode in time_waits.keys().filter(is_new) {
            // To be asked for is what makes a search for namespaces come soon.
            let _ = self.keep.names.containers().name(*inode);
        }
        if self.namespaces.is_due(now) {
            let changes = self.namespaces.refresh(now);
            self.follow(&changes, &time_waits)?;
            if !self.namespaces.beyond().is_empty() {
                let more = "there are more network namespaces than --max-namespaces: \
                            tcpmon_namespaces_unwatched says by how many; raise it";
                complain(&mut self.complaints, &more);
            }
        }
        if self.visit_each(now, &totals, &time_waits, is_over)? {
            // The way to one leads nowhere: it has gone, and another may have its number already.
            let changes = self.namespaces.refresh(now);
            self.follow(&changes, &time_waits)?;
            self.visit_each(now, &totals, &time_waits, is_over)?;
        }
        self.counted = Arc::new(self.census.counted());
        let present: HashSet<u64> = self.known.values().map(|it| it.found.net_cookie).collect();
        self.census.tidy(now, |cookie| present.contains(&cookie))
    }

    /// Visits the namespaces in which something has happened; whether one of them has gone.
    fn visit_each(
        &mut self,
        now: Instant,
        totals: &Totals,
        time_waits: &HashMap<u32, TimeWaits>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<bool, MapError> {
        let mut one_has_gone = false;
        let mut pauses = Pauses::of_a_round();
        let present: Vec<Namespace> = self.namespaces.reachable().cloned().collect();
        for namespace in present {
            if is_over() {
                break;
            }
            let sign = sign(namespace.inode, totals, time_waits);
            let memory = self.known.entry(namespace.inode).or_default();
            if memory.visited == Some(sign) && !is_restless(memory, self.keep.exact) {
                // Is it still the same? A number is given again within a moment.
                let rereads = memory.is_due_for_sysctls(now);
                let look =
                    || (visit::cookie_of_this_thread(), rereads.then(Sysctls::of_this_thread));
                match self.visitor.visit(&namespace, look) {
                    Ok((Ok(cookie), sysctls)) if cookie == memory.found.net_cookie => {
                        if let Some(sysctls) = sysctls {
                            memory.take_sysctls(sysctls, now);
                        }
                        continue;
                    }
                    Ok((Ok(_), _)) => {}
                    Err(VisitError::Gone(_)) => {
                        one_has_gone = true;
                        continue;
                    }
                    _ => continue,
                }
            }
            let mut found = (*memory.found).clone();
            let (counters, exact) = (&self.counters, self.keep.exact);
            let mut doubted = memory.doubted;
            let older = found.net_cookie;
            let done = self.visitor.visit(&namespace, || {
                let net_cookie = visit::cookie_of_this_thread().unwrap_or(older);
                if ![0, net_cookie].contains(&older) {
                    // Another has the number now, and it was made while the daemon ran.
                    found = Found { first: NetCounters::zeros(), ..Found::default() };
                    doubted = false;
                }
                found.net_cookie = net_cookie;
                found.sysctls = Sysctls::of_this_thread();
                reconcile(&mut found, namespace.inode, counters, exact, doubted, &mut pauses)
            });
            let mut unread = |error: &dyn std::fmt::Display| {
                complain(&mut self.complaints, error);
                (false, false)
            };
            let (is_read, doubted) = match done {
                Ok(done) => done?.map_or_else(|error| unread(&error), |doubted| (true, doubted)),
                Err(VisitError::Gone(_)) => {
                    one_has_gone = true;
                    continue;
                }
                Err(error) => unread(&error),
            };
            memory.doubted = doubted;
            if found.net_cookie != older {
                let mut counters = lock(&self.counters);
                counters.forget_namespace(namespace.inode, Some(found.net_cookie))?;
            }
            memory.visited = (is_read && !doubted).then_some(sign);
            memory.found = Arc::new(found);
            memory.sysctls_read = Some(now);
        }
        Ok(one_has_gone)
    }

    pub(super) fn spend(&mut self, begun: Duration, now: Instant) {
        let used = cpu_time().saturating_sub(begun);
        self.cpu += used;
        self.budget.spend(used, now);
    }
}

/// Complaints that are remembered, so that each is made once.
const COMPLAINTS: usize = 64;

pub(super) fn complain(made: &mut HashSet<String>, error: &dyn std::fmt::Display) {
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

fn sign(inode: u32, totals: &Totals, time_waits: &HashMap<u32, TimeWaits>) -> Sign {
    Sign {
        mark: totals.activity(inode),
        time_waits: time_waits.get(&inode).copied().unwrap_or_default(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// CPU time of this thread.
pub(super) fn cpu_time() -> Duration {
    clock::read(ClockId::ThreadCPUTime)
}
