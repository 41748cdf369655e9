//! The BPF object: its programs and maps, and how they are loaded.

use super::{
    constants,
    error::{ProbeError, one_line, refusal, unmapped},
    settings::{MapSizes, Scope, TimeWaitMode},
    tables::Tables,
};
use crate::kernel::{
    cells::Cells,
    census::Census,
    offsets,
    requirements::Refusal,
    rings::{RingLosses, Rings},
    services::ServiceTable,
    sockets::SocketTable,
    tw_handler,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{BtfTracePoint, Iter},
};
use std::fs;
use tcpmon_common::{Constants, MAX_CELLS, MAX_SOCKETS, Offsets, RingShape, WAYS};

/// The probes as one BPF object, embedded so that the program is one file.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcpmon.bpf.o"));

/// The program on the tracepoint.
pub(super) const STATE: &str = "tcpmon_state";
/// The iterator over open files.
pub(super) const OWNERS: &str = "tcpmon_owners";
/// The programs on timers, each with its tracepoint. The start comes last, so that while they are
/// being attached no socket is seen to enter that would not be seen to leave.
pub(super) const TIMERS: [(&str, &str); 3] = [
    ("tcpmon_timer_expire", "timer_expire_entry"),
    ("tcpmon_timer_cancel", "timer_cancel"),
    ("tcpmon_timer_start", "timer_start"),
];

/// The field offsets, by our own reader.
pub(super) fn field_offsets() -> Result<Offsets, ProbeError> {
    Ok(offsets::of_running_kernel().map_err(Refusal::from)?)
}

/// The type information by which aya finds what to attach to: twenty megabytes, to be dropped soon.
pub(super) fn kernel_types() -> Result<aya::Btf, ProbeError> {
    aya::Btf::from_sys_fs().map_err(|error| ProbeError::Maps(one_line(&error)))
}

/// Loads the object and makes its maps.
///
/// Not while [`kernel_types`] are held: the loader reads them for itself, whether it needs them or
/// not, and both together would be the most memory that the daemon ever has.
pub(super) fn load_object(
    offsets: &Offsets,
    sizes: MapSizes,
    scope: Scope,
    handler: u64,
) -> Result<(Ebpf, Tables), ProbeError> {
    let sockets = sizes.sockets.clamp(1, MAX_SOCKETS);
    let sets = sockets.div_ceil(u32::try_from(WAYS).unwrap_or(1)).next_power_of_two();
    // Half of the places stay free, so that hardly an owner finds none.
    let services = sizes.services.clamp(1, 1 << 30).next_power_of_two() * 2;
    let cpus = possible_cpus()?;
    let cells = sizes.destinations.clamp(1, MAX_CELLS);
    let rings = ring_shape(sizes);
    let tables = Tables::new(cpus, sets)?;
    let object = constants::put(
        OBJECT,
        &Constants {
            tw_handler: handler,
            cpus: cpus.into(),
            offsets: *offsets,
            set_mask: tables.socket_sets.len() - 1,
            service_mask: services - 1,
            max_services: sizes.services,
            ring_size: rings.slots,
            ring_mask: rings.rings - 1,
            only_netns: scope.only_netns.unwrap_or(0),
            time_wait_sampled: u32::from(scope.time_wait == TimeWaitMode::Sampled),
            weakly_ordered: u32::from(!cfg!(target_arch = "x86_64")),
        },
        |table| tables.descriptor(table),
    )?;
    let ebpf = EbpfLoader::new()
        // Rust's compiler makes no relocations by types.
        .btf(None)
        .map_max_entries("RING_SLOTS", rings.all_slots())
        .map_max_entries("RING_ENDS", rings.rings)
        .map_max_entries("SOCKETS", sizes.sockets)
        .map_max_entries("LISTENERS", sizes.listeners)
        .map_max_entries("SERVICES", services)
        .map_max_entries("SERVICE_COUNTS", services.saturating_mul(cpus))
        .map_max_entries("PORT_FAILURES", sizes.failures)
        .map_max_entries("EMBRYOS", sizes.embryos)
        .map_max_entries("NAMESPACES", sizes.namespaces)
        .map_max_entries("ENTERED", sizes.services)
        .map_max_entries("CELLS", cells)
        .map_max_entries("CELL_OF", cells)
        .map_max_entries("FREE_CELLS", cells)
        // The allocator aligns so much memory as ELF wants it; the loader says so if it does not.
        .load(&object)
        .map_err(|error| ProbeError::Maps(one_line(&error)))?;
    Ok((ebpf, tables))
}

/// How many numbers of CPUs there may be, those included that nobody has (the kernel's
/// `nr_cpu_ids`).
fn possible_cpus() -> Result<u32, ProbeError> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let list = fs::read_to_string(POSSIBLE)
        .map_err(|error| ProbeError::Maps(format!("cannot read {POSSIBLE}: {error}")))?;
    after_the_last(&list)
        .ok_or_else(|| ProbeError::Maps(format!("{POSSIBLE} does not list CPUs: {list:?}")))
}

/// The number after the last of a list of ranges in order, as `0-3,8-11`.
fn after_the_last(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse::<u32>().ok()?.checked_add(1)
}

/// How many rings, for the CPUs that are online; one that comes later shares another's.
fn ring_shape(sizes: MapSizes) -> RingShape {
    // By their numbers, of which some may be missing.
    let last = aya::util::online_cpus().ok().and_then(|cpus| cpus.into_iter().max());
    RingShape::new(sizes.ring_bytes, last.unwrap_or(0).saturating_add(1))
}

/// Connections by owner.
pub(super) fn services(ebpf: &mut Ebpf) -> Result<ServiceTable, ProbeError> {
    let (places, counts) = (take(ebpf, "SERVICES")?, take(ebpf, "SERVICE_COUNTS")?);
    ServiceTable::new(&places, &counts).map_err(unmapped)
}

/// The rings, for their only reader, and what they lost, for everybody else.
pub(super) fn rings(ebpf: &mut Ebpf, tables: &Tables) -> Result<(Rings, RingLosses), ProbeError> {
    let (slots, ends) = (take(ebpf, "RING_SLOTS")?, take(ebpf, "RING_ENDS")?);
    let bell = take(ebpf, "BELL")?;
    let control = tables.control.map()?;
    let losses = RingLosses::new(&ends);
    losses
        .and_then(|losses| Ok((Rings::new(&slots, &ends, control, bell)?, losses)))
        .map_err(unmapped)
}

/// The function that the timers of time-wait sockets call.
pub(super) fn tw_timer_handler(offsets: &Offsets) -> Result<u64, ProbeError> {
    match tw_handler::from_kallsyms() {
        Ok(Some(address)) => return Ok(address),
        Ok(None) => log::debug!("/proc/kallsyms hides its addresses"),
        Err(error) => log::debug!("cannot read /proc/kallsyms: {error}"),
    }
    let (mut ebpf, _tables) = load_object(offsets, MapSizes::SMALL, Scope::default(), 0)?;
    tw_handler::learn(&mut ebpf, &kernel_types()?)
}

pub(super) fn load_state(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<(), ProbeError> {
    program::<BtfTracePoint>(ebpf, STATE)?
        .load("inet_sock_set_state", types)
        .map_err(refusal("load", STATE))
}

pub(super) fn load_timer(
    ebpf: &mut Ebpf,
    types: &aya::Btf,
    name: &'static str,
    tracepoint: &str,
) -> Result<(), ProbeError> {
    program::<BtfTracePoint>(ebpf, name)?.load(tracepoint, types).map_err(refusal("load", name))
}

pub(super) fn load_owners(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<(), ProbeError> {
    program::<Iter>(ebpf, OWNERS)?.load("task_file", types).map_err(refusal("load", OWNERS))
}

/// What counts sockets, by what the probes keep of them.
pub(super) fn census(ebpf: &mut Ebpf, tables: &Tables) -> Result<Census, ProbeError> {
    let sets = tables.socket_sets.map()?;
    let rests = tables.socket_rests.map()?;
    let overflow = take(ebpf, "SOCKETS")?;
    let (cells, of, free) =
        (take(ebpf, "CELLS")?, take(ebpf, "CELL_OF")?, take(ebpf, "FREE_CELLS")?);
    let table = SocketTable::new(sets, rests, overflow);
    Ok(Census::new(table, Cells::new(&cells, of, free).map_err(unmapped)?))
}

/// A program of the object.
pub(in crate::kernel) fn program<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, ProbeError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(ProbeError::Object(name))
}

/// A map of the object, taken out of it.
pub(super) fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, ProbeError> {
    ebpf.take_map(name).and_then(|map| M::try_from(map).ok()).ok_or(ProbeError::Object(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_cpu_has_a_place() {
        let table =
            [("0\n", Some(1)), ("0-3\n", Some(4)), ("0-3,8-11", Some(12)), ("", None), ("x", None)];
        for (list, numbers) in table {
            assert_eq!(after_the_last(list), numbers, "{list:?}");
        }
        let cpus = aya::util::nr_cpus().expect("CPUs");
        assert!(possible_cpus().expect("CPUs") as usize >= cpus);
    }
}
