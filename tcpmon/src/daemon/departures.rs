//! Telling why sockets left TIME-WAIT.
//!
//! The kernel reports that a time-wait socket's timer is cancelled, and only then, on the same CPU,
//! that it had expired or is set anew. So a record of the first waits for the second, which mostly
//! comes in the same batch. One of which nothing more is told within a moment was killed.

use std::time::{Duration, Instant};

use tcpmon_common::{Ending, Transition, flags};

use crate::model::{fast::FastMap, time_wait::is_exit};

/// How long a record waits for the one that explains it. The two are written within microseconds,
/// so only a look at the rings that falls between them parts them, and the next look is 5 ms away.
const PATIENCE: Duration = Duration::from_millis(10);
/// How much longer it waits while no batch comes, as in [`super::held`].
const GRACE: Duration = Duration::from_millis(100);

/// Records that wait for their explanation.
#[derive(Debug, Default)]
pub struct Departures {
    waiting: FastMap<u64, (Transition, Instant)>,
    /// Scratch: where in the present batch the records without an explanation are, by cookie.
    places: FastMap<u64, usize>,
}

impl Departures {
    /// Gives the exits in `batch` their reasons, and takes out of it those that must wait and the
    /// explanations. Records that waited and need not any longer come first. `looked` is when the
    /// reader looked at the rings for this batch: what had been put there before is in it, and in
    /// those before.
    pub fn settle(&mut self, batch: &mut Vec<Transition>, looked: Instant, now: Instant) {
        if !batch.iter().any(is_exit) && self.waiting.is_empty() {
            return;
        }
        let mut ready = Vec::new();
        let mut superfluous = Vec::new();
        self.places.clear();
        for index in 0..batch.len() {
            let record = batch[index];
            if !is_exit(&record) {
                continue;
            }
            let ending = Ending::from_flags(record.flags);
            match ending {
                Ending::Reused => {}
                Ending::Cancelled => {
                    // A cookie that comes again was set anew meanwhile, untold for want of room.
                    self.places.insert(record.cookie, index);
                }
                Ending::Expired | Ending::Rearmed => {
                    superfluous.push(index);
                    if let Some(place) = self.places.remove(&record.cookie) {
                        explain(&mut batch[place], ending);
                        if ending == Ending::Rearmed {
                            superfluous.push(place);
                        }
                    } else if let Some((mut first, _)) = self.waiting.remove(&record.cookie)
                        && ending == Ending::Expired
                    {
                        explain(&mut first, ending);
                        ready.push(first);
                    }
                }
            }
        }
        // Only now, and by the reader's clock: the explanation may be in this batch, however late it
        // was looked at, or in the next, if this one was made early and waited.
        ready.extend(self.expire(looked));
        for (cookie, index) in self.places.drain() {
            self.waiting.insert(cookie, (batch[index], now + PATIENCE));
            superfluous.push(index);
        }
        superfluous.sort_unstable();
        let mut index = 0;
        batch.retain(|_| {
            let kept = superfluous.binary_search(&index).is_err();
            index += 1;
            kept
        });
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
        let over = |deadline: &Instant| *deadline <= now;
        self.waiting
            .extract_if(|_, (_, deadline)| over(deadline))
            .map(|(_, (record, _))| record)
            .collect()
    }
}

fn explain(record: &mut Transition, ending: Ending) {
    record.flags = (record.flags & !flags::ENDING) | ending.flags();
}

#[cfg(test)]
mod tests {
    use tcpmon_common::TcpState;

    use super::*;
    use crate::model::{event::tests::record_of, time_wait::Passage};

    fn exit(cookie: u64, ts_ns: u64, ending: Ending) -> Transition {
        let flags = flags::ACTIVE | ending.flags();
        let record = record_of(TcpState::TimeWait, TcpState::Close, flags);
        Transition { cookie, ts_ns, ..record }
    }

    fn other(ts_ns: u64) -> Transition {
        let record = record_of(TcpState::FinWait1, TcpState::FinWait2, 0);
        Transition { cookie: 1, ts_ns, ..record }
    }

    /// Cookie and reason of each record; no reason where it is no exit.
    fn shown(batch: &[Transition]) -> Vec<(u64, &'static str)> {
        let reason = |record| Passage::from_record(record).and_then(Passage::reason);
        batch.iter().map(|it| (it.cookie, reason(it).map_or("", |reason| reason.name()))).collect()
    }

    use Ending::{Cancelled, Expired, Rearmed, Reused};

    #[test]
    fn reasons_are_found_in_the_same_batch() {
        let mut departures = Departures::default();
        let mut batch = vec![
            exit(1, 1, Cancelled),
            exit(2, 2, Cancelled),
            exit(2, 3, Expired),
            exit(3, 4, Reused),
            exit(1, 5, Expired),
            other(6),
        ];
        departures.settle(&mut batch, Instant::now(), Instant::now());
        assert_eq!(shown(&batch), [(1, "expired"), (2, "expired"), (3, "reused"), (1, "")]);
        assert!(batch.iter().take(3).all(|record| record.flags & flags::ACTIVE != 0));
        assert_eq!(departures.deadline(), None);
    }

    #[test]
    fn reasons_are_found_in_a_later_batch() {
        let (mut departures, now) = (Departures::default(), Instant::now());
        let mut batch = vec![exit(1, 1, Cancelled), other(2)];
        departures.settle(&mut batch, now, now);
        assert_eq!(shown(&batch), [(1, "")]);
        let mut batch = vec![other(3), exit(1, 4, Expired)];
        departures.settle(&mut batch, now + 2 * PATIENCE, now + 2 * PATIENCE);
        assert_eq!(shown(&batch), [(1, "expired"), (1, "")]);
    }

    #[test]
    fn who_is_not_explained_was_killed() {
        let (mut departures, now) = (Departures::default(), Instant::now());
        departures.settle(&mut vec![exit(1, 1, Cancelled), exit(2, 2, Cancelled)], now, now);
        assert_eq!(departures.deadline(), Some(now + PATIENCE + GRACE));
        let late = now + PATIENCE;
        let mut batch = vec![other(3)];
        departures.settle(&mut batch, now, late);
        assert_eq!(shown(&batch), [(1, "")], "the batch was made early, and waited");
        let mut batch = Vec::new();
        departures.settle(&mut batch, late, late);
        assert_eq!(shown(&batch), [(1, "killed"), (2, "killed")]);
    }

    #[test]
    fn who_is_set_anew_has_not_left() {
        let (mut departures, now) = (Departures::default(), Instant::now());
        let mut batch = vec![exit(1, 1, Cancelled), exit(1, 1, Rearmed), exit(2, 2, Cancelled)];
        departures.settle(&mut batch, now, now);
        assert!(batch.is_empty());
        let mut batch = vec![exit(2, 3, Rearmed), exit(2, 4, Cancelled), exit(2, 5, Expired)];
        departures.settle(&mut batch, now, now);
        assert_eq!(shown(&batch), [(2, "expired")]);
        assert_eq!(departures.deadline(), None);
    }

    #[test]
    fn an_explanation_of_what_was_lost_is_nothing() {
        let mut batch = vec![exit(1, 1, Expired), exit(2, 1, Rearmed)];
        Departures::default().settle(&mut batch, Instant::now(), Instant::now());
        assert!(batch.is_empty());
    }
}
