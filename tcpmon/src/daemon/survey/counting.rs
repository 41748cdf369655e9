//! Counting the sockets of namespaces, as far as the budget allows.

use super::{
    findings::Found,
    round::{Memory, Surveyor, complain, cpu_time},
};
use crate::{kernel::visit::VisitError, model::census::CountedGroup};
use std::{sync::Arc, time::Instant};

impl Surveyor {
    /// Takes a census of each namespace in which something has happened since the last one, as far
    /// as the budget allows, unless it `is_over`; of those that have waited longest first.
    pub(super) fn count(&mut self, now: Instant, is_over: &dyn Fn() -> bool) {
        let exact = self.keep.exact;
        let stale = |memory: &Memory| {
            memory.visited != memory.counted.map(|(sign, _)| sign) || is_restless(memory, exact)
        };
        let mut waiting: Vec<(Option<Instant>, u32)> = self
            .known
            .iter()
            .filter(|(_, memory)| stale(memory))
            .map(|(&inode, memory)| (memory.counted.map(|(_, at)| at), inode))
            .collect();
        waiting.sort_unstable();
        for (_, inode) in waiting {
            if is_over() || !self.budget.allows(now) {
                return;
            }
            let begun = cpu_time();
            self.count_one(inode, now);
            self.spend(begun, now);
        }
    }

    fn count_one(&mut self, inode: u32, now: Instant) {
        let Some(namespace) = self.namespaces.get(inode).cloned() else { return };
        let Some(memory) = self.known.get_mut(&inode) else { return };
        let counted = self.counted.get(&memory.found.net_cookie).map_or(&[][..], Vec::as_slice);
        let whole = !self.keep.exact || is_incomplete(counted, &memory.found);
        let range = memory.found.sysctls.ip_local_port_range;
        let census = &mut self.census;
        match self.visitor.visit(&namespace, || census.take(whole, range)) {
            Ok(Ok(taken)) => {
                let found = Found { census: Some(Arc::new(taken)), ..(*memory.found).clone() };
                memory.found = Arc::new(found);
                // What happened since the visit is of the next round.
                memory.counted = memory.visited.map(|sign| (sign, now));
                self.censuses += 1;
            }
            Ok(Err(error)) => complain(&mut self.complaints, &error),
            Err(VisitError::Gone(_)) => {}
            Err(error) => complain(&mut self.complaints, &error),
        }
    }
}

/// Whether the time-wait table has to be listed: it has sockets that the probes do not count, or
/// some whose ports are taken for every destination.
fn is_incomplete(counted: &[CountedGroup], found: &Found) -> bool {
    let known: u64 = counted.iter().map(|group| group.sockets).sum();
    let is_bound =
        |it: &CountedGroup| !it.group.kind.passive && it.group.kind.chosen == Some(false);
    found.counters.time_wait.is_none_or(|level| level > known) || counted.iter().any(is_bound)
}

/// Whether something may change without a sign: in sampled mode no probe tells of the time-wait
/// table; the peer's FIN, which ends the substate `FIN_WAIT2`, sets no timer anew where that would
/// come into the same slot of the wheel (`__mod_timer()` in kernel/time/timer.c); and a connection in
/// CLOSE_WAIT grows old.
pub(super) fn is_restless(memory: &Memory, exact: bool) -> bool {
    let found = &memory.found;
    let census = found.census.as_ref();
    let awaits_fin = || census.is_some_and(|taken| !taken.counted_fin_wait2.is_empty());
    let is_empty = found.counters.time_wait == Some(0);
    let ages = || census.is_some_and(|taken| taken.young_close_wait > 0);
    !is_empty && (!exact || awaits_fin()) || ages()
}
