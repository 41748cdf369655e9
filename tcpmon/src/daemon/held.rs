//! Filling in the local port of `CLOSE -> SYN_SENT`.
//!
//! The kernel reports that transition before it has chosen the port; the socket's next transition
//! has it. On a loopback or a local network the two come in the same batch. Otherwise the first is
//! held back for a little: long enough for a handshake nearby, short enough that nobody sees a
//! delay. An event that is still without its port then is shown without it.

use crate::model::fast::FastMap;
use std::time::{Duration, Instant};
use tcpmon_common::{TcpState, Transition};

/// How long a record waits for its port.
const PATIENCE: Duration = Duration::from_millis(30);
/// How much longer it waits while no batch comes: the port may be on a ring already, and the
/// reader late. It looks at the rings, and sends a batch, for longer than [`PATIENCE`] after the
/// last record, so this passes only if it was kept from it.
const GRACE: Duration = Duration::from_millis(100);

/// Records that wait for their port.
#[derive(Debug, Default)]
pub struct Held {
    waiting: FastMap<u64, (Transition, Instant)>,
    /// Scratch: where in the present batch the records without a port are, by cookie.
    places: FastMap<u64, usize>,
}

fn lacks_port(record: &Transition) -> bool {
    record.new == TcpState::SynSent.number() && record.sport == 0
}

fn follows(record: &Transition) -> bool {
    record.old == TcpState::SynSent.number()
}

impl Held {
    /// Fills in the ports that `batch` tells, and takes out of it the records that must wait.
    /// Records that waited and need not any longer come first. `looked` is when the reader looked
    /// at the rings for this batch: what had been put there before is in it, and in those before.
    pub fn settle(&mut self, batch: &mut Vec<Transition>, looked: Instant, now: Instant) {
        let mut ready = Vec::new();
        self.places.clear();
        for index in 0..batch.len() {
            let record = batch[index];
            if lacks_port(&record) {
                self.places.insert(record.cookie, index);
            } else if follows(&record) {
                if let Some(place) = self.places.remove(&record.cookie) {
                    batch[place].sport = record.sport;
                } else if let Some((mut first, _)) = self.waiting.remove(&record.cookie) {
                    first.sport = record.sport;
                    ready.push(first);
                }
            }
        }
        // Only now, and by the reader's clock: the port may be in this batch, however late it was
        // looked at, or in the next, if this one was made early and waited.
        ready.extend(self.expire(looked));
        if !self.places.is_empty() {
            let places = &self.places;
            let waiting = &mut self.waiting;
            let mut index = 0;
            batch.retain(|record| {
                let waits = places.get(&record.cookie) == Some(&index);
                index += 1;
                if waits {
                    waiting.insert(record.cookie, (*record, now + PATIENCE));
                }
                !waits
            });
        }
        if !ready.is_empty() {
            ready.sort_by_key(|record| record.ts_ns);
            batch.splice(0..0, ready);
        }
    }

    /// When the next record has waited long enough even if no batch comes; `None` if none waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|(_, deadline)| *deadline + GRACE).min()
    }

    fn expire(&mut self, now: Instant) -> Vec<Transition> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.waiting
            .extract_if(|_, (_, deadline)| *deadline <= now)
            .map(|(_, (record, _))| record)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cookie: u64, ts_ns: u64, old: TcpState, new: TcpState, sport: u16) -> Transition {
        Transition {
            ts_ns,
            cookie,
            duration_ns: 0,
            cgroup_id: 0,
            birth_ns: 0,
            saddr: [0; 16],
            daddr: [0; 16],
            comm: [0; 16],
            netns: 0,
            pid: 0,
            sport,
            dport: 80,
            family: 0,
            old: old.number(),
            new: new.number(),
            flags: 0,
        }
    }

    fn shown(batch: &[Transition]) -> Vec<(u64, u64, u16)> {
        batch.iter().map(|record| (record.cookie, record.ts_ns, record.sport)).collect()
    }

    use TcpState::{Close, Established, SynSent};

    #[test]
    fn the_port_is_found_in_the_same_batch() {
        let mut batch = vec![
            record(1, 1, Close, SynSent, 0),
            record(2, 2, Close, SynSent, 0),
            record(2, 3, SynSent, Established, 42),
            record(1, 4, SynSent, Close, 0),
        ];
        Held::default().settle(&mut batch, Instant::now(), Instant::now());
        assert_eq!(shown(&batch), [(1, 1, 0), (2, 2, 42), (2, 3, 42), (1, 4, 0)]);
    }

    #[test]
    fn the_port_is_found_in_a_later_batch() {
        let (mut held, now) = (Held::default(), Instant::now());
        let mut batch = vec![record(1, 1, Close, SynSent, 0), record(2, 2, Close, SynSent, 7)];
        held.settle(&mut batch, now, now);
        assert_eq!(shown(&batch), [(2, 2, 7)]);
        assert!(held.deadline().is_some());
        let mut batch =
            vec![record(3, 3, Established, Close, 9), record(1, 4, SynSent, Established, 42)];
        held.settle(&mut batch, now, now);
        assert_eq!(shown(&batch), [(1, 1, 42), (3, 3, 9), (1, 4, 42)]);
        assert_eq!(held.deadline(), None);
    }

    #[test]
    fn a_batch_that_comes_late_still_tells_the_port() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.settle(&mut vec![record(1, 1, Close, SynSent, 0)], now, now);
        let mut batch = vec![record(1, 2, SynSent, Established, 42)];
        held.settle(&mut batch, now + 2 * PATIENCE, now + 2 * PATIENCE);
        assert_eq!(shown(&batch), [(1, 1, 42), (1, 2, 42)]);
    }

    #[test]
    fn a_batch_that_was_made_early_and_waited_proves_nothing() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.settle(&mut vec![record(1, 1, Close, SynSent, 0)], now, now);
        let late = now + 2 * PATIENCE;
        let mut batch = vec![record(2, 2, Established, Close, 9)];
        held.settle(&mut batch, now, late);
        assert_eq!(shown(&batch), [(2, 2, 9)]);
        let mut batch = vec![record(1, 3, SynSent, Established, 42)];
        held.settle(&mut batch, late, late);
        assert_eq!(shown(&batch), [(1, 1, 42), (1, 3, 42)]);
    }

    #[test]
    fn an_event_is_shown_without_its_port_rather_than_late() {
        let (mut held, now) = (Held::default(), Instant::now());
        let mut batch = vec![record(1, 1, Close, SynSent, 0)];
        held.settle(&mut batch, now, now);
        assert!(batch.is_empty());
        held.settle(&mut batch, now + PATIENCE, now + PATIENCE);
        assert_eq!(shown(&batch), [(1, 1, 0)]);
    }

    #[test]
    fn a_socket_that_tries_twice_is_shown_twice() {
        let mut held = Held::default();
        let mut batch = vec![
            record(1, 1, Close, SynSent, 0),
            record(1, 2, SynSent, Close, 0),
            record(1, 3, Close, SynSent, 0),
        ];
        held.settle(&mut batch, Instant::now(), Instant::now());
        assert_eq!(shown(&batch), [(1, 1, 0), (1, 2, 0)]);
    }
}
