//! What is remembered between two looks, by network namespace.
//!
//! A count that never falls is news only by what it has grown, so to lose what it was is to take
//! old failures for new ones. That is why nothing is lost because a namespace could not be read
//! once, or has another name now: what is remembered goes by the inode number, and stays while the
//! namespace is missing. Another that is given the number later has another cookie, and counts of
//! its own that began at 0.

use crate::pressure::facts::{Facts, NamespaceFacts, Route};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// An owner; `None`: not known.
pub(super) type Owner = Option<Arc<str>>;

/// A count at the last moments, the earliest first.
pub(super) type History = VecDeque<(Duration, u64)>;

/// What is missing in every look for so long has gone.
const GONE_AFTER: Duration = Duration::from_mins(10);

/// Namespaces with failures that are remembered while they are missing, at most: numbers are given
/// anew, so that even where they come and go all day there are not as many.
const MISSING: usize = 4_096;

/// All namespaces, by inode number.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<u32, Remembered>);

/// What is remembered of one namespace.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// connect() calls that found no port. Each owner's for itself: were one missing from a look,
    /// a sum would fall, and seem to grow when it is there again.
    pub(super) failures: HashMap<(Route, Owner), Growing>,
    /// Sockets that the time-wait table had no room for.
    pub(super) overflow: Growing,
    /// Old sockets in CLOSE_WAIT.
    pub(super) close_wait: HashMap<Owner, History>,
    missing_since: Option<Duration>,
    /// The namespace's cookie; 0 where it is not known.
    net_cookie: u64,
}

/// A count that never falls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growing {
    pub(super) total: u64,
    /// When it grew last, and by how much since the trouble began.
    grew: Option<(Duration, u64)>,
    missing_since: Option<Duration>,
}

impl Growing {
    /// How much it has grown in the trouble that is not over yet; `None` where there is none.
    pub(super) fn step(&mut self, at: Duration, total: u64, over_after: Duration) -> Option<u64> {
        let by = total.checked_sub(self.total).unwrap_or(total);
        self.total = total;
        let before = self.grew.filter(|(last, _)| at.saturating_sub(*last) < over_after);
        self.grew = if by > 0 { Some((at, before.map_or(0, |(_, sum)| sum) + by)) } else { before };
        self.grew.map(|(_, sum)| sum)
    }
}

impl Memory {
    /// What is remembered of a namespace; of one that was never seen, that all counts were 0.
    pub(super) fn of(&mut self, netns: &NamespaceFacts) -> &mut Remembered {
        let remembered = self.0.entry(netns.inode).or_default();
        if netns.net_cookie != 0 {
            if ![0, netns.net_cookie].contains(&remembered.net_cookie) {
                *remembered = Remembered::default();
            }
            remembered.net_cookie = netns.net_cookie;
        }
        remembered
    }

    /// Forgets what has gone for good.
    pub(super) fn forget(&mut self, facts: &Facts) {
        let present: HashMap<u32, &NamespaceFacts> =
            facts.namespaces.iter().map(|netns| (netns.inode, netns)).collect();
        self.0.retain(|inode, it| {
            if let Some(netns) = present.get(inode) {
                it.missing_since = None;
                it.forget(facts.at, netns);
                return true;
            }
            if is_gone(&mut it.missing_since, false, facts.at) {
                it.close_wait.clear();
            }
            !it.is_empty()
        });
        self.bound();
    }

    /// Of too many that are missing those go that have been so for longest.
    fn bound(&mut self) {
        let missing = self.0.iter().filter_map(|(inode, it)| Some((it.missing_since?, *inode)));
        let mut missing: Vec<(Duration, u32)> = missing.collect();
        let Some(too_many) = missing.len().checked_sub(MISSING) else { return };
        missing.sort_unstable();
        for (_, inode) in missing.into_iter().take(too_many) {
            self.0.remove(&inode);
        }
    }
}

impl Remembered {
    /// Forgets what is not among the facts any more: a route's count that has gone begins at 0
    /// should it come again, but what is missing from one look may be there in the next.
    fn forget(&mut self, at: Duration, netns: &NamespaceFacts) {
        let present: HashSet<(Route, &Owner)> =
            netns.failures.iter().map(|it| (it.route, &it.owner)).collect();
        self.failures.retain(|(route, owner), growing| {
            !is_gone(&mut growing.missing_since, present.contains(&(*route, owner)), at)
        });
        self.close_wait.retain(|owner, _| netns.close_wait.iter().any(|it| it.owner == *owner));
    }

    /// Whether to forget it changes nothing.
    fn is_empty(&self) -> bool {
        self.failures.is_empty() && self.close_wait.is_empty() && self.overflow.total == 0
    }
}

/// Whether something has been missing for long. Time that nobody looked in does not count: from the
/// first look without it to one that is still without.
fn is_gone(since: &mut Option<Duration>, is_there: bool, at: Duration) -> bool {
    if is_there {
        *since = None;
        return false;
    }
    at.saturating_sub(*since.get_or_insert(at)) >= GONE_AFTER
}

#[cfg(test)]
mod tests;
