//! What the survey has found, as plain values for whoever shows it.

use crate::{
    kernel::{cells::Counted, census::Taken},
    model::{
        ledger::{Drift, Ledger},
        levels::{self, Alike},
        net_counters::NetCounters,
        sysctls::Sysctls,
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What was found in all namespaces.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// By inode number.
    pub namespaces: BTreeMap<u32, Arc<Found>>,
    /// Sockets in the time-wait table that the probes count, by cookie of their namespace.
    pub counted: Arc<Counted>,
    /// Censuses taken so far.
    pub censuses: u64,
    /// CPU time of the survey so far, in seconds.
    pub cpu: Duration,
    /// Namespaces that are there and not watched, since there are so many.
    pub unwatched: usize,
    /// Age of the oldest census after which something has changed; zero where none has.
    pub lag: Duration,
}

/// What was found in one namespace, at the last visit.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its cookie, which no other namespace ever has; 0 where that could not be learnt.
    pub net_cookie: u64,
    /// Its sockets; `None` before the first census.
    pub census: Option<Arc<Taken>>,
    /// The ledger of its time-wait table.
    pub ledger: Ledger,
    /// By how much that was off; `None` where there is no ledger, or the kernel tells no number.
    pub drift: Option<Drift>,
    /// Sockets that entered the table and that no probe saw, by the kernel's count.
    pub missed_entered: u64,
    /// Sockets that a connect() took over and that no probe saw, by the kernel's count.
    pub missed_reused: u64,
    /// The kernel's own counters when they were first read; zeros where the namespace was made
    /// while the daemon ran.
    pub first: NetCounters,
    /// The kernel's own counters.
    pub counters: NetCounters,
    /// Its sysctls.
    pub sysctls: Sysctls,
}

impl Findings {
    /// All sockets of a namespace; `None` before its first census.
    pub fn sockets<'a>(&'a self, found: &'a Found) -> Option<impl Iterator<Item = Alike<'a>>> {
        let taken = found.census.as_ref()?;
        let counted = self.counted.get(&found.net_cookie).map_or(&[][..], Vec::as_slice);
        Some(levels::all(counted, &taken.groups, &taken.counted_fin_wait2))
    }
}

impl Found {
    /// Whether what was counted under a cookie is this namespace's: it is where either is not known.
    #[must_use]
    pub fn is_its(&self, cookie: u64) -> bool {
        cookie == 0 || self.net_cookie == 0 || self.net_cookie == cookie
    }

    /// By how much one of the kernel's counters has grown since the daemon watches.
    #[must_use]
    pub fn grown(&self, counter: fn(&NetCounters) -> Option<u64>) -> Option<u64> {
        Some(counter(&self.counters)?.saturating_sub(counter(&self.first)?))
    }

    /// Sockets that the time-wait table had no room for.
    #[must_use]
    pub fn overflow(&self) -> Option<u64> {
        self.grown(|counters| counters.overflow)
    }

    /// Sockets that entered the time-wait table, by the kernel's count.
    #[must_use]
    pub fn entered(&self) -> Option<u64> {
        self.grown(NetCounters::entered)
    }

    /// Sockets in the time-wait table that a connect() took over, by the kernel's count.
    #[must_use]
    pub fn reused(&self) -> Option<u64> {
        self.grown(|counters| counters.recycled)
    }
}
