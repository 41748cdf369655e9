//! Reading what the probes counted.

use super::{clock, mapped::Mapped, rings::RingLosses, services::ServiceTable};
use crate::model::totals::Totals;
use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use std::time::Duration;
use tcpmon_common::{Counters, Departure, EnteredKey, FailureKey, TimeWaits};

/// The maps with exact counters.
pub struct CounterMaps {
    /// All but the ones below.
    pub(super) counters: Mapped<Counters>,
    /// Records lost for want of room on the rings.
    pub ring_losses: RingLosses,
    /// Connections by owner.
    pub services: ServiceTable,
    /// Port failures by destination and owner.
    pub failures: PerCpuHashMap<MapData, FailureKey, u64>,
    /// Time-wait sockets that came and went, by inode of their network namespace.
    pub time_waits: PerCpuHashMap<MapData, u32, TimeWaits>,
    /// Entries into the time-wait table by namespace and owner.
    pub entered: PerCpuHashMap<MapData, EnteredKey, u64>,
    /// Time-wait sockets of which it is not known yet what became of them.
    pub departures: PerCpuArray<MapData, Departure>,
}

/// After that a time-wait socket of which nothing else has become was killed: an expiry or a new
/// time for its timer follows within microseconds.
const SETTLED: Duration = Duration::from_millis(2);

/// Flag of `bpf_map_update_elem`: leave an existing element alone.
const BPF_NOEXIST: u64 = 1;

/// How often the counters are read again where one of these changes meanwhile.
const READINGS: usize = 5;

/// What the probes counted, at one moment as far as each number goes: none ever falls.
#[derive(Debug)]
pub struct Settled {
    /// The counters of all CPUs.
    pub totals: Box<Totals>,
    /// Time-wait sockets that came and went, by inode of their network namespace, in no order.
    pub time_waits: Vec<(u32, TimeWaits)>,
}

impl Settled {
    /// Counts a socket that was killed, and of which the probes do not know yet that it was.
    fn kill(&mut self, killed: &Departure) {
        self.totals.end_time_wait(killed.family, killed.duration_ns);
        // A namespace that has gone is forgotten, and its number may be another's.
        let of = self.time_waits.iter_mut().find(|(netns, counts)| {
            (*netns, counts.net_cookie) == (killed.netns, killed.net_cookie)
        });
        if let Some((_, counts)) = of {
            counts.killed += 1;
        }
    }
}

impl CounterMaps {
    /// The counters of all CPUs.
    pub fn totals(&self) -> Box<Totals> {
        let mut total = Box::new(Totals::NONE);
        for cpu in 0..self.counters.len() {
            if let Some(counters) = self.counters.get(cpu) {
                total.add(&counters);
            }
        }
        total
    }

    /// Port failures by destination and owner, in no order.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let the map be read.
    pub fn failures(&self) -> Result<Vec<(FailureKey, u64)>, MapError> {
        self.failures
            .iter()
            .map(|entry| entry.map(|(key, cpus)| (key, cpus.iter().sum())))
            .collect()
    }

    /// What the probes counted, those killed included of which they do not know yet.
    ///
    /// # Errors
    ///
    /// As [`Self::failures`].
    pub fn settled(&self) -> Result<Settled, MapError> {
        let mut reading = 0;
        loop {
            reading += 1;
            let before = self.open_departures()?;
            let mut settled = Settled { totals: self.totals(), time_waits: self.time_waits()? };
            let after = self.open_departures()?;
            let now = clock::of_probes();
            let is_over =
                |one: &&Departure| now.saturating_sub(Duration::from_nanos(one.ts_ns)) >= SETTLED;
            let killed: Vec<&Departure> = before.iter().filter(is_over).collect();
            // One of those may have been counted before or after its count was read.
            let certain = killed.iter().all(|one| after.contains(one));
            // Where nothing goes on, what is open now is soon settled.
            let waits = before == after && killed.len() < before.len();
            if reading == READINGS || certain && !waits {
                for one in killed.into_iter().filter(|one| after.contains(one)) {
                    settled.kill(one);
                }
                return Ok(settled);
            }
            if waits {
                std::thread::sleep(SETTLED / 2);
            }
        }
    }

    /// Time-wait sockets that are in no count yet, at most one a CPU.
    fn open_departures(&self) -> Result<Vec<Departure>, MapError> {
        let all = self.departures.get(&0, 0)?;
        Ok(all.iter().filter(|one| one.is_open()).copied().collect())
    }

    /// Time-wait sockets that came and went, by inode and, since a number may have been another's,
    /// cookie of their network namespace, in no order.
    ///
    /// # Errors
    ///
    /// As [`Self::failures`].
    pub fn time_waits(&self) -> Result<Vec<(u32, TimeWaits)>, MapError> {
        let mut rows = Vec::new();
        for entry in &self.time_waits {
            let (netns, cpus) = entry?;
            rows.extend(by_cookie(&cpus).into_iter().map(|counts| (netns, counts)));
        }
        Ok(rows)
    }

    /// The same of one namespace; zeros where none came yet.
    ///
    /// # Errors
    ///
    /// As [`Self::failures`].
    pub fn time_waits_of(&self, netns: u32, net_cookie: u64) -> Result<TimeWaits, MapError> {
        let none = TimeWaits { net_cookie, ..TimeWaits::default() };
        match self.time_waits.get(&netns, 0) {
            Ok(cpus) => {
                let mut rows = by_cookie(&cpus).into_iter();
                Ok(rows.find(|counts| counts.net_cookie == net_cookie).unwrap_or(none))
            }
            Err(MapError::KeyNotFound) => Ok(none),
            Err(error) => Err(error),
        }
    }

    /// Entries into the time-wait table by namespace and owner, in no order.
    ///
    /// # Errors
    ///
    /// As [`Self::failures`].
    pub fn entered(&self) -> Result<Vec<(EnteredKey, u64)>, MapError> {
        self.entered.iter().map(|entry| entry.map(|(key, cpus)| (key, cpus.iter().sum()))).collect()
    }

    /// Keeps a place for the counts of a namespace that is watched, so that none that is not takes
    /// it. Where it is counted already, or there is no room, nothing changes.
    pub fn keep_place(&mut self, netns: u32) {
        let zeros = aya::util::nr_cpus()
            .map_err(|(_, error)| error)
            .and_then(|cpus| PerCpuValues::try_from(vec![TimeWaits::default(); cpus]));
        if let Ok(zeros) = zeros {
            let _ = self.time_waits.insert(netns, zeros, BPF_NOEXIST);
        }
    }

    /// Forgets the counts of a namespace that has gone; not those of the namespace with the cookie
    /// `successor`, which may have its number now.
    ///
    /// # Errors
    ///
    /// As [`Self::failures`].
    pub fn forget_namespace(&mut self, netns: u32, successor: Option<u64>) -> Result<(), MapError> {
        let is_kept = |cookie: u64| Some(cookie) == successor;
        // Where another namespace has the number now, the probes begin the counts anew themselves,
        // and may have done so just now.
        if successor.is_none() {
            absent_is_fine(self.time_waits.remove(&netns))?;
        }
        let keys: Vec<EnteredKey> = self.entered.keys().collect::<Result<_, _>>()?;
        for key in keys.into_iter().filter(|key| key.netns == netns && !is_kept(key.net_cookie)) {
            absent_is_fine(self.entered.remove(&key))?;
        }
        let keys: Vec<FailureKey> = self.failures.keys().collect::<Result<_, _>>()?;
        for key in keys.into_iter().filter(|key| key.netns == netns && !is_kept(key.net_cookie)) {
            absent_is_fine(self.failures.remove(&key))?;
        }
        Ok(())
    }
}

/// What was to be removed need not have been there.
pub(super) fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        // What aya makes of it where the system call itself says so.
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

/// The counts of all CPUs, summed for each namespace that has had the number.
fn by_cookie(cpus: &PerCpuValues<TimeWaits>) -> Vec<TimeWaits> {
    let mut rows: Vec<TimeWaits> = Vec::new();
    for cpu in cpus.iter().filter(|cpu| cpu.net_cookie != 0) {
        match rows.iter_mut().find(|row| row.net_cookie == cpu.net_cookie) {
            Some(row) => row.add(cpu),
            None => rows.push(*cpu),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpmon_common::{DURATION_UNKNOWN, Family, TcpState};

    #[test]
    fn who_was_killed_just_now_is_counted() {
        let mut settled =
            Settled { totals: Box::new(Totals::NONE), time_waits: vec![(7, TimeWaits::default())] };
        let killed = Departure { netns: 7, family: 1, duration_ns: 5, ..Departure::default() };
        settled.kill(&killed);
        settled.kill(&Departure { netns: 8, duration_ns: DURATION_UNKNOWN, ..killed });
        let one = TimeWaits { killed: 1, ..TimeWaits::default() };
        assert_eq!(settled.time_waits, [(7, one)]);
        let (from, to) = (TcpState::TimeWait, TcpState::Close);
        assert_eq!(settled.totals.transitions(Family::Ipv6, from, to), 2);
        assert_eq!(settled.totals.durations(from).sum_ns, 5);
        assert_eq!(settled.totals.durations(from).buckets.iter().sum::<u64>(), 1);
    }
}
