//! The survey: what sockets there are in each network namespace, whose and where to, and whether
//! the ledger of TIME_WAIT agrees with the kernel.
//!
//! A thread of its own goes from namespace to namespace, since a thread is in one at a time. It
//! goes where something has happened, when somebody asks or some time has passed, and takes no more
//! of a CPU than it was given: counters are read at each visit, a census, which costs the more the
//! more sockets there are, only as the budget allows.

mod counting;
mod findings;
mod following;
mod reconciling;
mod round;

pub use findings::{Findings, Found};

use super::{heart::Pulse, names::Names, pipeline::Health};
use crate::kernel::{
    census::Census,
    counters::CounterMaps,
    namespaces::{self, Namespaces},
    privileges::{self, Role},
};
use round::Surveyor;
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often the survey looks whether something has happened while nobody asks.
const EVERY: Duration = Duration::from_secs(5);

/// What the survey works with.
pub struct Sources {
    /// Counts sockets.
    pub census: Census,
    /// The probes' counters.
    pub counters: Arc<Mutex<CounterMaps>>,
    /// Names of namespaces and owners.
    pub names: Arc<Names>,
    /// Which namespaces are visited.
    pub scope: namespaces::Scope,
    /// How many of them at most.
    pub most_namespaces: usize,
    /// The probes watch the time-wait table, so there is a ledger to be kept.
    pub exact: bool,
    /// Share of one CPU that the survey may take.
    pub share: f64,
}

/// Where the survey is asked, and its findings are read.
#[derive(Clone, Debug)]
pub struct Survey(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Rung when the survey is asked, has looked, or is to end.
    bell: Condvar,
    pulse: Pulse,
}

#[derive(Debug, Default)]
struct State {
    /// How often somebody asked.
    asked: u64,
    /// Up to which of these the survey has looked since.
    answered: u64,
    stop: bool,
    findings: Arc<Findings>,
}

impl Survey {
    /// The latest findings, after the survey has had the time to look at what has changed.
    #[must_use]
    pub fn ask(&self, patience: Duration) -> Arc<Findings> {
        let mut state = self.state();
        state.asked += 1;
        let wanted = state.asked;
        self.0.bell.notify_all();
        let waited = self
            .0
            .bell
            .wait_timeout_while(state, patience, |state| state.answered < wanted && !state.stop);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.findings)
    }

    /// The latest findings.
    #[must_use]
    pub fn findings(&self) -> Arc<Findings> {
        Arc::clone(&self.state().findings)
    }

    /// Beats with every namespace that is looked at, and every round.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.0.pulse.clone()
    }

    /// Ends the survey, after the visit that it is on.
    pub fn stop(&self) {
        self.state().stop = true;
        self.0.bell.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Findings that a panic left behind are still findings.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do; `None` at the end. Returns how far it will be
    /// answered.
    fn next(&self, asked: u64) -> Option<u64> {
        let state = self.state();
        let idle = |state: &mut State| state.asked == asked && !state.stop;
        let waited = self.0.bell.wait_timeout_while(state, EVERY, idle);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!state.stop).then_some(state.asked)
    }

    /// Shows what was found; `answered`: to all who had asked by then.
    fn publish(&self, answered: Option<u64>, findings: Findings) {
        let mut state = self.state();
        state.findings = Arc::new(findings);
        if let Some(answered) = answered {
            state.answered = answered;
            self.0.bell.notify_all();
        }
    }
}

/// Starts the survey; its first look begins at once.
///
/// # Errors
///
/// Where no thread can be started.
pub fn start(sources: Sources, health: Health) -> io::Result<(Survey, JoinHandle<()>)> {
    let survey = Survey(Arc::new(Shared {
        state: Mutex::default(),
        bell: Condvar::new(),
        pulse: Pulse::default(),
    }));
    let shared = survey.clone();
    let work = move || {
        privileges::shed(Role::Survey);
        let containers = Arc::clone(sources.names.containers());
        let namespaces = Namespaces::new(sources.scope, containers, sources.most_namespaces);
        let mut surveyor = match Surveyor::new(sources, namespaces, Instant::now()) {
            Ok(surveyor) => surveyor,
            Err(error) => {
                log::error!("there is no survey of sockets: {error}");
                shared.stop();
                return;
            }
        };
        let mut asked = 0;
        loop {
            shared.0.pulse.beat();
            let is_over = || {
                shared.0.pulse.beat();
                shared.state().stop
            };
            // The kernel's counters first, everywhere: they are quickly read, while a census may
            // take longer than whoever asked will wait.
            surveyor.reconcile(Instant::now(), &is_over);
            shared.publish(None, surveyor.findings(Instant::now()));
            surveyor.count(Instant::now(), &is_over);
            shared.publish(Some(asked), surveyor.findings(Instant::now()));
            match shared.next(asked) {
                Some(next) => asked = next,
                None => return,
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name("tcpmon-survey".to_owned())
        .spawn(move || health.watch(work))?;
    Ok((survey, thread))
}
