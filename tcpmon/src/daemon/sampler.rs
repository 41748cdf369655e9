//! Gathering a sample of everything that is counted.

use super::{hub::Hub, names::Names};
use crate::{
    export::metrics::{Destination, Sample},
    kernel::{counters::CounterMaps, program},
    model::address,
};
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};
use tcpmon_common::{FailureKey, Family};

/// Where the counters are read.
pub struct Sampler {
    maps: CounterMaps,
    programs: Vec<(&'static str, OwnedFd)>,
    hub: Arc<Hub>,
    names: Arc<Names>,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A map could not be read.
    #[error("cannot read the probes' counters: {0}")]
    Map(#[from] aya::maps::MapError),
    /// A program's account could not be read.
    #[error("cannot read the kernel's account of a probe: {0}")]
    Program(#[from] std::io::Error),
}

impl Sampler {
    /// A sampler of these sources.
    #[must_use]
    pub fn new(
        maps: CounterMaps,
        programs: Vec<(&'static str, OwnedFd)>,
        hub: Arc<Hub>,
        names: Arc<Names>,
    ) -> Self {
        Self { maps, programs, hub, names }
    }

    /// Reads everything now.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let something be read: a part that looks like the whole would be
    /// worse than nothing.
    pub fn sample(&self) -> Result<Sample, SampleError> {
        let connections = self
            .maps
            .services()?
            .into_iter()
            .map(|(key, counts)| (self.names.service_of_key(&key), counts))
            .collect();
        let failures = self
            .maps
            .failures()?
            .into_iter()
            .map(|(key, count)| (self.destination(&key), count))
            .collect();
        let probes = self
            .programs
            .iter()
            .map(|(name, fd)| Ok((*name, program::stats(fd.as_fd())?)))
            .collect::<std::io::Result<_>>()?;
        Ok(Sample {
            totals: self.maps.totals()?,
            connections,
            failures,
            ring_lost: self.maps.ring_lost()?,
            subscriber_lost: self.hub.lost(),
            subscribers: self.hub.subscriber_count(),
            probes,
        })
    }

    /// Gives the owners that the kernel counts their names, while their cgroups are still there.
    ///
    /// # Errors
    ///
    /// As [`Self::sample`].
    pub fn learn_names(&self) -> Result<(), SampleError> {
        self.names.refresh();
        for (key, _) in self.maps.services()? {
            let _ = self.names.service_of_key(&key);
        }
        for (key, _) in self.maps.failures()? {
            let _ = self.names.counted_netns(key.netns);
        }
        Ok(())
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
