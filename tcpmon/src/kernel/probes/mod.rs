//! Loading the probes, attaching them, and the handles to what they fill.

mod constants;
mod error;
mod object;
mod settings;
mod tables;

pub use error::ProbeError;
pub use settings::{MapSizes, Scope, TimeWaitMode};

pub(super) use error::refusal;
pub(super) use object::program;

use super::{
    census::Census,
    counters::CounterMaps,
    iterator,
    requirements::ProbeCheck,
    rings::Rings,
    sock_diag::{self, States},
};
use aya::{
    Ebpf,
    programs::{BtfTracePoint, Iter, ProgramError, links::FdLink},
};
use object::{
    OWNERS, STATE, TIMERS, census, field_offsets, kernel_types, load_object, load_owners,
    load_state, load_timer, rings, services, take, tw_timer_handler,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};
use tcpmon_common::Offsets;

/// The probes, attached until `links` is dropped.
pub struct Probes {
    /// Exact counters.
    pub counters: CounterMaps,
    /// Records, and what to tell the probes about them.
    pub rings: Rings,
    /// Counts all sockets of a network namespace.
    pub census: Census,
    /// Log lines of the probes.
    pub log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// How the time-wait table is watched: not as asked for where the kernel would not have it.
    pub time_wait: TimeWaitMode,
    /// The attached programs by name.
    pub programs: Vec<(&'static str, OwnedFd)>,
    /// What holds the programs to their hooks.
    pub links: Vec<FdLink>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

impl Probes {
    /// Loads and attaches the probes, and names the owners of the sockets that are open already.
    /// Where the kernel will not have the probes on timers, the time-wait table is watched without
    /// them, and where it will not list open files, those owners stay unknown: both are said, and
    /// all else is as exact as ever.
    ///
    /// # Errors
    ///
    /// Where this machine cannot run them, or the kernel refuses the one that counts: in one line,
    /// the whole of the verifier's words on the debug log.
    pub fn start(sizes: MapSizes, scope: Scope) -> Result<Self, ProbeError> {
        super::requirements::refuse()?;
        let offsets = field_offsets()?;
        match Self::attach(&offsets, sizes, scope) {
            Err(error) if scope.time_wait == TimeWaitMode::Exact && error.is_about_timers() => {
                log::warn!(
                    "{error}; without it TIME_WAIT is watched as by --time-wait sampled: its \
                     levels are right, and who entered and how sockets left is not told"
                );
                let scope = Scope { time_wait: TimeWaitMode::Sampled, ..scope };
                Self::attach(&offsets, sizes, scope)
            }
            done => done,
        }
    }

    fn attach(offsets: &Offsets, sizes: MapSizes, scope: Scope) -> Result<Self, ProbeError> {
        let handler = match scope.time_wait {
            TimeWaitMode::Exact => tw_timer_handler(offsets)?,
            TimeWaitMode::Sampled => 0,
        };
        let (mut ebpf, tables) = load_object(offsets, sizes, scope, handler)?;

        let types = kernel_types()?;
        load_state(&mut ebpf, &types)?;
        let owners = load_owners(&mut ebpf, &types);
        let timers: &[_] = if handler == 0 { &[] } else { &TIMERS };
        for (name, tracepoint) in timers {
            load_timer(&mut ebpf, &types, name, tracepoint)?;
        }
        // Twenty megabytes that are not needed again, given back before the maps are mapped: the
        // two are not to be there at once.
        drop(types);
        give_memory_back();

        // Before any socket is counted: the cells have to be there.
        let census = census(&mut ebpf, &tables)?;
        let (rings, ring_losses) = rings(&mut ebpf, &tables)?;
        let mut links = Vec::new();
        let mut programs = Vec::new();
        for name in [STATE].into_iter().chain(timers.iter().map(|(name, _)| *name)) {
            let probe: &mut BtfTracePoint = program(&mut ebpf, name)?;
            let link = probe.attach().and_then(|id| probe.take_link(id));
            links.push(FdLink::from(link.map_err(refusal("attach", name))?));
            programs.push((name, duplicate(probe.fd(), name)?));
        }
        if let Err(error) = owners.and_then(|()| adopt_open_sockets(&mut ebpf)) {
            log::warn!("{error}; without it sockets older than the daemon have no owner");
        }

        let log = aya_log::EbpfLogger::init(&mut ebpf)
            .inspect_err(|error| log::debug!("no log from the probes: {error}"))
            .ok();
        Ok(Self {
            counters: CounterMaps {
                counters: tables.counters.map()?,
                ring_losses,
                services: services(&mut ebpf)?,
                failures: take(&mut ebpf, "PORT_FAILURES")?,
                time_waits: take(&mut ebpf, "NAMESPACES")?,
                entered: take(&mut ebpf, "ENTERED")?,
                departures: take(&mut ebpf, "DEPARTURE")?,
            },
            rings,
            census,
            log,
            time_wait: scope.time_wait,
            programs,
            links,
        })
    }
}

/// Returns what loading needed to the system: glibc would keep it for ever.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only frees memory that is free already.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Loads each probe for itself, and tells what came of it.
pub fn try_each() -> Vec<ProbeCheck> {
    let load = |load: fn(&mut Ebpf, &aya::Btf) -> Result<(), ProbeError>| {
        let words = |error: ProbeError| error.to_string();
        let (mut ebpf, _tables) = field_offsets()
            .and_then(|offsets| load_object(&offsets, MapSizes::SMALL, Scope::default(), 0))
            .map_err(words)?;
        load(&mut ebpf, &kernel_types().map_err(words)?).map_err(|error| match error {
            ProbeError::Program { reason, .. } => reason,
            other => other.to_string(),
        })
    };
    vec![
        ProbeCheck {
            name: "tp_btf/inet_sock_set_state",
            purpose: "counts and reports every TCP state transition",
            without: None,
            result: load(load_state),
        },
        ProbeCheck {
            name: "iter/task_file",
            purpose: "names the owners of sockets older than the daemon",
            without: Some("sockets older than the daemon have no owner"),
            result: load(load_owners),
        },
        ProbeCheck {
            name: "tp_btf/timer_*",
            purpose: "tell how sockets enter and leave TIME_WAIT (--time-wait sampled does without)",
            without: Some("TIME_WAIT is watched as by --time-wait sampled"),
            result: load(|ebpf, types| {
                TIMERS.iter().try_for_each(|(name, at)| load_timer(ebpf, types, name, at))
            }),
        },
        ProbeCheck {
            name: "sock_diag",
            purpose: "lists sockets by destination and state",
            without: Some("tcpmon_sockets and what ports are taken by is not told"),
            result: sock_diag::list(States::BUT_TIME_WAIT, |_| {})
                .map_err(|error| format!("{error}; the kernel needs tcp_diag (modprobe tcp_diag)")),
        },
    ]
}

/// Runs the iterator once and unloads it.
fn adopt_open_sockets(ebpf: &mut Ebpf) -> Result<(), ProbeError> {
    let owners: &mut Iter = program(ebpf, OWNERS)?;
    let link =
        owners.attach().and_then(|id| owners.take_link(id)).map_err(refusal("attach", OWNERS))?;
    let run = |error: io::Error| ProbeError::Program {
        action: "run",
        probe: OWNERS,
        reason: error.to_string(),
    };
    let pass = link.into_file().map_err(|error| run(io::Error::other(error)))?;
    iterator::drain(pass).map_err(run)?;
    owners.unload().map_err(refusal("unload", OWNERS))
}

fn duplicate(
    fd: Result<&aya::programs::ProgramFd, ProgramError>,
    probe: &'static str,
) -> Result<OwnedFd, ProbeError> {
    let fd = fd.map_err(refusal("account for", probe))?;
    fd.as_fd().try_clone_to_owned().map_err(|error| ProbeError::Program {
        action: "account for",
        probe,
        reason: error.to_string(),
    })
}
