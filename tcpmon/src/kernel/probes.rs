//! Loading the probes, attaching them, and the handles to what they fill.

use super::{
    census::Census,
    iterator, offsets,
    requirements::{ProbeCheck, Refusal},
    tw_handler,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::{BtfTracePoint, Iter, ProgramError, links::FdLink},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};
use tcpmon_common::{
    Control, Counters, EnteredKey, FailureKey, MAX_CELLS, Offsets, ServiceCounts, ServiceKey,
    TimeWaits, WAYS,
};

/// The probes as one BPF object, embedded so that the program is one file.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcpmon.bpf.o"));

/// The program on the tracepoint.
const STATE: &str = "tcpmon_state";
/// The iterator over open files.
const OWNERS: &str = "tcpmon_owners";
/// The programs on timers, each with its tracepoint. The start comes last, so that while they are
/// being attached no socket is seen to enter that would not be seen to leave.
const TIMERS: [(&str, &str); 3] = [
    ("tcpmon_timer_expire", "timer_expire_entry"),
    ("tcpmon_timer_cancel", "timer_cancel"),
    ("tcpmon_timer_start", "timer_start"),
];

/// How the time-wait table is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeWaitMode {
    /// By the timers of its sockets: each that enters, and how it leaves
    #[default]
    Exact,
    /// By looking at it now and then, without probes on timers
    Sampled,
}

/// What to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// How the time-wait table is watched.
    pub time_wait: TimeWaitMode,
    /// Inode of the only network namespace whose time-wait table is watched; `None`: all.
    pub only_netns: Option<u32>,
}
/// The iterator over sockets.
const CENSUS: &str = "tcpmon_census";

/// How much the probes may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Ring buffer, in bytes: rounded up to a power of two of at least a page.
    pub ring_bytes: u32,
    /// Sockets whose owner and present state are kept.
    pub sockets: u32,
    /// Listening sockets.
    pub listeners: u32,
    /// Owners whose connections are counted apart.
    pub services: u32,
    /// (destination, owner) pairs whose port failures are counted apart.
    pub failures: u32,
    /// Accepted sockets that wait for their second transition.
    pub embryos: u32,
    /// Network namespaces whose time-wait sockets are counted.
    pub namespaces: u32,
    /// Groups of sockets that a census counts apart: at most [`MAX_CELLS`].
    pub destinations: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            ring_bytes: 4 << 20,
            sockets: 131_072,
            listeners: 4_096,
            services: 4_096,
            failures: 4_096,
            embryos: 1_024,
            namespaces: 1_024,
            destinations: 32_768,
        }
    }
}

/// Why the probes do not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// This machine cannot run them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel would not take the object's maps.
    #[error(
        "cannot create the probes' maps: {0}; see `tcpmon check`, or lower the --max-... options"
    )]
    Maps(String),
    /// The kernel would not take a program.
    #[error(
        "cannot {action} the probe {probe}: {reason}; see `tcpmon check` and --log-level debug"
    )]
    Program {
        /// What was tried: load, attach.
        action: &'static str,
        /// Which.
        probe: &'static str,
        /// The kernel's answer, in one line.
        reason: String,
    },
    /// The timers of time-wait sockets cannot be told from others.
    #[error(
        "cannot tell the timers of time-wait sockets from others: /proc/kallsyms hides \
         tw_timer_handler, and {0}; set kernel.kptr_restrict to 1, or use --time-wait sampled"
    )]
    Handler(String),
    /// A map or program is not in the object.
    #[error("the embedded object has no {0}: it was built from other sources than this program")]
    Object(&'static str),
}

/// The probes, attached until `links` is dropped.
pub struct Probes {
    /// What to tell the probes.
    pub control: Array<MapData, Control>,
    /// Exact counters.
    pub counters: PerCpuArray<MapData, Counters>,
    /// Records lost for want of room on the ring.
    pub ring_lost: PerCpuArray<MapData, u64>,
    /// The same, for the reader.
    pub reader_lost: PerCpuArray<MapData, u64>,
    /// Connections by owner.
    pub services: PerCpuHashMap<MapData, ServiceKey, ServiceCounts>,
    /// Port failures by destination and owner.
    pub failures: PerCpuHashMap<MapData, FailureKey, u64>,
    /// Time-wait sockets that came and went, by inode of their network namespace.
    pub time_waits: PerCpuHashMap<MapData, u32, TimeWaits>,
    /// Entries into the time-wait table by namespace and owner.
    pub entered: PerCpuHashMap<MapData, EnteredKey, u64>,
    /// Records.
    pub events: RingBuf<MapData>,
    /// Counts all sockets of a network namespace.
    pub census: Census,
    /// Log lines of the probes.
    pub log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
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
    ///
    /// # Errors
    ///
    /// Where this machine cannot run them, or the kernel refuses one: in one line, the whole of
    /// the verifier's words on the debug log.
    pub fn start(sizes: MapSizes, scope: Scope) -> Result<Self, ProbeError> {
        super::requirements::refuse()?;
        let (offsets, types) = kernel_types()?;
        let handler = match scope.time_wait {
            TimeWaitMode::Exact => tw_timer_handler(&offsets, &types)?,
            TimeWaitMode::Sampled => 0,
        };
        let mut ebpf = load_object(&offsets, &types, sizes, scope, handler)?;

        load_state(&mut ebpf, &types)?;
        load_owners(&mut ebpf, &types)?;
        let timers: &[_] = if handler == 0 { &[] } else { &TIMERS };
        for (name, tracepoint) in timers {
            load_timer(&mut ebpf, &types, name, tracepoint)?;
        }
        load_census(&mut ebpf, &types)?;
        // Twenty megabytes that are not needed again.
        drop(types);

        let mut links = Vec::new();
        let mut programs = Vec::new();
        for name in [STATE].into_iter().chain(timers.iter().map(|(name, _)| *name)) {
            let probe: &mut BtfTracePoint = program(&mut ebpf, name)?;
            let link = probe.attach().and_then(|id| probe.take_link(id));
            links.push(FdLink::from(link.map_err(refusal("attach", name))?));
            programs.push((name, duplicate(probe.fd(), name)?));
        }
        adopt_open_sockets(&mut ebpf)?;
        let census = census(&mut ebpf)?;

        give_memory_back();

        let log = aya_log::EbpfLogger::init(&mut ebpf)
            .inspect_err(|error| log::debug!("no log from the probes: {error}"))
            .ok();
        Ok(Self {
            reader_lost: PerCpuArray::try_from(second_handle(&ebpf, "RING_LOST")?)
                .map_err(|_| ProbeError::Object("RING_LOST"))?,
            control: take(&mut ebpf, "CONTROL")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            ring_lost: take(&mut ebpf, "RING_LOST")?,
            services: take(&mut ebpf, "SERVICES")?,
            failures: take(&mut ebpf, "PORT_FAILURES")?,
            time_waits: take(&mut ebpf, "NAMESPACES")?,
            entered: take(&mut ebpf, "ENTERED")?,
            events: take(&mut ebpf, "EVENTS")?,
            census,
            log,
            programs,
            links,
        })
    }
}

/// The function that the timers of time-wait sockets call.
fn tw_timer_handler(offsets: &Offsets, types: &aya::Btf) -> Result<u64, ProbeError> {
    match tw_handler::from_kallsyms() {
        Ok(Some(address)) => return Ok(address),
        Ok(None) => log::debug!("/proc/kallsyms hides its addresses"),
        Err(error) => log::debug!("cannot read /proc/kallsyms: {error}"),
    }
    let mut ebpf = load_object(offsets, types, MapSizes::default(), Scope::default(), 0)?;
    tw_handler::learn(&mut ebpf, types)
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
        let (offsets, types) = kernel_types().map_err(|error| error.to_string())?;
        let mut ebpf = load_object(&offsets, &types, MapSizes::default(), Scope::default(), 0)
            .map_err(|error| error.to_string())?;
        load(&mut ebpf, &types).map_err(|error| match error {
            ProbeError::Program { reason, .. } => reason,
            other => other.to_string(),
        })
    };
    vec![
        ProbeCheck {
            name: "tp_btf/inet_sock_set_state",
            purpose: "counts and reports every TCP state transition",
            result: load(load_state),
        },
        ProbeCheck {
            name: "iter/task_file",
            purpose: "names the owners of sockets older than the daemon",
            result: load(load_owners),
        },
        ProbeCheck {
            name: "tp_btf/timer_*",
            purpose: "tell how sockets enter and leave TIME_WAIT",
            result: load(|ebpf, types| {
                TIMERS.iter().try_for_each(|(name, at)| load_timer(ebpf, types, name, at))
            }),
        },
        ProbeCheck {
            name: "iter/tcp",
            purpose: "counts sockets by destination, state and owner",
            result: load(load_census),
        },
    ]
}

/// The field offsets, by our own reader, and the type information that aya needs to load.
fn kernel_types() -> Result<(Offsets, aya::Btf), ProbeError> {
    let offsets = offsets::of_running_kernel().map_err(Refusal::from)?;
    let types = aya::Btf::from_sys_fs().map_err(|error| ProbeError::Maps(one_line(&error)))?;
    Ok((offsets, types))
}

fn load_object(
    offsets: &Offsets,
    types: &aya::Btf,
    sizes: MapSizes,
    scope: Scope,
    handler: u64,
) -> Result<Ebpf, ProbeError> {
    let sets = sizes.sockets.div_ceil(u32::try_from(WAYS).unwrap_or(1)).max(1);
    let sets = sets.checked_next_power_of_two().unwrap_or(1 << 31);
    let set_mask = sets - 1;
    let sampled = u32::from(scope.time_wait == TimeWaitMode::Sampled);
    let only_netns = scope.only_netns.unwrap_or(0);
    let cells = sizes.destinations.clamp(1, MAX_CELLS);
    // Four places for each cell: then there is one in the eight that a key looks at, and even more
    // surely in the sixteen. Two values at least, as it looks at two.
    let index_mask = cells.div_ceil(2).next_power_of_two().max(2) - 1;
    let ring_bytes = sizes.ring_bytes.max(page_size()).checked_next_power_of_two();
    EbpfLoader::new()
        .btf(Some(types))
        .override_global("OFFSETS", offsets, true)
        .override_global("SET_MASK", &set_mask, true)
        .override_global("TW_HANDLER", &handler, true)
        .override_global("TIME_WAIT_SAMPLED", &sampled, true)
        .override_global("ONLY_NETNS", &only_netns, true)
        .override_global("CENSUS_MASK", &index_mask, true)
        .map_max_entries("SOCKET_SETS", sets)
        .map_max_entries("EVENTS", ring_bytes.unwrap_or(1 << 31))
        .map_max_entries("SOCKETS", sizes.sockets)
        .map_max_entries("LISTENERS", sizes.listeners)
        .map_max_entries("SERVICES", sizes.services)
        .map_max_entries("PORT_FAILURES", sizes.failures)
        .map_max_entries("EMBRYOS", sizes.embryos)
        .map_max_entries("NAMESPACES", sizes.namespaces)
        .map_max_entries("ENTERED", sizes.services)
        .map_max_entries("CENSUS_CELLS", cells)
        .map_max_entries("CENSUS_INDEX", index_mask + 1)
        .load(OBJECT)
        .map_err(|error| ProbeError::Maps(one_line(&error)))
}

fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(4096)
}

fn load_state(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<(), ProbeError> {
    program::<BtfTracePoint>(ebpf, STATE)?
        .load("inet_sock_set_state", types)
        .map_err(refusal("load", STATE))
}

fn load_timer(
    ebpf: &mut Ebpf,
    types: &aya::Btf,
    name: &'static str,
    tracepoint: &str,
) -> Result<(), ProbeError> {
    program::<BtfTracePoint>(ebpf, name)?.load(tracepoint, types).map_err(refusal("load", name))
}

fn load_owners(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<(), ProbeError> {
    program::<Iter>(ebpf, OWNERS)?.load("task_file", types).map_err(refusal("load", OWNERS))
}

fn load_census(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<(), ProbeError> {
    program::<Iter>(ebpf, CENSUS)?.load("tcp", types).map_err(refusal("load", CENSUS))
}

/// The handle to the iterator over sockets.
fn census(ebpf: &mut Ebpf) -> Result<Census, ProbeError> {
    let (control, cells) = (take(ebpf, "CENSUS")?, take(ebpf, "CENSUS_CELLS")?);
    let iterator: &mut Iter = program(ebpf, CENSUS)?;
    let fd = iterator.fd().map_err(refusal("attach", CENSUS))?.as_fd();
    Census::new(fd, &control, &cells).map_err(|error| ProbeError::Program {
        action: "attach",
        probe: CENSUS,
        reason: error.to_string(),
    })
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

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, ProbeError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(ProbeError::Object(name))
}

fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, ProbeError> {
    ebpf.take_map(name).and_then(|map| M::try_from(map).ok()).ok_or(ProbeError::Object(name))
}

/// Another handle to a map, for another thread.
fn second_handle(ebpf: &Ebpf, name: &'static str) -> Result<Map, ProbeError> {
    let map = ebpf.map(name).ok_or(ProbeError::Object(name))?;
    let Map::PerCpuArray(data) = map else { return Err(ProbeError::Object(name)) };
    let fd = data.fd().as_fd().try_clone_to_owned();
    fd.map_err(|error| ProbeError::Maps(error.to_string()))
        .and_then(|fd| MapData::from_fd(fd).map_err(|error| ProbeError::Maps(one_line(&error))))
        .map(Map::PerCpuArray)
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

fn refusal(action: &'static str, probe: &'static str) -> impl Fn(ProgramError) -> ProbeError {
    move |error| {
        let reason = if let ProgramError::LoadError { verifier_log, io_error } = &error {
            let words = verifier_log.to_string();
            log::debug!("the verifier on {probe}:\n{words}");
            verdict(&words)
                .map_or_else(|| io_error.to_string(), |why| format!("{io_error} ({why})"))
        } else {
            one_line(&error)
        };
        ProbeError::Program { action, probe, reason }
    }
}

/// The line of the verifier's log that says why: the last one before its statistics.
fn verdict(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    log.lines().map(str::trim).rfind(|line| {
        !line.is_empty() && !STATISTICS.iter().any(|statistic| line.starts_with(statistic))
    })
}

/// An error with its causes, without the verifier's pages.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = next.source();
    }
    line.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_s_reason_is_its_last_word_before_the_statistics() {
        let log = "reg type unsupported for arg#0\n41: (0f) r2 += r1\n\
                   math between map_value pointer and register is not allowed\n\
                   verification time 836 usec\nstack depth 200\nprocessed 113 insns\n\n";
        assert_eq!(
            verdict(log),
            Some("math between map_value pointer and register is not allowed")
        );
        assert_eq!(verdict("processed 3 insns\n"), None);
    }
}
