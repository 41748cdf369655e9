//! Which container a network namespace belongs to: told by the pass that finds namespaces, asked
//! by whoever shows names.
//!
//! The two do not wait for each other. To look at ten thousand processes is no work for a thread
//! that has events to hand on, so whoever meets a number without a name goes on with the number,
//! and the next pass comes sooner.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many unknown namespaces may wait for a pass; more do not make it come sooner.
const ASKED: usize = 4_096;

/// The containers that network namespaces belong to, by inode number.
#[derive(Debug, Default)]
pub struct ContainerNames {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// All namespaces that the last pass found; `None` for those of no container.
    names: HashMap<u32, Option<Arc<str>>>,
    /// Namespaces that were asked for and that no pass knew.
    asked: HashSet<u32>,
    /// One of them since the last pass.
    wanted: bool,
}

impl ContainerNames {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The container that the namespace belongs to, by its name or the first twelve characters
    /// of its id; `None` where it belongs to none, or none is known yet: then a pass is asked for.
    pub fn name(&self, inode: u32) -> Option<Arc<str>> {
        let mut state = self.state();
        if let Some(known) = state.names.get(&inode) {
            return known.clone();
        }
        if state.asked.len() < ASKED && state.asked.insert(inode) {
            state.wanted = true;
        }
        None
    }

    /// The namespace of the container with that name, as [`Self::name`] tells it.
    #[must_use]
    pub fn inode(&self, name: &str) -> Option<u32> {
        let state = self.state();
        let mut pairs = state.names.iter();
        pairs.find(|(_, known)| known.as_deref() == Some(name)).map(|(&inode, _)| inode)
    }

    /// Whether somebody asked for a namespace that no pass knew.
    pub(in crate::kernel) fn is_wanted(&self) -> bool {
        self.state().wanted
    }

    /// Takes over what a pass found. `forget`: namespaces that it did not find may be asked for
    /// again; if they always might, one that nothing leads to would make every second a pass.
    pub(in crate::kernel) fn publish(
        &self,
        names: impl Iterator<Item = (u32, Option<Arc<str>>)>,
        forget: bool,
    ) {
        let mut state = self.state();
        state.names.clear();
        state.names.extend(names);
        state.wanted = false;
        if forget {
            state.asked.clear();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Names that a panic left behind are still names.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_asked_for_once_by_each_unknown_number() {
        let names = ContainerNames::new();
        assert!(!names.is_wanted());
        assert_eq!((names.name(7), names.is_wanted()), (None, true));
        names.publish([(8, None), (9, Some("web".into()))].into_iter(), false);
        assert!(!names.is_wanted());
        assert_eq!((names.name(8), names.name(9).as_deref()), (None, Some("web")));
        assert_eq!((names.inode("web"), names.inode("db")), (Some(9), None));
        assert_eq!((names.name(7), names.is_wanted()), (None, false), "the pass did not find it");
        names.publish(std::iter::empty(), true);
        assert_eq!((names.name(7), names.is_wanted()), (None, true));
        assert_eq!(names.inode("web"), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let names = ContainerNames::new();
        for inode in 0..10_000 {
            let _ = names.name(inode);
        }
        assert_eq!(names.state().asked.len(), ASKED);
    }
}
