//! Reading what the probes counted.

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use tcpmon_common::{
    ACTIVITY, Counters, DURATION_BUCKETS, Durations, EnteredKey, FailureKey, Losses, STATE_COUNT,
    ServiceCounts, ServiceKey, TimeWaits,
};

/// The maps with exact counters.
pub struct CounterMaps {
    /// All but the ones below.
    pub counters: PerCpuArray<MapData, Counters>,
    /// Records lost for want of room on the ring.
    pub ring_lost: PerCpuArray<MapData, u64>,
    /// Connections by owner.
    pub services: PerCpuHashMap<MapData, ServiceKey, ServiceCounts>,
    /// Port failures by destination and owner.
    pub failures: PerCpuHashMap<MapData, FailureKey, u64>,
    /// Time-wait sockets that came and went, by inode of their network namespace.
    pub time_waits: PerCpuHashMap<MapData, u32, TimeWaits>,
    /// Entries into the time-wait table by namespace and owner.
    pub entered: PerCpuHashMap<MapData, EnteredKey, u64>,
}

const ZERO: Counters = Counters {
    transitions: [0; 2 * STATE_COUNT * STATE_COUNT],
    durations: Durations {
        buckets: [[0; DURATION_BUCKETS]; STATE_COUNT],
        sum_ns: [0; STATE_COUNT],
    },
    port_failures: 0,
    losses: Losses {
        sockets: 0,
        listeners: 0,
        services: [0; 2],
        failures: 0,
        time_waits: 0,
        entered: 0,
        namespaces: 0,
    },
    activity: [0; ACTIVITY],
};

impl CounterMaps {
    /// The counters, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let the map be read.
    pub fn totals(&self) -> Result<Box<Counters>, MapError> {
        let mut total = Box::new(ZERO);
        for cpu in self.counters.get(&0, 0)?.iter() {
            add(&mut total, cpu);
        }
        Ok(total)
    }

    /// Records lost for want of room on the ring.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub fn ring_lost(&self) -> Result<u64, MapError> {
        Ok(self.ring_lost.get(&0, 0)?.iter().sum())
    }

    /// Connections by owner, in no order.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub fn services(&self) -> Result<Vec<(ServiceKey, ServiceCounts)>, MapError> {
        self.services
            .iter()
            .map(|entry| {
                let (key, cpus) = entry?;
                let mut sum = ServiceCounts::default();
                for cpu in cpus.iter() {
                    sum.active += cpu.active;
                    sum.passive += cpu.passive;
                }
                Ok((key, sum))
            })
            .collect()
    }

    /// Port failures by destination and owner, in no order.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub fn failures(&self) -> Result<Vec<(FailureKey, u64)>, MapError> {
        self.failures
            .iter()
            .map(|entry| entry.map(|(key, cpus)| (key, cpus.iter().sum())))
            .collect()
    }

    /// Time-wait sockets that came and went, by inode of their network namespace, in no order.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub fn time_waits(&self) -> Result<Vec<(u32, TimeWaits)>, MapError> {
        self.time_waits.iter().map(|entry| entry.map(|(netns, cpus)| (netns, sum(&cpus)))).collect()
    }

    /// The same of one namespace; zeros where none came yet.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub fn time_waits_of(&self, netns: u32) -> Result<TimeWaits, MapError> {
        match self.time_waits.get(&netns, 0) {
            Ok(cpus) => Ok(sum(&cpus)),
            Err(MapError::KeyNotFound) => Ok(TimeWaits::default()),
            Err(error) => Err(error),
        }
    }

    /// Entries into the time-wait table by namespace and owner, in no order.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub fn entered(&self) -> Result<Vec<(EnteredKey, u64)>, MapError> {
        self.entered.iter().map(|entry| entry.map(|(key, cpus)| (key, cpus.iter().sum()))).collect()
    }

    /// Forgets the counts of a namespace that has gone.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub fn forget_namespace(&mut self, netns: u32) -> Result<(), MapError> {
        absent_is_fine(self.time_waits.remove(&netns))?;
        let keys: Vec<EnteredKey> = self.entered.keys().collect::<Result<_, _>>()?;
        for key in keys.into_iter().filter(|key| key.netns == netns) {
            absent_is_fine(self.entered.remove(&key))?;
        }
        Ok(())
    }
}

fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

fn sum(cpus: &PerCpuValues<TimeWaits>) -> TimeWaits {
    let mut sum = TimeWaits::default();
    for cpu in cpus.iter() {
        sum.add(cpu);
    }
    sum
}

fn add(total: &mut Counters, cpu: &Counters) {
    let pairs = total
        .transitions
        .iter_mut()
        .zip(&cpu.transitions)
        .chain(
            total
                .durations
                .buckets
                .as_flattened_mut()
                .iter_mut()
                .zip(cpu.durations.buckets.as_flattened()),
        )
        .chain(total.durations.sum_ns.iter_mut().zip(&cpu.durations.sum_ns))
        .chain(total.losses.services.iter_mut().zip(&cpu.losses.services))
        .chain(total.activity.iter_mut().zip(&cpu.activity));
    for (sum, one) in pairs {
        *sum += one;
    }
    total.port_failures += cpu.port_failures;
    total.losses.sockets += cpu.losses.sockets;
    total.losses.listeners += cpu.losses.listeners;
    total.losses.failures += cpu.losses.failures;
    total.losses.time_waits += cpu.losses.time_waits;
    total.losses.entered += cpu.losses.entered;
    total.losses.namespaces += cpu.losses.namespaces;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpmon_common::transition_index;

    #[test]
    fn every_member_is_summed() {
        let mut cpu = ZERO;
        cpu.transitions[transition_index(1, 2, 1)] = 1;
        cpu.durations.buckets[15][15] = 2;
        cpu.durations.sum_ns[15] = 3;
        cpu.port_failures = 4;
        cpu.losses = Losses {
            sockets: 5,
            listeners: 6,
            services: [7, 8],
            failures: 9,
            time_waits: 10,
            entered: 11,
            namespaces: 12,
        };
        cpu.activity[ACTIVITY - 1] = 13;
        let mut total = ZERO;
        add(&mut total, &cpu);
        assert_eq!(total, cpu);
        add(&mut total, &cpu);
        assert_eq!(total.losses.services, [14, 16]);
        assert_eq!(total.transitions[transition_index(1, 2, 1)], 2);
    }
}
