//! Taking a census: all TCP sockets of a network namespace, counted in the kernel.

use super::{iterator::BpfIterator, mapped::Mapped};
use crate::model::census::{KindCount, SocketGroup, UnknownKind, kinds};
use aya::maps::{Array, MapData};
use rustix::time::{ClockId, clock_gettime};
use std::{
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};
use tcpmon_common::{CensusCell, CensusControl};

/// Why there is no census.
#[derive(Debug, thiserror::Error)]
pub enum CensusError {
    /// The kernel would not run the iterator, or not to its end.
    #[error("cannot count the sockets of a network namespace: {0}; see `tcpmon check`")]
    Run(#[source] io::Error),
    /// The probes are others than this program's.
    #[error(transparent)]
    Unknown(#[from] UnknownKind),
    /// A map is not as the object has it.
    #[error("the embedded object has no place for a census: it was built from other sources")]
    Maps,
}

/// All sockets of a namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The sockets in groups, in no order. With `unplaced` they are all there are.
    pub groups: Vec<SocketGroup>,
    /// All sockets by kind; exact, whether or not there was room for their groups.
    pub totals: Vec<KindCount>,
    /// Those of them that are in no group, because all cells were in use.
    pub unplaced: Vec<KindCount>,
    /// CPU time that the census took: the kernel's and this program's.
    pub cpu: Duration,
    /// How long it took.
    pub wall: Duration,
}

impl Taken {
    /// All sockets.
    #[must_use]
    pub fn sockets(&self) -> u64 {
        self.totals.iter().map(|count| count.sockets).sum()
    }
}

/// Counts sockets, one namespace at a time.
#[derive(Debug)]
pub struct Census {
    iterator: BpfIterator,
    control: Mapped<CensusControl>,
    cells: Mapped<CensusCell>,
}

impl Census {
    /// Of the loaded program and its maps.
    pub(super) fn new(
        program: BorrowedFd<'_>,
        control: &Array<MapData, CensusControl>,
        cells: &Array<MapData, CensusCell>,
    ) -> io::Result<Self> {
        Ok(Self {
            iterator: BpfIterator::new(program)?,
            control: Mapped::new(control)?,
            cells: Mapped::new(cells)?,
        })
    }

    /// Counts all sockets of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If the kernel does not run the iterator to its end: for want of memory, say.
    pub fn take(&mut self) -> Result<Taken, CensusError> {
        let (begun, cpu) = (Instant::now(), thread_cpu_time());
        self.clear()?;
        self.iterator.run().map_err(CensusError::Run)?;
        let mut taken = self.read()?;
        taken.cpu = thread_cpu_time().saturating_sub(cpu);
        taken.wall = begun.elapsed();
        Ok(taken)
    }

    /// Begins a census: what the cells have is of the one before, and void.
    fn clear(&mut self) -> Result<(), CensusError> {
        let before = self.control.get(0).ok_or(CensusError::Maps)?;
        // At one census a second it begins anew after 136 years; 0 is for places never used.
        let generation = before.generation.wrapping_add(1).max(1);
        let begun = self.control.set(0, CensusControl::begin(generation));
        if begun { Ok(()) } else { Err(CensusError::Maps) }
    }

    /// What the iterator has left.
    fn read(&self) -> Result<Taken, CensusError> {
        let control = self.control.get(0).ok_or(CensusError::Maps)?;
        let groups = (0..control.cells)
            .map_while(|index| self.cells.get(index))
            .map(|cell| SocketGroup::from_cell(&cell))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Taken {
            groups,
            totals: kinds(&control.sockets)?,
            unplaced: kinds(&control.unplaced)?,
            ..Taken::default()
        })
    }
}

/// CPU time of this thread, in the kernel too: an iterator runs in the thread that reads it.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}
