//! The groups of sockets in the time-wait table, as the probes keep them.
//!
//! To read them takes no system call, since they are mapped; to give one back that has been empty
//! for long takes two looks: at the first the key is taken away, so that no probe can find the cell
//! any more, and only at the next the cell is offered anew.

use super::{counters::absent_is_fine, mapped::Mapped};
use crate::model::census::{CellId, CountedGroup};
use aya::maps::{Array, HashMap, MapData, MapError, stack::Stack};
use std::{
    collections::HashMap as Table,
    io,
    time::{Duration, Instant},
};
use tcpmon_common::{Cell, CellKey};

/// How long a cell must have been empty to be given back. A probe holds a cell's number for less
/// than a millisecond.
const EMPTY_FOR: Duration = Duration::from_secs(10);

/// The same of a namespace that has gone: none of its sockets lives longer than that, whatever the
/// cell says (`TCP_TIMEWAIT_LEN`, and what the timer wheel is late by).
const GONE_FOR: Duration = Duration::from_mins(2);

/// After so many cells that were never used none is: they are taken from the lowest on.
const NEVER_USED: u32 = 256;

/// The cells.
pub struct Cells {
    mapped: Mapped<Cell>,
    len: u32,
    of: HashMap<MapData, CellKey, u32>,
    free: Stack<MapData, u32>,
    /// Empty cells, and what becomes of them.
    empty: Table<u32, Emptiness>,
    /// How often each cell has been given back; of those behind the end, never.
    turns: Vec<u32>,
}

/// What is known of a cell that is empty.
#[derive(Clone, Copy, Debug)]
struct Emptiness {
    /// So many had entered by then.
    entered: u64,
    since: Instant,
    /// Its key has been taken away.
    keyless: bool,
}

/// The sockets in the time-wait table that are counted in groups, by cookie of their namespace.
pub type Counted = Table<u64, Vec<CountedGroup>>;

impl Cells {
    /// Of the loaded maps; offers all cells.
    pub(super) fn new(
        cells: &Array<MapData, Cell>,
        of: HashMap<MapData, CellKey, u32>,
        mut free: Stack<MapData, u32>,
    ) -> io::Result<Self> {
        let len = cells.len();
        let mapped = Mapped::new(cells)?;
        for index in (0..len).rev() {
            free.push(index, 0).map_err(io::Error::other)?;
        }
        Ok(Self { mapped, len, of, free, empty: Table::new(), turns: Vec::new() })
    }

    /// What a cell has in common, if there is such a cell.
    pub(super) fn key(&self, number: u32) -> Option<CellKey> {
        self.mapped.get(number.checked_sub(1)?).map(|cell| cell.key)
    }

    /// All groups there are now.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut counted = Counted::new();
        for (number, cell) in self.used().filter(|(_, cell)| is_taken(cell)) {
            let turn = self.turns.get(number as usize).copied().unwrap_or(0);
            match CountedGroup::from_cell(CellId { number, turn }, &cell) {
                Ok(group) if group.sockets > 0 => {
                    counted.entry(cell.key.net_cookie).or_default().push(group);
                }
                Ok(_) => {}
                Err(error) => log::warn!("{error}"),
            }
        }
        counted
    }

    /// Gives cells back that have been empty for long, and those of namespaces that have gone:
    /// `is_present` is asked for their cookies.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let a map be changed.
    pub fn tidy(&mut self, now: Instant, is_present: impl Fn(u64) -> bool) -> Result<(), MapError> {
        let mut empty = Table::new();
        let used: Vec<(u32, Cell)> = self.used().collect();
        for (index, cell) in used {
            let gone = !is_present(cell.key.net_cookie);
            if !is_taken(&cell) || cell.sockets != 0 && !gone {
                continue;
            }
            let known = self.empty.get(&index).filter(|it| it.entered == cell.entered);
            let mut emptiness = known.copied().unwrap_or(Emptiness {
                entered: cell.entered,
                since: now,
                keyless: false,
            });
            let patience = if cell.sockets == 0 { EMPTY_FOR } else { GONE_FOR };
            if now.saturating_duration_since(emptiness.since) < patience {
                empty.insert(index, emptiness);
            } else if emptiness.keyless {
                let unused = CellKey { family: FREE, ..CellKey::default() };
                self.mapped.set(index, Cell { key: unused, sockets: 0, entered: 0 });
                let place = index as usize;
                self.turns.resize(self.turns.len().max(place + 1), 0);
                self.turns[place] = self.turns[place].wrapping_add(1);
                self.free.push(index, 0)?;
            } else {
                absent_is_fine(self.of.remove(&cell.key))?;
                emptiness.keyless = true;
                emptiness.since = now.checked_sub(patience).unwrap_or(now);
                empty.insert(index, emptiness);
            }
        }
        self.empty = empty;
        Ok(())
    }

    /// Cells that have ever been used, and a few more.
    fn used(&self) -> impl Iterator<Item = (u32, Cell)> {
        let mut unused = 0;
        (0..self.len).map_while(move |index| {
            let cell = self.mapped.get(index)?;
            unused = if cell.key == CellKey::default() { unused + 1 } else { 0 };
            (unused <= NEVER_USED).then_some((index, cell))
        })
    }
}

/// In place of an address family: the cell is offered anew.
const FREE: u8 = u8::MAX;

fn is_taken(cell: &Cell) -> bool {
    cell.key.family != FREE && cell.key.net_cookie != 0
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cells").field("len", &self.len).finish_non_exhaustive()
    }
}
