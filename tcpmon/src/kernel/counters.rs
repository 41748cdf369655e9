//! Reading what the probes counted.

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap};
use tcpmon_common::{
    Counters, DURATION_BUCKETS, Durations, FailureKey, Losses, STATE_COUNT, ServiceCounts,
    ServiceKey,
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
}

const ZERO: Counters = Counters {
    transitions: [0; 2 * STATE_COUNT * STATE_COUNT],
    durations: Durations {
        buckets: [[0; DURATION_BUCKETS]; STATE_COUNT],
        sum_ns: [0; STATE_COUNT],
    },
    port_failures: 0,
    losses: Losses { sockets: 0, listeners: 0, services: [0; 2], failures: 0 },
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
        .chain(total.losses.services.iter_mut().zip(&cpu.losses.services));
    for (sum, one) in pairs {
        *sum += one;
    }
    total.port_failures += cpu.port_failures;
    total.losses.sockets += cpu.losses.sockets;
    total.losses.listeners += cpu.losses.listeners;
    total.losses.failures += cpu.losses.failures;
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
        cpu.losses = Losses { sockets: 5, listeners: 6, services: [7, 8], failures: 9 };
        let mut total = ZERO;
        add(&mut total, &cpu);
        assert_eq!(total, cpu);
        add(&mut total, &cpu);
        assert_eq!(total.losses.services, [14, 16]);
        assert_eq!(total.transitions[transition_index(1, 2, 1)], 2);
    }
}
