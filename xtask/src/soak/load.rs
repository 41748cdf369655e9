//! What the daemon is to see: a steady rate of connections in one namespace, and other namespaces
//! that come and go, with a few recipes in each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::Plan;
use crate::lab::{Addresses, Lab, LabError, Namespace, Options, Recipe};

/// A piece of the steady load, after which it is seen whether to go on.
const PIECE_SECONDS: u32 = 2;
/// Every so many pieces one lets the time-wait table overflow.
const OVERFLOWS: usize = 8;
/// Between two namespaces.
const BREATH: Duration = Duration::from_secs(1);
/// How often somebody who waits looks whether to stop.
const POLL: Duration = Duration::from_millis(20);

/// What is done in the namespaces that come and go: in each the next three.
const RECIPES: [Recipe; 14] = [
    Recipe::ClientFirst,
    Recipe::ServerFirst,
    Recipe::NamespaceRemoved,
    Recipe::SimultaneousClose,
    Recipe::HalfClose,
    Recipe::Exhausted,
    Recipe::ResetByClient,
    Recipe::ResetUnread,
    Recipe::Prefork,
    Recipe::Refused,
    Recipe::Destroyed,
    Recipe::NewIncarnation,
    Recipe::Reuseport,
    Recipe::DataAfterClose,
];
const IN_EACH: usize = 3;

/// What has been done so far.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Connections of the steady load.
    pub connections: u64,
    /// Namespaces that came and went.
    pub namespaces: u64,
    /// Pieces and recipes.
    pub steps: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Why the last of those did.
    pub why: Option<String>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicU64,
    namespaces: AtomicU64,
    steps: AtomicU64,
    failed: AtomicU64,
    why: std::sync::Mutex<Option<String>>,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }

    /// Makes a note of a step; whether it was taken. A kernel that cannot do a recipe is no
    /// failure.
    fn took<T>(&self, what: Recipe, done: Result<T, LabError>) -> Option<T> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        match done {
            Ok(done) => Some(done),
            Err(LabError::Unsupported(_)) => None,
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut why = self.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *why = Some(format!("{}: {error}", what.name()));
                None
            }
        }
    }

    fn pause(&self, length: Duration) {
        let mut left = length;
        while self.goes_on() && !left.is_zero() {
            let now = left.min(POLL);
            thread::sleep(now);
            left -= now;
        }
    }
}

/// The load; it ends when dropped.
pub(super) struct Load {
    shared: Arc<Shared>,
    namespace: Namespace,
    steady: Option<JoinHandle<Lab>>,
    /// After the end of the steady load, for the mark.
    lab: Option<Lab>,
    guests: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins.
    pub(super) fn start(plan: &Plan) -> Result<Self> {
        let options = Options { program: plan.lab.clone(), ..Options::default() };
        let mut lab = Lab::open(options.clone()).context("the lab")?;
        lab.set_pace(plan.rate);
        let namespace = lab.namespaces()[0].clone();
        let shared = Arc::<Shared>::default();
        let (of_steady, of_guests) = (Arc::clone(&shared), Arc::clone(&shared));
        let piece = u64::from(plan.rate) * u64::from(PIECE_SECONDS);
        let steady = thread::spawn(move || {
            for round in 1.. {
                if !of_steady.goes_on() {
                    break;
                }
                let recipe = if round % OVERFLOWS == 0 { Recipe::Churn } else { Recipe::TimeWait };
                match of_steady.took(recipe, lab.perform(recipe, Some(piece))) {
                    Some(_) => drop(of_steady.connections.fetch_add(piece, Ordering::Relaxed)),
                    None => of_steady.pause(BREATH),
                }
            }
            lab
        });
        let guests = thread::spawn(move || {
            let mut recipes = RECIPES.iter().copied().cycle();
            let mut families = [Addresses::Ipv4, Addresses::Ipv6].into_iter().cycle();
            while of_guests.goes_on() {
                let addresses = families.next().unwrap_or_default();
                let next: Vec<Recipe> = recipes.by_ref().take(IN_EACH).collect();
                let lab = Lab::open(Options { addresses, ..options.clone() });
                if let Some(mut lab) = of_guests.took(next[0], lab) {
                    for recipe in next {
                        let _told = of_guests.took(recipe, lab.perform(recipe, None));
                    }
                    let came = lab.inodes().len();
                    of_guests
                        .namespaces
                        .fetch_add(u64::try_from(came).unwrap_or_default(), Ordering::Relaxed);
                }
                of_guests.pause(BREATH);
            }
        });
        Ok(Self { shared, namespace, steady: Some(steady), lab: None, guests: Some(guests) })
    }

    /// Where the steady load is.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn told(&self) -> Told {
        let shared = &self.shared;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let why = shared.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Told {
            connections: read(&shared.connections),
            namespaces: read(&shared.namespaces),
            steps: read(&shared.steps),
            failed: read(&shared.failed),
            why: why.clone(),
        }
    }

    /// Ends it; its steady part's namespace stays.
    pub(super) fn stop(&mut self) -> Result<Told> {
        self.shared.stop.store(true, Ordering::Release);
        let ended = |_| anyhow!("a thread of the load panicked");
        if let Some(guests) = self.guests.take() {
            guests.join().map_err(ended)?;
        }
        if let Some(steady) = self.steady.take() {
            self.lab = Some(steady.join().map_err(ended)?);
        }
        Ok(self.told())
    }

    /// One connection more after the end, so that streams have something to tell.
    pub(super) fn mark(&mut self) -> Result<()> {
        let lab = self.lab.as_mut().context("the load has not been stopped")?;
        lab.perform(Recipe::Refused, Some(1)).context("the mark")?;
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // What is wrong with a load at the end has been told before.
        let _ended = self.stop();
    }
}
