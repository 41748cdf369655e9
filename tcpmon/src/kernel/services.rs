//! Connections by owner, as the probes counted them.

use super::mapped::Mapped;
use aya::maps::{Array, MapData};
use std::{collections::HashMap, io, mem::offset_of, sync::atomic::Ordering};
use tcpmon_common::{ServiceCounts, ServiceKey, ServicePlace};

/// The probes' table of owners, for whoever reads it.
pub struct ServiceTable {
    places: Mapped<ServicePlace>,
    /// All places of one CPU, then those of the next.
    counts: Mapped<ServiceCounts>,
}

impl ServiceTable {
    /// Of the loaded maps.
    pub(super) fn new(
        places: &Array<MapData, ServicePlace>,
        counts: &Array<MapData, ServiceCounts>,
    ) -> io::Result<Self> {
        Ok(Self { places: Mapped::new(places)?, counts: Mapped::new(counts)? })
    }

    /// Every owner that has had connections, with those on all CPUs. A listener's owner has a place
    /// before the first.
    #[must_use]
    pub fn all(&self) -> HashMap<ServiceKey, ServiceCounts> {
        let mut all: HashMap<ServiceKey, ServiceCounts> = HashMap::new();
        for index in 0..self.places.len() {
            if !self.is_held(index) {
                continue;
            }
            let Some(place) = self.places.get(index) else { continue };
            let sum = all.entry(place.key).or_default();
            let of_cpus = (index..self.counts.len()).step_by(self.places.len() as usize);
            for counts in of_cpus.filter_map(|index| self.counts.get(index)) {
                sum.active += counts.active;
                sum.passive += counts.passive;
            }
        }
        all.retain(|_, counts| *counts != ServiceCounts::default());
        all
    }

    /// Whether a place is somebody's, whose key is written down then.
    fn is_held(&self, index: u32) -> bool {
        let held = self.places.word(index, offset_of!(ServicePlace, held));
        let held = held.map_or(ServicePlace::FREE, |held| held.load(Ordering::Acquire));
        held & ServicePlace::STATE == ServicePlace::HELD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_what_all_its_places_have_on_all_cpus() {
        let mut table = ServiceTable {
            places: Mapped::of_nobody(4).expect("memory"),
            counts: Mapped::of_nobody(8).expect("memory"),
        };
        let key = |cgroup_id| ServiceKey { cgroup_id, known: 1, ..ServiceKey::default() };
        for (index, held, cgroup_id) in [
            (0, ServicePlace::HELD, 7),
            (1, ServicePlace::TAKEN, 8),
            (2, 0xabcd_0000 | ServicePlace::HELD, 7),
            (3, ServicePlace::HELD, 9),
        ] {
            assert!(table.places.set(index, ServicePlace::new(held, key(cgroup_id))));
        }
        for index in 0..8 {
            let counts = ServiceCounts { active: 1 << index, passive: 1 };
            assert!(table.counts.set(index, counts));
        }
        let counts = |active, passive| ServiceCounts { active, passive };
        let expected = [(key(7), counts(0b0101_0101, 4)), (key(9), counts(0b1000_1000, 2))];
        assert_eq!(table.all(), expected.into());
        for index in [3, 7] {
            assert!(table.counts.set(index, ServiceCounts::default()));
        }
        assert_eq!(table.all(), [expected[0]].into(), "a listener that has accepted none");
    }
}
