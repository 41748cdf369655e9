//! Does the pipeline move? What systemd's watchdog is fed by.
//!
//! A process that hangs looks like one that has nothing to do. So each part counts its rounds; at
//! each look the reader is rung up, which makes it and the hub go round even where nothing
//! happens, and the watchdog is fed only if every part has gone on since it had to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Counts the rounds of one part.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// One more round.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The parts, and when each was last seen to go on.
#[derive(Debug, Default)]
pub struct Heart(Vec<Part>);

#[derive(Debug)]
struct Part {
    name: &'static str,
    pulse: Pulse,
    patience: Duration,
    seen: Option<(u64, Instant)>,
}

impl Heart {
    /// Watches a part that goes on at least once in `patience`.
    pub fn add(&mut self, name: &'static str, pulse: Pulse, patience: Duration) {
        self.0.push(Part { name, pulse, patience, seen: None });
    }

    /// The first part that stands still.
    pub fn look(&mut self, now: Instant) -> Result<(), &'static str> {
        let mut stands = None;
        for part in &mut self.0 {
            let count = part.pulse.count();
            match part.seen {
                Some((seen, at)) if seen == count => {
                    if now.saturating_duration_since(at) > part.patience {
                        stands = stands.or(Some(part.name));
                    }
                }
                _ => part.seen = Some((count, now)),
            }
        }
        stands.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_for_too_long_is_named() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (quick, slow) = (Pulse::default(), Pulse::default());
        let mut heart = Heart::default();
        heart.add("quick", quick.clone(), Duration::from_secs(10));
        heart.add("slow", slow.clone(), Duration::from_secs(100));
        assert_eq!(heart.look(at(0)), Ok(()));
        assert_eq!(heart.look(at(10)), Ok(()));
        assert_eq!(heart.look(at(11)), Err("quick"));
        quick.beat();
        assert_eq!(heart.look(at(12)), Ok(()), "it has gone on");
        for second in 13..=100 {
            quick.beat();
            assert_eq!(heart.look(at(second)), Ok(()));
        }
        quick.beat();
        assert_eq!(heart.look(at(101)), Err("slow"));
        slow.beat();
        assert_eq!(heart.look(at(102)), Ok(()));
    }
}
