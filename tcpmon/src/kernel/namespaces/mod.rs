//! The network namespaces of this machine: which there are, which come and go, and by what path
//! each is reached.
//!
//! A namespace lives as long as a process is in it, something is mounted on it, or somebody holds
//! a descriptor of it or a socket in it. The first two are found: `/proc/PID/ns/net` of every
//! process, names under /run/netns, and whatever else is mounted where this process can see it
//! (/run/docker/netns, containerd's, podman's). Not found: what only a descriptor, a socket, a
//! single thread or a mount in another mount namespace keeps alive. Looking holds nothing open,
//! and so keeps nothing alive.

mod containers;
mod known;
mod search;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use containers::ContainerNames;
use known::Known;
pub use known::{Namespace, Place};
use search::{Places, Round, Ways};

use super::{netns, proc_cgroup};

/// How often to look when nothing asks for more.
const PASS_EVERY: Duration = Duration::from_secs(10);
/// How often to look at most.
const PASS_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// How long to wait for each process that the last pass looked at, at least. Looking takes 5 to
/// 10 us a process, so that no pass that was asked for makes it more than 1 % of a core.
const WAIT_PER_PROCESS: Duration = Duration::from_millis(1);
/// How many processes one pass looks at. Where there are more, a round takes several passes.
pub const PROCESSES_PER_PASS: usize = 4_096;
/// How many processes of a namespace are asked for their container.
const ASKED_FOR_CONTAINER: usize = 4;
/// How many rounds in a row must miss a namespace: one could have been between a process that
/// the round did not know yet and one that had just ended.
const ROUNDS_MISSED: u8 = 2;

/// Which namespaces to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Only the one that this process is in, which takes no privileges.
    Own,
}

/// What a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Namespaces that have ended, or are out of reach.
    pub departed: Vec<u32>,
    /// Namespaces that are new. One that is in both lists is another than before.
    pub arrived: Vec<u32>,
    /// Of those that are new to us the ones that were there before, and had to wait until there were
    /// fewer: they may be older than we are.
    pub waited: Vec<u32>,
    /// How many processes were looked at.
    pub processes: usize,
    /// How many processes of this round so far may not be looked at: for want of CAP_SYS_PTRACE,
    /// mostly. Their namespaces may be missing.
    pub refused: usize,
    /// Whether the pass ended a round over all processes.
    pub complete: bool,
}

/// Finds network namespaces and follows them.
///
/// Every method is given the present time.
#[derive(Debug)]
pub struct Namespaces {
    scope: Scope,
    places: Places,
    containers: Arc<ContainerNames>,
    /// How many processes one pass looks at.
    per_pass: usize,
    /// How many namespaces are known at most.
    most: usize,
    known: BTreeMap<u32, Known>,
    /// Those that the last round found beside as many.
    beyond: BTreeSet<u32>,
    round: Option<Round>,
    /// When the last pass was, and at how many processes it looked.
    passed: Option<(Instant, usize)>,
    /// When the last pass was that nobody had asked for.
    regular: Option<Instant>,
    /// When names were last made or removed, as the last pass found it.
    stamps: Vec<Option<SystemTime>>,
}

impl Namespaces {
    /// Nothing is known before the first pass. Passes tell `containers` what they find. `most`: so
    /// many namespaces are followed at most, the host's included; users may make any number.
    #[must_use]
    pub fn new(scope: Scope, containers: Arc<ContainerNames>, most: usize) -> Self {
        let places = Places { proc: "/proc".into(), folders: netns::folders() };
        Self::with_places(scope, places, containers, most)
    }

    fn with_places(
        scope: Scope,
        places: Places,
        containers: Arc<ContainerNames>,
        most: usize,
    ) -> Self {
        Self {
            scope,
            places,
            containers,
            per_pass: PROCESSES_PER_PASS,
            most,
            known: BTreeMap::new(),
            beyond: BTreeSet::new(),
            round: None,
            passed: None,
            regular: None,
            stamps: Vec::new(),
        }
    }

    /// Whether it is time for a pass: every 10 s; after 50 ms (or, where there are more than
    /// fifty processes, a millisecond for each) where the last pass left work over, missed a
    /// namespace that it knew, somebody met one that it did not, or ip-netns(8) named one or
    /// removed a name.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let over = |since: Instant, interval| now.saturating_duration_since(since) >= interval;
        let Some((regular, (passed, processes))) = self.regular.zip(self.passed) else {
            return true;
        };
        let processes = u32::try_from(processes).unwrap_or(u32::MAX);
        let at_most_every = PASS_AT_MOST_EVERY.max(WAIT_PER_PROCESS.saturating_mul(processes));
        let unfinished = || self.round.is_some() || self.known.values().any(|it| it.missed > 0);
        let renamed = || self.scope == Scope::All && self.stamps != self.places.stamps();
        over(regular, PASS_EVERY)
            || over(passed, at_most_every)
                && (unfinished() || self.containers.is_wanted() || renamed())
    }

    /// Makes a pass: looks at the mounts, and at [`PROCESSES_PER_PASS`] processes at most.
    ///
    /// What is new is told by the pass that finds it; what has gone, by the end of the second
    /// round that misses it, unless another has its number before. A pass that cannot read
    /// /proc tells nothing.
    pub fn refresh(&mut self, now: Instant) -> Changes {
        let regular =
            self.regular.is_none_or(|last| now.saturating_duration_since(last) >= PASS_EVERY);
        if regular {
            self.regular = Some(now);
        }
        // Before the names themselves: what changes in between is looked at again.
        self.stamps = self.places.stamps();
        let host = netns::host(&self.places.proc);
        if host.is_none() {
            // Not even this process is found: /proc cannot be read, which says of no namespace that it
            // has gone.
            self.passed = Some((now, 0));
            return Changes::default();
        }
        let mut changes = Changes { complete: true, ..Changes::default() };
        let found = match self.scope {
            Scope::All => self.search(host, &mut changes),
            Scope::Own => self.own(),
        };
        self.passed = Some((now, changes.processes));
        self.merge(found, host, &mut changes);
        self.name(host);
        let names = self.known.values().map(|known| {
            let Namespace { inode, container, .. } = &known.namespace;
            (*inode, container.clone())
        });
        self.containers.publish(names, regular);
        changes
    }

    /// The namespaces that can be reached, by inode number.
    pub fn reachable(&self) -> impl Iterator<Item = &Namespace> {
        self.known.values().filter(|known| known.missed == 0).map(|known| &known.namespace)
    }

    /// One of the namespaces that can be reached.
    #[must_use]
    pub fn get(&self, inode: u32) -> Option<&Namespace> {
        self.known.get(&inode).filter(|known| known.missed == 0).map(|known| &known.namespace)
    }

    /// Namespaces that are there and not followed, since there are so many.
    #[must_use]
    pub fn beyond(&self) -> &BTreeSet<u32> {
        &self.beyond
    }

    /// What the mounts and this part of the round show.
    fn search(&mut self, host: Option<u32>, changes: &mut Changes) -> BTreeMap<u32, Ways> {
        let mut round = self.round.take().unwrap_or_else(|| Round::begin(&self.places.proc, host));
        changes.processes = round.go_on(self.per_pass);
        changes.refused = round.refused;
        changes.complete = round.is_complete();
        let mut found: BTreeMap<u32, Ways> = BTreeMap::new();
        for (&inode, pids) in &round.found {
            found.entry(inode).or_default().pids.clone_from(pids);
        }
        for (inode, mounts) in search::mounted(&self.places) {
            found.entry(inode).or_default().mounts = mounts;
        }
        if !changes.complete {
            self.round = Some(round);
        }
        found
    }

    /// Only the namespace of this process.
    fn own(&self) -> BTreeMap<u32, Ways> {
        let own = netns::namespace(&self.places.proc.join("self/ns/net"));
        let ways = Ways { pids: vec![std::process::id()], ..Ways::default() };
        own.into_iter().map(|(_, inode)| (inode, ways.clone())).collect()
    }

    /// Holds what was found against what is known.
    fn merge(&mut self, found: BTreeMap<u32, Ways>, host: Option<u32>, changes: &mut Changes) {
        if changes.complete {
            self.known.retain(|inode, known| {
                known.missed = if found.contains_key(inode) { 0 } else { known.missed + 1 };
                let stays = known.missed < ROUNDS_MISSED;
                if !stays {
                    changes.departed.push(*inode);
                }
                stays
            });
        }
        let mut waiting = std::mem::take(&mut self.beyond);
        if !changes.complete {
            self.beyond.clone_from(&waiting);
        }
        for (inode, mut ways) in found {
            // The host's has its place whether it has been found yet or not.
            let kept_free = self.scope == Scope::All
                && host.is_some_and(|host| !self.known.contains_key(&host));
            let is_full =
                self.known.len() + usize::from(kept_free) >= self.most && host != Some(inode);
            if is_full && !self.known.contains_key(&inode) {
                self.beyond.insert(inode);
                continue;
            }
            self.beyond.remove(&inode);
            let has_waited = waiting.remove(&inode);
            match self.known.get_mut(&inode) {
                // Half a round shows not all ways, so that it cannot show that all are others.
                Some(known) if !changes.complete => {
                    known.missed = 0;
                    known.ways.add(ways);
                    known.describe(&self.places, host);
                    continue;
                }
                Some(known) if known.ways.share(&ways) => {
                    std::mem::swap(&mut known.ways, &mut ways);
                    known.describe(&self.places, host);
                    continue;
                }
                Some(_) => changes.departed.push(inode),
                None => {}
            }
            changes.arrived.push(inode);
            changes.waited.extend(has_waited.then_some(inode));
            self.known.insert(inode, Known::new(inode, ways, &self.places, host));
        }
    }

    /// Looks for the containers of namespaces without a name; those with the lowest pids first,
    /// so that a container's own namespace has its name, and not one that was made inside.
    fn name(&mut self, host: Option<u32>) {
        let mut taken: HashSet<Arc<str>> =
            self.known.values().filter_map(|known| known.namespace.container.clone()).collect();
        let mut nameless: Vec<&mut Known> = self
            .known
            .values_mut()
            .filter(|known| {
                let Namespace { inode, place, container, .. } = &known.namespace;
                Some(*inode) != host
                    && *place != Place::Named
                    && container.is_none()
                    && !known.second
            })
            .collect();
        nameless.sort_by_key(|known| known.ways.pids.first().copied());
        let mut buffer = Vec::new();
        for known in nameless {
            let named = known.ways.pids.iter().take(ASKED_FOR_CONTAINER).find_map(|&pid| {
                let name = proc_cgroup::container_of_process(&self.places.proc, pid, &mut buffer);
                Some((pid, Arc::from(name?)))
            });
            let Some((pid, name)) = named else { continue };
            if taken.insert(Arc::clone(&name)) {
                known.namespace.container = Some(name);
                known.namespace.pid = Some(pid);
                known.describe(&self.places, host);
            } else {
                known.second = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
