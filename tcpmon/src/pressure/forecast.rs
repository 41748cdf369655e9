//! How long the ports will last.
//!
//! A port in TIME_WAIT comes back 60 s after it went there, so a steady load does not fill the
//! range for ever: its level rises for a minute and then stays at (entries a second) x 60 s. A line
//! drawn through the first seconds would cry wolf at every start of a service. What leaves in the
//! next minute is what entered in the last one, and that is known; so the level is carried forward
//! by what enters at the present rate, less what is known to leave.

use super::{
    facts::Route,
    usage::{CountedBy, PortUse},
};
use crate::model::fast::FastMap;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// How long a socket stays in TIME_WAIT (`TCP_TIMEWAIT_LEN`, include/net/tcp.h), in seconds.
pub const TIME_WAIT_SECONDS: f64 = 60.0;

/// What lies further ahead than this, in seconds, is never.
pub const HORIZON_SECONDS: f64 = 3_600.0;

/// A rate is one over so long a time.
const WINDOW: Duration = Duration::from_secs(10);

/// And no higher than over so long a time.
const LONG_WINDOW: Duration = Duration::from_secs(20);

/// Readings lie so far apart at least.
const APART: Duration = Duration::from_secs(1);

/// Readings are kept for so long: what entered in that time is what will leave.
const KEPT: Duration = Duration::from_secs(62);

/// Routes that are watched, at most: those with the most ports in use.
const ROUTES: usize = 2_048;

/// Routes with less than this part of their ports in use are not watched: at twice the rate of any
/// connect() they last for minutes, and there may be very many.
const WATCHED_FROM: f64 = 0.02;

/// What will become of a route's ports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Seconds until there is no port left; infinite where there will be at the present rate.
    pub eta_seconds: f64,
    /// Ports that will be held at the present rate once what enters TIME_WAIT and what leaves it
    /// are equal, over the capacity.
    pub settles_at: f64,
    /// New connections a second.
    pub rate: f64,
}

/// A route of a network namespace.
type Key = (Arc<str>, Route);

/// What a route's counts were at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Duration,
    live: u64,
    entered: u64,
    counted_by: CountedBy,
}

/// Forecasts, by what the routes' counts were before.
#[derive(Debug, Default)]
pub struct Forecaster {
    routes: FastMap<Key, VecDeque<Reading>>,
}

impl Forecaster {
    /// Takes note of the uses of a network namespace `at` that time, and tells of each what will
    /// become of it: in the same order, `None` where the capacity is not known.
    pub fn step(
        &mut self,
        at: Duration,
        netns: &Arc<str>,
        uses: &[PortUse],
    ) -> Vec<Option<Forecast>> {
        uses.iter().map(|it| self.one(at, netns, it)).collect()
    }

    /// Forgets routes that were not among the uses at that time.
    pub fn forget_before(&mut self, at: Duration) {
        self.routes.retain(|_, readings| {
            readings.back().is_some_and(|last| at.saturating_sub(last.at) < 4 * APART)
        });
    }

    fn one(&mut self, at: Duration, netns: &Arc<str>, now: &PortUse) -> Option<Forecast> {
        let ratio = now.ratio()?;
        let unwatched = Forecast {
            eta_seconds: if ratio >= 1.0 { 0.0 } else { f64::INFINITY },
            settles_at: ratio,
            rate: 0.0,
        };
        // Of very many routes most are such, and to look one up takes longer than all the rest.
        if ratio < WATCHED_FROM && self.routes.is_empty() {
            return Some(unwatched);
        }
        let key = (Arc::clone(netns), now.route);
        let is_full = self.routes.len() >= ROUTES;
        let readings = match self.routes.get_mut(&key) {
            Some(readings) => readings,
            None if ratio < WATCHED_FROM || is_full => return Some(unwatched),
            None => self.routes.entry(key).or_default(),
        };
        let PortUse { live, entered, counted_by, .. } = *now;
        note(readings, Reading { at, live, entered, counted_by });
        Some(forecast(at, readings, now))
    }
}

/// Adds a reading, unless one was taken just now, and drops the old ones.
fn note(readings: &mut VecDeque<Reading>, now: Reading) {
    let is_another_count = |last: &Reading| {
        // An owner has gone from the counts: what it entered is not known any more.
        now.entered < last.entered
            // tcp_tw_reuse was switched: sockets that have waited all along count from now on, or
            // do not any more. That is no rate.
            || now.counted_by != last.counted_by
    };
    if readings.back().is_some_and(is_another_count) {
        readings.clear();
    }
    if readings.back().is_some_and(|last| now.at.saturating_sub(last.at) < APART) {
        return;
    }
    readings.push_back(now);
    while readings.get(1).is_some_and(|next| now.at.saturating_sub(next.at) >= KEPT) {
        readings.pop_front();
    }
}

/// By the readings, the last of which is at most a second old.
fn forecast(at: Duration, readings: &VecDeque<Reading>, now: &PortUse) -> Forecast {
    let capacity = f64::from(now.capacity.unwrap_or(0));
    let (live, waiting) = (number(now.live), number(now.time_wait));
    let (entering, growing) = rates(at, readings, now);
    let settled = live + entering * TIME_WAIT_SECONDS;
    let settles_at = if capacity > 0.0 { (settled / capacity).max(0.0) } else { 1.0 };
    let mut eta_seconds = f64::INFINITY;
    let blocking = live + waiting;
    if blocking >= capacity {
        eta_seconds = 0.0;
    } else if entering > 0.0 || growing > 0.0 {
        let mut before = blocking;
        for second in 1..=60_u32 {
            let ahead = f64::from(second);
            let left = leaving(at, readings, now, ahead);
            let level = live + growing * ahead + (waiting + entering * ahead - left).max(0.0);
            if level >= capacity {
                // Between the two seconds.
                let part = (capacity - before) / (level - before).max(f64::MIN_POSITIVE);
                eta_seconds = ahead - 1.0 + part.clamp(0.0, 1.0);
                break;
            }
            before = level;
        }
        if eta_seconds.is_infinite() && growing > 0.0 {
            // After a minute only live sockets make it more.
            let ahead = TIME_WAIT_SECONDS + (capacity - before) / growing;
            eta_seconds = if ahead <= HORIZON_SECONDS { ahead } else { f64::INFINITY };
        }
    }
    Forecast { eta_seconds, settles_at, rate: entering + growing.max(0.0) }
}

/// Entries into TIME_WAIT a second, and by how many live sockets grow a second: over the window,
/// or since the first reading.
fn rates(at: Duration, readings: &VecDeque<Reading>, now: &PortUse) -> (f64, f64) {
    let is_within = |it: &&Reading| at.saturating_sub(it.at) <= WINDOW;
    let Some(then) = readings.iter().find(is_within) else { return (0.0, 0.0) };
    let passed = at.saturating_sub(then.at).as_secs_f64();
    // Before there is as much as this, one burst would be a rate.
    if passed < 2.0 {
        return (0.0, 0.0);
    }
    let entering = number(now.entered.saturating_sub(then.entered)) / passed;
    // A burst is no load: over the longer time it has to be as fast.
    let is_long_ago = |it: &&Reading| at.saturating_sub(it.at) <= LONG_WINDOW;
    let long_ago = readings.iter().find(is_long_ago).unwrap_or(then);
    let longer = at.saturating_sub(long_ago.at).as_secs_f64();
    let entering = entering.min(number(now.entered.saturating_sub(long_ago.entered)) / longer);
    // A pool that is being filled grows for a moment; one that goes on growing grows in either
    // half of the window.
    let middle = at.saturating_sub(then.at) / 2;
    let halfway = readings.iter().rev().find(|it| at.saturating_sub(it.at) >= middle);
    let halfway = halfway.unwrap_or(then);
    let grown =
        |from: f64, to: f64, seconds: f64| if seconds > 0.0 { (to - from) / seconds } else { 0.0 };
    let first = grown(
        number(then.live),
        number(halfway.live),
        halfway.at.saturating_sub(then.at).as_secs_f64(),
    );
    let second =
        grown(number(halfway.live), number(now.live), at.saturating_sub(halfway.at).as_secs_f64());
    (entering, if first > 0.0 && second > 0.0 { first.min(second) } else { 0.0 })
}

/// Sockets in TIME_WAIT that leave in so many seconds from now: those that entered so long before
/// a minute ago. Of those that were there before the first reading it is only known that they leave
/// within a minute of it.
fn leaving(at: Duration, readings: &VecDeque<Reading>, now: &PortUse, ahead: f64) -> f64 {
    let Some(first) = readings.front() else { return 0.0 };
    let older = unpaired(readings, now);
    let left_of_minute = (TIME_WAIT_SECONDS - at.saturating_sub(first.at).as_secs_f64()).max(1.0);
    let older_leaving = older * (ahead / left_of_minute).min(1.0);
    // The reading at (now + ahead - 60 s): what had entered by then is gone by then.
    let until = at.as_secs_f64() + ahead - TIME_WAIT_SECONDS;
    let start = at.as_secs_f64() - TIME_WAIT_SECONDS;
    let entered_by = |moment: f64| entered_at(readings, moment);
    older_leaving + (entered_by(until) - entered_by(start)).max(0.0)
}

/// Sockets in TIME_WAIT of which no reading saw the entry.
fn unpaired(readings: &VecDeque<Reading>, now: &PortUse) -> f64 {
    let seen = readings.front().map_or(0, |first| now.entered.saturating_sub(first.entered));
    let older = now.time_wait.saturating_sub(seen);
    // They are gone a minute after the first reading.
    if readings.len() > 1
        && let (Some(first), Some(last)) = (readings.front(), readings.back())
        && last.at.saturating_sub(first.at) >= KEPT.saturating_sub(2 * APART)
    {
        return 0.0;
    }
    number(older)
}

/// How many had entered by a moment, between two readings on the line between them.
fn entered_at(readings: &VecDeque<Reading>, moment: f64) -> f64 {
    let (Some(first), Some(last)) = (readings.front(), readings.back()) else { return 0.0 };
    let time = |it: &Reading| it.at.as_secs_f64();
    if moment <= time(first) {
        return number(first.entered);
    }
    if moment >= time(last) {
        return number(last.entered);
    }
    let after = readings.partition_point(|it| time(it) <= moment);
    let (Some(before), Some(next)) = (readings.get(after.saturating_sub(1)), readings.get(after))
    else {
        return number(last.entered);
    };
    let part = (moment - time(before)) / (time(next) - time(before)).max(f64::MIN_POSITIVE);
    number(before.entered) + part * (number(next.entered) - number(before.entered))
}

#[expect(clippy::cast_precision_loss, reason = "counts of sockets, and a forecast is no count")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
