//! The maps. Their sizes here are defaults, which the daemon sets before it loads the probes; the
//! tables, which are reached by their address, it makes itself.

use crate::{
    kernel::{constant, cpu, put_by_daemon},
    tally::inside,
};
use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, Stack},
};
use tcpmon_common::{
    Cell, CellKey, Control, Counters, Departure, Embryo, EnteredKey, FailureKey, LISTENER_PLACES,
    Learnt, ListenerPlace, Owner, Placeholder, RingEnds, ServiceCounts, ServicePlace, Slot, Socket,
    SocketRest, SocketSet, Table, TimeWaits,
};

/// The first value of a table, which the daemon makes: see `tcpmon_common::Table`.
macro_rules! table {
    ($table:ident of $value:ty) => {
        put_by_daemon::<{ Placeholder::Table(Table::$table).number() }>() as *mut $value
    };
}

/// What the daemon wants now.
#[inline(always)]
pub(crate) fn control() -> *mut Control {
    table!(Control of Control)
}

/// Every exact counter of this CPU. Not a map of the kernel's for each CPU: of such a value the
/// address has to be read first, here it can be reckoned.
#[inline(always)]
pub(crate) fn counters() -> Option<*mut Counters> {
    let cpu = u64::from(cpu());
    // The verifier does not know it on every kernel.
    if cpu >= constant!(cpus) {
        return None;
    }
    // SAFETY: inside the table.
    Some(unsafe { (table!(Counters of Counters)).add(cpu as usize) })
}

/// Where the socket with that cookie stands, if it does: see `crate::sockets`.
#[inline(always)]
pub(crate) fn socket_set(cookie: u64) -> *mut SocketSet {
    // SAFETY: inside the table.
    unsafe { (table!(SocketSets of SocketSet)).add(set_of(cookie)) }
}

/// What is seldom asked of the sockets there.
#[inline(always)]
pub(crate) fn socket_rest(cookie: u64) -> *mut SocketRest {
    // SAFETY: inside the table.
    unsafe { (table!(SocketRests of SocketRest)).add(set_of(cookie)) }
}

#[inline(always)]
fn set_of(cookie: u64) -> usize {
    (cookie & constant!(set_mask)) as usize
}

/// That place for a listener; the number is cut to be inside.
#[inline(always)]
pub(crate) fn listener_place(number: u64) -> *mut ListenerPlace {
    // SAFETY: inside the table.
    unsafe {
        (table!(Listeners of ListenerPlace))
            .add(inside::<{ LISTENER_PLACES as usize }>(number as usize))
    }
}

/// The sockets that found no room in their set.
#[map]
pub(crate) static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(65_536, 0);

/// Owners of listeners by `Sock::listener_mark`.
#[map]
pub(crate) static LISTENERS: HashMap<u64, Owner> = HashMap::with_max_entries(4_096, 0);

/// The accepted socket that waits for its second transition on this CPU: with but rare
/// exceptions that follows at once.
#[map]
pub(crate) static EMBRYO: PerCpuArray<Embryo> = PerCpuArray::with_max_entries(1, 0);

/// The exceptions (TCP Fast Open), by address of the `struct sock`.
#[map]
pub(crate) static EMBRYOS: LruHashMap<u64, Embryo> = LruHashMap::with_max_entries(1_024, 0);

/// Owners whose connections are counted: see `crate::services`.
#[map]
pub(crate) static SERVICES: Array<ServicePlace> = Array::with_max_entries(8_192, BPF_F_MMAPABLE);

/// How many of those places are held.
#[map]
pub(crate) static SERVICES_HELD: Array<u64> = Array::with_max_entries(1, 0);

/// Their connections: all places of one CPU, then those of the next.
#[map]
pub(crate) static SERVICE_COUNTS: Array<ServiceCounts> =
    Array::with_max_entries(8_192, BPF_F_MMAPABLE);

/// connect() calls that found no free port.
#[map]
pub(crate) static PORT_FAILURES: PerCpuHashMap<FailureKey, u64> =
    PerCpuHashMap::with_max_entries(4_096, 0);

/// Time-wait sockets that came and went, by inode of their network namespace.
#[map]
pub(crate) static NAMESPACES: PerCpuHashMap<u32, TimeWaits> =
    PerCpuHashMap::with_max_entries(1_024, 0);

/// Entries into the time-wait table by namespace and owner.
#[map]
pub(crate) static ENTERED: PerCpuHashMap<EnteredKey, u64> =
    PerCpuHashMap::with_max_entries(4_096, 0);

/// The time-wait socket whose timer was cancelled last on this CPU.
#[map]
pub(crate) static DEPARTURE: PerCpuArray<Departure> = PerCpuArray::with_max_entries(1, 0);

/// Which socket's timer to learn from, and what it taught.
#[map]
pub(crate) static LEARNT: Array<Learnt> = Array::with_max_entries(1, 0);

/// Transitions for the daemon: the places of all rings, one ring after the other.
#[map]
pub(crate) static RING_SLOTS: Array<Slot> = Array::with_max_entries(32_768, BPF_F_MMAPABLE);

/// How far each ring has been filled and read.
#[map]
pub(crate) static RING_ENDS: Array<RingEnds> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// By which the reader is woken: a number without a meaning.
#[map]
pub(crate) static BELL: RingBuf = RingBuf::with_byte_size(4_096, 0);

/// Sockets in the time-wait table, in groups: see `crate::cells`.
#[map]
pub(crate) static CELLS: Array<Cell> = Array::with_max_entries(32_768, BPF_F_MMAPABLE);

/// Which cell is whose.
#[map]
pub(crate) static CELL_OF: HashMap<CellKey, u32> = HashMap::with_max_entries(32_768, 0);

/// Cells that are nobody's; the lowest on top, so that the daemon need not look at those above.
#[map]
pub(crate) static FREE_CELLS: Stack<u32> = Stack::with_max_entries(32_768, 0);
