//! The sockets of one owner towards one destination, as their transitions tell of them.
//!
//! The daemon has no list of sockets to ask for; what it streams has all that becomes of each. So
//! a socket is here from its first transition on, and one that does nothing is not.

use std::collections::VecDeque;

use tcpmon_common::TcpState;

use crate::model::event::Event;

/// Sockets that are kept: the latest.
const SOCKETS: usize = 500;

/// The latest sockets, the one that changed last at the end.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    latest: VecDeque<Event>,
    /// Sockets that were seen and are not kept.
    dropped: u64,
}

impl Sockets {
    /// Takes a transition.
    pub(super) fn take(&mut self, event: Event) {
        let key = key(&event);
        // Mostly a socket that has just changed changes again.
        if let Some(place) = self.latest.iter().rposition(|it| self::key(it) == key) {
            self.latest.remove(place);
        } else if self.latest.len() == SOCKETS {
            // One that has gone is missed least.
            let gone = self.latest.iter().position(|it| it.new == TcpState::Close).unwrap_or(0);
            self.latest.remove(gone);
            self.dropped += 1;
        }
        self.latest.push_back(event);
    }

    /// The sockets by their last transition, the latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Event> {
        self.latest.iter().rev()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// How many there are, and how many more there were.
    pub(super) fn count(&self) -> (usize, u64) {
        (self.latest.len(), self.dropped)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What tells a socket from others: its cookie, or its port where it never had one.
fn key(event: &Event) -> (u64, u16) {
    if event.cookie == 0 { (0, event.sport) } else { (event.cookie, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::tests::example;

    fn socket(cookie: u64, new: TcpState) -> Event {
        Event { cookie, new, ..example() }
    }

    #[test]
    fn a_socket_is_told_by_its_last_transition() {
        let mut sockets = Sockets::default();
        for (cookie, new) in
            [(1, TcpState::SynSent), (2, TcpState::SynSent), (1, TcpState::Established)]
        {
            sockets.take(socket(cookie, new));
        }
        let seen: Vec<_> = sockets.latest().map(|it| (it.cookie, it.new)).collect();
        assert_eq!(seen, [(1, TcpState::Established), (2, TcpState::SynSent)]);
        sockets.clear();
        assert!(sockets.is_empty());
    }

    #[test]
    fn they_are_bounded_and_those_that_have_gone_leave_first() {
        let mut sockets = Sockets::default();
        sockets.take(socket(1, TcpState::Established));
        for cookie in 2..=SOCKETS as u64 + 10 {
            sockets.take(socket(cookie, TcpState::Close));
        }
        assert_eq!(sockets.count(), (SOCKETS, 10));
        assert!(sockets.latest().any(|it| it.cookie == 1));
    }
}
