//! Gathering a sample of everything that is counted.

use super::{
    facts::FactsBuilder,
    hub::Hub,
    names::Names,
    survey::{Findings, Found, Survey},
};
use crate::{
    export::{
        levels::{Holder, KernelCounts, NamespaceSample, Snapshots},
        metrics::{Destination, Sample},
        pressure::PressureSample,
        time_wait::TimeWaitSample,
    },
    kernel::{
        counters::{CounterMaps, Settled},
        probes::TimeWaitMode,
        program,
    },
    model::{address, fast::FastMap, levels::ByState, probe::ProbeStats, totals::Totals},
    pressure::facts::Facts,
};
use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tcpmon_common::{EnteredKey, FailureKey, Family, ServiceCounts, ServiceKey, TimeWaits};

/// How long a sample waits for the survey to look at what has changed. After that the findings
/// are those of the look before.
const SURVEY_PATIENCE: Duration = Duration::from_millis(300);

/// Where the counters are read.
pub struct Sampler {
    maps: Arc<Mutex<CounterMaps>>,
    survey: Survey,
    mode: TimeWaitMode,
    programs: Vec<Program>,
    hub: Arc<Hub>,
    names: Arc<Names>,
}

/// An attached program, with the kernel's last account of it: /proc may be out of reach for a
/// while, which is no reason to tell nothing else, and a counter must not fall.
struct Program {
    name: &'static str,
    fd: OwnedFd,
    last: Mutex<ProbeStats>,
}

impl Program {
    fn stats(&self) -> ProbeStats {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match program::stats(self.fd.as_fd()) {
            Ok(now) => *last = now,
            Err(error) => {
                log::debug!("cannot read the kernel's account of the probe {}: {error}", self.name);
            }
        }
        *last
    }
}

/// The probes' counters at one moment.
struct Read {
    totals: Box<Totals>,
    services: HashMap<ServiceKey, ServiceCounts>,
    failures: Vec<(FailureKey, u64)>,
    ring_lost: u64,
    time_waits: Vec<(u32, TimeWaits)>,
    entered: Vec<(EnteredKey, u64)>,
}

/// Everything that was read at one moment.
pub struct Gathered {
    read: Read,
    pub(super) findings: Arc<Findings>,
    /// The probes' counts of each time-wait table that is there, by inode of its namespace.
    pub(super) counts: HashMap<u32, TimeWaits>,
}

impl Gathered {
    /// connect() calls that found no port.
    pub(super) fn failures(&self) -> &[(FailureKey, u64)] {
        &self.read.failures
    }
}

/// Whether the namespace of that number is still the one with the cookie: a number may have been
/// another's.
fn is_present(findings: &Findings, inode: u32, cookie: u64) -> bool {
    findings.namespaces.get(&inode).is_none_or(|found| found.is_its(cookie))
}

/// The counts of those that are.
fn present(findings: &Findings, counts: &[(u32, TimeWaits)]) -> HashMap<u32, TimeWaits> {
    let mut present: HashMap<u32, TimeWaits> = HashMap::new();
    for (inode, it) in
        counts.iter().filter(|(inode, it)| is_present(findings, *inode, it.net_cookie))
    {
        // Of one that is not watched nobody knows which of those that had the number is there.
        present.entry(*inode).and_modify(|sum| sum.add(it)).or_insert(*it);
    }
    present
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A map could not be read.
    #[error("cannot read the probes' counters: {0}")]
    Map(#[from] aya::maps::MapError),
}

impl Sampler {
    /// A sampler of these sources.
    #[must_use]
    pub fn new(
        maps: Arc<Mutex<CounterMaps>>,
        survey: Survey,
        mode: TimeWaitMode,
        programs: Vec<(&'static str, OwnedFd)>,
        hub: Arc<Hub>,
        names: Arc<Names>,
    ) -> Self {
        let program = |(name, fd)| Program { name, fd, last: Mutex::default() };
        let programs = programs.into_iter().map(program).collect();
        Self { maps, survey, mode, programs, hub, names }
    }

    /// Reads everything now.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let something be read: a part that looks like the whole would be
    /// worse than nothing.
    pub fn gather(&self) -> Result<Gathered, SampleError> {
        let findings = self.survey.ask(SURVEY_PATIENCE);
        self.names.reread_netns();
        let read = self.read()?;
        let counts = present(&findings, &read.time_waits);
        Ok(Gathered { read, findings, counts })
    }

    /// The facts of port pressure in it.
    pub fn facts(&self, at: Duration, gathered: &Gathered, builder: &mut FactsBuilder) -> Facts {
        builder.facts(at, gathered, &self.names)
    }

    /// The sample that metrics are made of.
    ///
    /// # Errors
    ///
    /// As [`Self::gather`].
    pub fn sample_of(&self, gathered: Gathered) -> Result<Sample, SampleError> {
        let Gathered { read, findings, counts } = gathered;
        let connections = read
            .services
            .into_iter()
            .map(|(key, counts)| (self.names.service_of_key(&key), counts))
            .collect();
        let failures = read
            .failures
            .into_iter()
            .filter(|(key, _)| is_present(&findings, key.netns, key.net_cookie))
            .map(|(key, count)| (self.destination(&key), count))
            .collect();
        let probes = self.programs.iter().map(|it| (it.name, it.stats())).collect();
        Ok(Sample {
            totals: read.totals,
            connections,
            failures,
            ring_lost: read.ring_lost,
            subscriber_lost: self.hub.lost(),
            subscribers: self.hub.subscriber_count(),
            probes,
            time_wait: self.time_wait(&findings, &counts, read.entered),
            pressure: PressureSample::default(),
            alertmanagers: Vec::new(),
            turned_away: 0,
        })
    }

    /// A number that changes when a socket makes a transition, or leaves TIME_WAIT: quickly read.
    pub fn sign(&self) -> u64 {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.totals().all_transitions()
    }

    /// Gives the owners that the kernel counts their names, while their cgroups are still there.
    ///
    /// # Errors
    ///
    /// As [`Self::gather`].
    pub fn learn_names(&self) -> Result<(), SampleError> {
        self.names.refresh();
        let before = self.names.counted();
        let read = self.read()?;
        let mut counted: HashSet<ServiceKey> = read.services.into_keys().collect();
        for (key, _) in read.failures {
            counted.insert(key.service);
            let _ = self.names.counted_netns(key.netns);
        }
        for (key, _) in read.entered {
            counted.insert(key.service);
            let _ = self.names.counted_netns(key.netns);
        }
        for key in &counted {
            let _ = self.names.service_of_key(key);
        }
        self.names.forget_uncounted(&before, &counted);
        Ok(())
    }

    /// Reads the probes' counters, which the survey has to wait for meanwhile.
    fn read(&self) -> Result<Read, SampleError> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let Settled { totals, time_waits } = maps.settled()?;
        Ok(Read {
            totals,
            services: maps.services.all(),
            failures: maps.failures()?,
            ring_lost: maps.ring_losses.total(),
            time_waits,
            entered: maps.entered()?,
        })
    }

    fn time_wait(
        &self,
        findings: &Findings,
        counts: &HashMap<u32, TimeWaits>,
        entered: Vec<(EnteredKey, u64)>,
    ) -> TimeWaitSample {
        let namespaces = findings.namespaces.iter();
        let namespaces = namespaces
            .map(|(&inode, found)| self.namespace(inode, findings, found, counts.get(&inode)));
        let namespaces = namespaces.collect();
        let censuses = || findings.namespaces.values().filter_map(|found| found.census.as_ref());
        let netns = |inode| self.names.counted_netns(inode);
        TimeWaitSample {
            mode: match self.mode {
                TimeWaitMode::Exact => "exact",
                TimeWaitMode::Sampled => "sampled",
            },
            counts: counts.iter().map(|(inode, counts)| (netns(*inode), *counts)).collect(),
            entered: entered
                .into_iter()
                .filter(|(key, _)| is_present(findings, key.netns, key.net_cookie))
                .map(|(key, count)| {
                    ((netns(key.netns), self.names.service_of_key(&key.service)), count)
                })
                .collect(),
            namespaces,
            snapshots: Snapshots {
                taken: findings.censuses,
                cpu: findings.cpu,
                duration: censuses().map(|taken| taken.wall).sum(),
                sockets: censuses().map(|taken| taken.listed).sum(),
                unwatched: findings.unwatched,
                lag: findings.lag,
            },
        }
    }

    fn namespace(
        &self,
        inode: u32,
        findings: &Findings,
        found: &Found,
        counts: Option<&TimeWaits>,
    ) -> NamespaceSample {
        let exact = self.mode == TimeWaitMode::Exact;
        let level = found.ledger.level(counts.unwrap_or(&TimeWaits::default()));
        let sockets = findings.sockets(found);
        let is_known = sockets.is_some();
        let mut by_state = ByState::default();
        let mut holders: FastMap<Holder, u64> = FastMap::default();
        let mut services = self.names.services();
        for alike in sockets.into_iter().flatten() {
            by_state.add(&alike);
            if alike.group.kind.in_time_wait_table {
                let service = services.name(alike.group.owner.as_ref());
                let holder = Holder { service, dst: alike.group.dst, dport: alike.group.dport };
                *holders.entry(holder).or_default() += alike.sockets;
            }
        }
        let kernel = found.entered().zip(found.reused()).filter(|_| !exact);
        NamespaceSample {
            netns: self.names.counted_netns(inode),
            sockets: is_known.then(|| by_state.counts().collect()),
            holders: holders.into_iter().collect(),
            unplaced: level.unwrap_or(0).saturating_sub(by_state.in_time_wait_table()),
            level: level.filter(|_| exact),
            drift: found.drift,
            missed_entered: found.missed_entered,
            missed_reused: found.missed_reused,
            overflow: found.overflow(),
            kernel: kernel.map(|(entered, reused)| KernelCounts { entered, reused }),
            ephemeral_ports: found.sysctls.ephemeral_ports(),
            sysctls: found.sysctls.numbers().collect(),
        }
    }

    fn destination(&self, key: &FailureKey) -> Destination {
        let family = Family::from_number(key.family).unwrap_or(Family::Ipv4);
        Destination {
            netns: self.names.counted_netns(key.netns),
            src: address::from_record(family, &key.saddr),
            dst: address::from_record(family, &key.daddr),
            dport: key.dport,
            service: self.names.service_of_key(&key.service),
        }
    }
}
