//! Taking a census: the TCP sockets of a network namespace, in groups.
//!
//! What the probes count themselves, sockets in the time-wait table, is left out where they count
//! all of them: the kernel then walks past a million of those without telling one.

use super::{
    cells::{Cells, Counted},
    clock,
    sock_diag::{self, Listed, States},
    sockets::SocketTable,
};
use crate::model::{
    census::{SocketGroup, SocketKind},
    levels::Groups,
    ports::PortRange,
};
use aya::maps::MapError;
use rustix::time::ClockId;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    time::{Duration, Instant},
};
use tcpmon_common::{ServiceKey, Socket, TcpState, flags};

/// Since when a socket in CLOSE_WAIT is one that has been forgotten rather than one that is about
/// to be closed.
const OLD: Duration = Duration::from_mins(1);

/// Why there is no census.
#[derive(Debug, thiserror::Error)]
pub enum CensusError {
    /// The kernel would not list its sockets, or not to the end.
    #[error(
        "cannot list the sockets of a network namespace: {0}; the kernel needs tcp_diag \
         (modprobe tcp_diag)"
    )]
    List(#[source] io::Error),
    /// What the probes keep could not be read.
    #[error("cannot read what the probes keep of sockets: {0}")]
    Map(#[from] MapError),
}

/// The sockets of a namespace at one moment.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Sockets that the probes do not count, in groups. Those in the time-wait table are here
    /// where the probes do not know them: they are older, or there was no room.
    pub groups: Groups,
    /// Of the groups that the probes count, the sockets that are in substate FIN_WAIT2.
    pub counted_fin_wait2: Groups,
    /// Sockets in CLOSE_WAIT for more than a minute, by owner.
    pub old_close_wait: HashMap<Option<ServiceKey>, u64>,
    /// Sockets that will be among those if nothing happens.
    pub young_close_wait: u64,
    /// Ports that a bind() owns.
    pub bound: BTreeSet<u16>,
    /// Sockets that were listed.
    pub listed: u64,
    /// CPU time that the census took: the kernel's and this program's.
    pub cpu: Duration,
    /// How long it took.
    pub wall: Duration,
}

/// Counts sockets, one namespace at a time.
pub struct Census {
    table: SocketTable,
    cells: Cells,
    begun: Duration,
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Census").field("cells", &self.cells).finish_non_exhaustive()
    }
}

impl Census {
    /// By what the probes keep.
    pub(super) fn new(table: SocketTable, cells: Cells) -> Self {
        Self { table, cells, begun: clock::of_probes() }
    }

    /// The sockets in the time-wait table that the probes count, of all namespaces.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.cells.counted()
    }

    /// Gives back what the probes need no more; see [`Cells::tidy`].
    ///
    /// # Errors
    ///
    /// Where the kernel does not let a map be changed.
    pub fn tidy(&mut self, now: Instant, is_present: impl Fn(u64) -> bool) -> Result<(), MapError> {
        self.cells.tidy(now, is_present)
    }

    /// Counts the sockets of the calling thread's network namespace; `whole`: those in TIME_WAIT
    /// too, which otherwise the probes are held to know. `range`: where connect() chooses ports.
    ///
    /// # Errors
    ///
    /// If the kernel does not list them.
    pub fn take(&mut self, whole: bool, range: Option<PortRange>) -> Result<Taken, CensusError> {
        let (begun, cpu) = (Instant::now(), clock::read(ClockId::ThreadCPUTime));
        self.table.look();
        let mut taken = Taken::default();
        let mut listening = HashSet::new();
        let now = clock::of_probes();
        let states = if whole { States::ALL } else { States::BUT_TIME_WAIT };
        sock_diag::list(states, |socket| {
            taken.listed += 1;
            self.note(&socket, range, &mut listening, now, &mut taken);
        })
        .map_err(CensusError::List)?;
        taken.cpu = clock::read(ClockId::ThreadCPUTime).saturating_sub(cpu);
        taken.wall = begun.elapsed();
        Ok(taken)
    }

    fn note(
        &self,
        socket: &Listed,
        range: Option<PortRange>,
        listening: &mut HashSet<u16>,
        now: Duration,
        taken: &mut Taken,
    ) {
        let mut state = socket.state;
        if matches!(state, TcpState::Close | TcpState::BoundInactive) {
            if socket.sport != 0 {
                taken.bound.insert(socket.sport);
            }
            return;
        }
        let kept = self.table.find(socket.cookie);
        if state == TcpState::SynRecv && kept.is_none() && !socket.has_inode {
            state = TcpState::NewSynRecv;
        }
        if socket.in_time_wait_table
            && let Some(kept) = kept.filter(|it| it.present.state == TcpState::TimeWait.number())
            && let Some(key) = self.cells.key(kept.present.by_state)
            && let Ok(group) = SocketGroup::from_key(&key)
        {
            if state == TcpState::FinWait2 {
                *taken.counted_fin_wait2.entry(group).or_default() += 1;
            }
            if group.kind.chosen == Some(false) {
                taken.bound.insert(socket.sport);
            }
            return;
        }
        let role = kept.map_or(0, |kept| kept.present.flags);
        if state == TcpState::Listen {
            // Listeners are listed before all others (`inet_diag_dump_icsk()`).
            listening.insert(socket.sport);
        }
        let passive = matches!(state, TcpState::Listen | TcpState::NewSynRecv)
            || if role & (flags::ACTIVE | flags::PASSIVE) == 0 {
                listening.contains(&socket.sport)
            } else {
                role & flags::PASSIVE != 0
            };
        let chosen = if passive {
            Some(false)
        } else if role & flags::ACTIVE == 0 {
            // Nobody saw connect(): it may have chosen the port if it could.
            range.filter(|range| !range.contains(socket.sport)).map(|_| false)
        } else {
            Some(role & flags::PORT_WANTED != 0)
        };
        if chosen == Some(false) {
            taken.bound.insert(socket.sport);
        }
        let owner = kept.as_ref().and_then(owner);
        if state == TcpState::CloseWait
            && let Some(kept) = kept
            && kept.present.state == TcpState::CloseWait.number()
        {
            if self.is_old(&kept, now) {
                *taken.old_close_wait.entry(owner).or_default() += 1;
            } else {
                taken.young_close_wait += 1;
            }
        }
        let group = SocketGroup {
            family: socket.family,
            src: socket.src,
            dst: socket.dst,
            dport: (!passive).then_some(socket.dport),
            kind: SocketKind {
                state,
                in_time_wait_table: socket.in_time_wait_table,
                passive,
                chosen,
                timestamps: None,
            },
            owner,
        };
        *taken.groups.entry(group).or_default() += 1;
    }

    /// Whether a socket has been in its state for long. Where the beginning was not seen, it is
    /// older than the daemon.
    fn is_old(&self, kept: &Socket, now: Duration) -> bool {
        let since = if kept.present.since_ns == 0 {
            self.begun
        } else {
            Duration::from_nanos(kept.present.since_ns)
        };
        now.saturating_sub(since) > OLD
    }
}

/// Whose a socket is.
fn owner(kept: &Socket) -> Option<ServiceKey> {
    let owner = &kept.owner;
    (kept.present.flags & flags::OWNER_KNOWN != 0).then_some(ServiceKey {
        cgroup_id: owner.cgroup_id,
        comm: owner.comm,
        cgroup_v1: owner.cgroup_v1,
        known: 1,
    })
}
