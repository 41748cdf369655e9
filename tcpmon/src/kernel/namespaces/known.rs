//! What is told and kept of one network namespace.

use std::path::PathBuf;
use std::sync::Arc;

use super::search::{Places, Ways};

/// How many of a namespace's processes are told as ways to it: some may have ended by the time
/// that it is visited.
const PROCESS_WAYS: usize = 4;

/// Where a namespace was found; the first of these that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// It is that of process 1, or our own where that cannot be read.
    Host,
    /// It has a name under /run/netns.
    Named,
    /// It is mounted somewhere else.
    Mounted,
    /// A process is in it.
    Process,
}

/// A network namespace that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Inode number: unique among those that live, given anew afterwards.
    pub inode: u32,
    /// Paths that lead to it, to be opened and checked; the most lasting first.
    pub ways: Vec<PathBuf>,
    /// A process in it, if there is one: of a container where it is one's.
    pub pid: Option<u32>,
    /// Where it was found.
    pub place: Place,
    /// Name or short id of the container that it belongs to. Looked for only where there is no
    /// name under /run/netns. No two have the same: where a container made itself a second
    /// namespace, the first has it.
    pub container: Option<Arc<str>>,
}

/// A namespace and what is kept of it from pass to pass.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) namespace: Namespace,
    pub(super) ways: Ways,
    /// Rounds in a row that did not find it.
    pub(super) missed: u8,
    /// Its container's name was another's already; it gets none later either.
    pub(super) second: bool,
}

impl Known {
    /// One that these ways lead to.
    pub(super) fn new(inode: u32, ways: Ways, places: &Places, host: Option<u32>) -> Self {
        let place = Place::Process;
        let namespace = Namespace { inode, ways: vec![], pid: None, place, container: None };
        let mut known = Self { namespace, ways, missed: 0, second: false };
        known.describe(places, host);
        known
    }

    /// Describes the namespace by the ways that there are now.
    pub(super) fn describe(&mut self, places: &Places, host: Option<u32>) {
        let Self { namespace, ways, .. } = self;
        namespace.place = if Some(namespace.inode) == host {
            Place::Host
        } else if ways.mounts.iter().any(|mount| mount.named) {
            Place::Named
        } else if ways.mounts.is_empty() {
            Place::Process
        } else {
            Place::Mounted
        };
        // The process stays the same as long as it lives.
        let kept = namespace.pid.filter(|pid| ways.pids.binary_search(pid).is_ok());
        namespace.pid = kept.or_else(|| ways.pids.first().copied());
        let others = ways.pids.iter().copied().filter(|&pid| Some(pid) != namespace.pid);
        let processes = namespace.pid.into_iter().chain(others).take(PROCESS_WAYS);
        namespace.ways = ways.mounts.iter().map(|mount| mount.path.clone()).collect();
        namespace.ways.extend(processes.map(|pid| places.proc.join(format!("{pid}/ns/net"))));
    }
}
