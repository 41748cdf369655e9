//! Following network namespaces as they come and go.

use super::{
    findings::Found,
    round::{Memory, Surveyor, lock},
};
use crate::{kernel::namespaces::Changes, model::net_counters::NetCounters};
use aya::maps::MapError;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tcpmon_common::TimeWaits;

/// Passes of the search for namespaces after which counts of a namespace that nothing leads to are
/// given up.
const PASSES_MISSED: u8 = 2;

impl Surveyor {
    /// Takes note of namespaces that have come or gone.
    pub(super) fn follow(
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
            if !self.first_pass && !changes.waited.contains(inode) {
                // Its counters run from its making, which the daemon was there for.
                found.first = NetCounters::zeros();
            }
            lock(&self.counters).keep_place(*inode);
            self.known.insert(*inode, Memory { found: Arc::new(found), ..Memory::default() });
        }
        self.first_pass &= !changes.complete;
        if changes.complete {
            let known = &self.known;
            let mut counted: HashSet<u32> = time_waits.keys().copied().collect();
            // These are counted in namespaces too that are not watched, or out of reach.
            if changes.processes > 0 && changes.refused == 0 {
                counted.extend(lock(&self.counters).failures()?.iter().map(|(key, _)| key.netns));
            }
            let beyond = self.namespaces.beyond();
            counted.retain(|inode| !known.contains_key(inode) && !beyond.contains(inode));
            self.lost.retain(|inode, _| counted.contains(inode));
            for inode in counted {
                if time_waits.get(&inode).is_some_and(|counts| counts.balance() > 0) {
                    continue;
                }
                let missed = self.lost.entry(inode).or_default();
                *missed += 1;
                if *missed >= PASSES_MISSED {
                    lock(&self.counters).forget_namespace(inode, None)?;
                    self.keep.names.forget_netns(inode);
                }
            }
        }
        Ok(())
    }
}
