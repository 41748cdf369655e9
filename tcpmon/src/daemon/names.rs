//! The names of owners and namespaces, shared by the stream and the metrics, so that both call a
//! thing by one name and remember it after it has gone.

use crate::{
    export::labels::shown,
    kernel::{
        cgroups::{CgroupNames, Member},
        namespaces::ContainerNames,
        netns::NetnsNames,
    },
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tcpmon_common::{ServiceKey, Transition};

/// Names by what the kernel knows things by.
#[derive(Debug)]
pub struct Names {
    cgroups: Mutex<CgroupNames>,
    netns: Mutex<NetnsNames>,
    containers: Arc<ContainerNames>,
    /// Names that owners were counted under.
    counted_services: Mutex<HashMap<ServiceKey, Arc<str>>>,
    /// Names of namespaces that a counter was shown under: it keeps them when they are gone.
    counted_netns: Mutex<HashMap<u32, Arc<str>>>,
}

impl Names {
    /// Nothing is looked up yet.
    #[must_use]
    pub fn new() -> Self {
        let containers = ContainerNames::new();
        Self {
            cgroups: Mutex::default(),
            netns: Mutex::new(NetnsNames::new(Arc::clone(&containers))),
            containers,
            counted_services: Mutex::default(),
            counted_netns: Mutex::default(),
        }
    }

    /// Where whoever looks for network namespaces tells which containers they belong to.
    #[must_use]
    pub fn containers(&self) -> &Arc<ContainerNames> {
        &self.containers
    }

    /// Names for one batch of events, looked up as of `now`.
    pub fn batch(&self, now: Instant) -> BatchNames<'_> {
        BatchNames {
            cgroups: lock(&self.cgroups),
            netns: &self.netns,
            now,
            last: [const { None }; 2],
        }
    }

    /// The service to count an owner under; `None` where the owner is not known.
    ///
    /// For what the kernel counts: once given, the name stays until [`Self::forget_uncounted`] is told
    /// that it is counted no more. A count that moved to another name would be seen as a restart.
    pub fn service_of_key(&self, key: &ServiceKey) -> Option<Arc<str>> {
        let member = Member::of_key(key)?;
        let mut counted = lock(&self.counted_services);
        if let Some(name) = counted.get(key) {
            return Some(Arc::clone(name));
        }
        let name = lock(&self.cgroups).service_surely(&member, Instant::now())?;
        counted.insert(*key, Arc::clone(&name));
        Some(name)
    }

    /// The owners that have a name to be counted under.
    pub fn counted(&self) -> HashSet<ServiceKey> {
        lock(&self.counted_services).keys().copied().collect()
    }

    /// Forgets the names of owners that had one `before` and are not `counted` any more.
    pub fn forget_uncounted(&self, before: &HashSet<ServiceKey>, counted: &HashSet<ServiceKey>) {
        lock(&self.counted_services)
            .retain(|key, _| counted.contains(key) || !before.contains(key));
    }

    /// The service of a socket's owner, which the kernel may count or not: of the latter there may
    /// be any number in time, so that nothing is kept of them here.
    fn service_of_socket(&self, key: &ServiceKey) -> Option<Arc<str>> {
        let member = Member::of_key(key)?;
        if let Some(name) = lock(&self.counted_services).get(key) {
            return Some(Arc::clone(name));
        }
        lock(&self.cgroups).service(&member, Instant::now())
    }

    /// The names of many owners: most of them have the same one as the one before.
    pub fn services(&self) -> Services<'_> {
        Services { names: self, last: None }
    }

    /// The name of a network namespace to count under: its name, or the last that it had, or its
    /// inode number. Whoever names a container may choose what a terminal would obey; that is
    /// escaped.
    pub fn counted_netns(&self, inode: u32) -> Arc<str> {
        let name = shown(lock(&self.netns).name(inode, Instant::now()));
        let mut counted = lock(&self.counted_netns);
        if name.parse() == Ok(inode) {
            return counted.get(&inode).cloned().unwrap_or(name);
        }
        counted.insert(inode, Arc::clone(&name));
        name
    }

    /// Reads the names of network namespaces now, for figures that are shown under them: a number
    /// may have become another's a moment ago.
    pub fn reread_netns(&self) {
        lock(&self.netns).reread(Instant::now());
    }

    /// Forgets the name that a network namespace was counted under: it has gone, and so have its
    /// counts.
    pub fn forget_netns(&self, inode: u32) {
        lock(&self.counted_netns).remove(&inode);
    }

    /// Learns the cgroups that there are, for the time when they are gone.
    pub fn refresh(&self) {
        lock(&self.cgroups).refresh(Instant::now());
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

/// Names of owners, one after the other.
#[derive(Debug)]
pub struct Services<'a> {
    names: &'a Names,
    last: Option<(ServiceKey, Option<Arc<str>>)>,
}

impl Services<'_> {
    /// The service of a socket's owner, by the name that it is counted under if it is; `None` where
    /// the owner is not known.
    pub fn name(&mut self, owner: Option<&ServiceKey>) -> Option<Arc<str>> {
        let key = owner?;
        if let Some((last, name)) = &self.last
            && last == key
        {
            return name.clone();
        }
        let name = self.names.service_of_socket(key);
        self.last = Some((*key, name.clone()));
        name
    }
}

/// [`Names`] for one batch: one lock and one look at the clock for all its events.
#[derive(Debug)]
pub struct BatchNames<'a> {
    cgroups: MutexGuard<'a, CgroupNames>,
    netns: &'a Mutex<NetnsNames>,
    now: Instant,
    /// The owners asked for last, the latest first: on a busy host two of them, the ends of one
    /// connection, make most of a batch.
    last: [Option<(Member, Option<Arc<str>>)>; 2],
}

impl BatchNames<'_> {
    /// The service of a record's owner; `None` where the owner is not known.
    pub fn service(&mut self, record: &Transition) -> Option<Arc<str>> {
        let member = Member::of_record(record)?;
        if !self.last[0].as_ref().is_some_and(|(last, _)| *last == member) {
            self.last.swap(0, 1);
        }
        match &self.last[0] {
            Some((last, name)) if *last == member => name.clone(),
            _ => {
                let name = self.cgroups.service(&member, self.now);
                self.last[0] = Some((member, name.clone()));
                name
            }
        }
    }

    /// Whether the namespace with that inode number has that name, or is that number.
    pub fn netns_is(&self, inode: u32, name: &str) -> bool {
        lock(self.netns).is_named(inode, name, self.now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A cache that a panic left behind is still a cache.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
