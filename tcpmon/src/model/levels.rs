//! All sockets of a network namespace, from the two sources that know of them: what the
//! probes count as sockets enter and leave the time-wait table, and the kernel's list of the others.

use super::{
    census::{CountedGroup, SocketGroup},
    fast::FastMap,
};
use tcpmon_common::{Family, STATE_COUNT, TcpState};

/// Sockets by group.
pub type Groups = FastMap<SocketGroup, u64>;

/// Sockets of one family and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCount {
    /// Address family.
    pub family: Family,
    /// The state; of sockets in the time-wait table their substate, as `ss` has it.
    pub state: TcpState,
    /// How many.
    pub sockets: u64,
}

/// Some of the sockets that make up a group: the same group may come more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alike<'a> {
    /// What they have in common. Of those in the time-wait table, the state is only that of the
    /// ones that are not in substate FIN_WAIT2.
    pub group: &'a SocketGroup,
    /// How many there are.
    pub sockets: u64,
    /// How many of those are in the time-wait table in substate FIN_WAIT2.
    pub fin_wait2: u64,
    /// The counts, where the probes have them.
    pub counted: Option<&'a CountedGroup>,
}

/// All sockets. `listed` are those that the probes do not count, and `fin_wait2` those of the
/// counted groups that the list had in substate FIN_WAIT2: the probes cannot tell.
pub fn all<'a>(
    counted: &'a [CountedGroup],
    listed: &'a Groups,
    fin_wait2: &'a Groups,
) -> impl Iterator<Item = Alike<'a>> {
    let counted = counted.iter().map(move |counted| {
        let CountedGroup { group, sockets, .. } = counted;
        // Mostly nothing waits for a FIN, and to ask takes as long as all the rest.
        let waiting = if fin_wait2.is_empty() { None } else { fin_wait2.get(group) };
        // The list is older than the counts, so it may have more.
        let fin_wait2 = waiting.copied().unwrap_or(0).min(*sockets);
        Alike { group, sockets: *sockets, fin_wait2, counted: Some(counted) }
    });
    let listed = listed.iter().map(|(group, &sockets)| {
        let waits = group.kind.in_time_wait_table && group.kind.state == TcpState::FinWait2;
        Alike { group, sockets, fin_wait2: if waits { sockets } else { 0 }, counted: None }
    });
    counted.chain(listed)
}

/// Sockets by family and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByState {
    counts: [[u64; STATE_COUNT]; Family::ALL.len()],
    in_time_wait_table: u64,
}

impl ByState {
    /// Adds sockets.
    pub fn add(&mut self, alike: &Alike<'_>) {
        let Alike { group, sockets, fin_wait2, .. } = *alike;
        let of_family = &mut self.counts[group.family as usize];
        if group.kind.in_time_wait_table {
            self.in_time_wait_table += sockets;
            of_family[usize::from(TcpState::FinWait2.number())] += fin_wait2;
            of_family[usize::from(TcpState::TimeWait.number())] += sockets - fin_wait2;
        } else {
            of_family[usize::from(group.kind.state.number())] += sockets;
        }
    }

    /// How many of them are in the time-wait table.
    #[must_use]
    pub fn in_time_wait_table(&self) -> u64 {
        self.in_time_wait_table
    }

    /// Those of which there are any.
    pub fn counts(&self) -> impl Iterator<Item = StateCount> {
        Family::ALL.into_iter().flat_map(|family| {
            let states = (0..).zip(self.counts[family as usize]);
            states.filter(|(_, sockets)| *sockets > 0).filter_map(move |(number, sockets)| {
                Some(StateCount { family, state: TcpState::from_number(number)?, sockets })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::census::CellId;
    use tcpmon_common::CellKey;

    fn group(dport: u16) -> SocketGroup {
        let key = CellKey { dport, kind: TcpState::TimeWait.number(), ..CellKey::default() };
        SocketGroup::from_key(&key).expect("sound")
    }

    fn counted(dport: u16, sockets: u64) -> CountedGroup {
        CountedGroup { id: CellId::default(), group: group(dport), sockets, entered: sockets }
    }

    fn sum<'a>(all: impl Iterator<Item = Alike<'a>>) -> ByState {
        all.fold(ByState::default(), |mut sum, alike| {
            sum.add(&alike);
            sum
        })
    }

    fn of(sum: &ByState, state: TcpState) -> u64 {
        sum.counts().find(|it| it.state == state).map_or(0, |it| it.sockets)
    }

    #[test]
    fn the_substate_is_told_by_the_list_and_the_sum_by_the_probes() {
        for (listed, waiting, proper) in [(0, 0, 7), (3, 3, 4), (7, 7, 0), (9, 7, 0)] {
            let fin_wait2 = Groups::from_iter([(group(1), listed)]);
            let all = sum(all(&[counted(1, 7), counted(2, 0)], &Groups::default(), &fin_wait2));
            assert_eq!(all.in_time_wait_table(), 7);
            let told = (of(&all, TcpState::FinWait2), of(&all, TcpState::TimeWait));
            assert_eq!(told, (waiting, proper));
        }
    }

    #[test]
    fn what_is_only_listed_is_added() {
        let mut waiting = group(3);
        waiting.kind.state = TcpState::FinWait2;
        let mut live = waiting;
        live.kind.in_time_wait_table = false;
        let listed = Groups::from_iter([(group(1), 2), (waiting, 4), (live, 8)]);
        let all = sum(all(&[counted(1, 7)], &listed, &Groups::default()));
        assert_eq!(all.in_time_wait_table(), 13);
        assert_eq!((of(&all, TcpState::TimeWait), of(&all, TcpState::FinWait2)), (9, 12));
    }
}
