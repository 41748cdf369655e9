//! What one Alertmanager has been told, and what it has still to be told.
//!
//! A pure state machine: times are passed in.

use super::{
    Settings,
    alert::{Alert, Labels, Postable, PostableLabels},
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Alerts of one push at most, as Prometheus has it.
const BATCH: usize = 64;

/// How many repetitions may be lost before an alert ends by itself.
const LIVES: u32 = 4;

/// What one Alertmanager knows.
#[derive(Debug)]
pub(super) struct Book {
    settings: Arc<Settings>,
    entries: HashMap<Labels, Entry>,
}

#[derive(Debug)]
struct Entry {
    alert: Arc<Alert>,
    /// When it has to be told next.
    due: Instant,
    /// When it ended; `None` while it fires.
    ended: Option<Timestamp>,
    /// Until when Alertmanager believes it at most; `None` if it cannot know of it.
    believed_until: Option<Instant>,
}

/// Alerts of one push.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) alerts: Vec<Labels>,
    pub(super) body: Bytes,
}

impl Book {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, entries: HashMap::new() }
    }

    /// Takes in what fires now.
    pub(super) fn update(&mut self, firing: &[Arc<Alert>], now: Instant, wall: Timestamp) {
        let mut gone = std::mem::take(&mut self.entries);
        for alert in firing {
            let known = gone.remove_entry(&alert.labels);
            let (labels, mut entry) = known.unwrap_or_else(|| {
                let entry =
                    Entry { alert: Arc::clone(alert), due: now, ended: None, believed_until: None };
                (alert.labels.clone(), entry)
            });
            if entry.ended.take().is_some() {
                entry.due = now;
            }
            // New figures wait for the next repetition.
            entry.alert = Arc::clone(alert);
            self.entries.insert(labels, entry);
        }
        for entry in gone.values_mut().filter(|entry| entry.ended.is_none()) {
            (entry.ended, entry.due) = (Some(wall), now);
        }
        // Nobody needs to be told the end of what nobody believes.
        gone.retain(|_, entry| entry.believed_until.is_some_and(|until| until > now));
        let mut gone: Vec<_> = gone.into_iter().collect();
        gone.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.believed_until));
        // The others end by themselves.
        gone.truncate(self.settings.capacity);
        self.entries.extend(gone);
    }

    /// When there is next something to tell.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// How many alerts have to be told now.
    pub(super) fn queued(&self, now: Instant) -> usize {
        self.entries.values().filter(|entry| entry.due <= now).count()
    }

    /// What has to be told now, those that have waited longest first.
    pub(super) fn batch(&mut self, now: Instant, wall: Timestamp) -> Option<Batch> {
        let life = self.settings.pace.repeat * LIVES;
        let mut due: Vec<_> =
            self.entries.iter_mut().filter(|(_, entry)| entry.due <= now).collect();
        if due.is_empty() {
            return None;
        }
        due.sort_by_key(|(labels, entry)| (entry.due, std::cmp::Reverse(labels.severity)));
        due.truncate(BATCH);
        let mut postables = Vec::new();
        let mut alerts = Vec::new();
        for (labels, entry) in due {
            let ends_at = entry.ended.unwrap_or_else(|| {
                entry.believed_until = Some(now + life);
                later(wall, life)
            });
            postables.push(Postable {
                labels: PostableLabels { own: labels, instance: &self.settings.instance },
                annotations: &entry.alert.annotations,
                starts_at: entry.alert.starts_at,
                // A clock that was set back must not make it end before it began, which
                // Alertmanager refuses.
                ends_at: ends_at.max(entry.alert.starts_at),
                generator_url: self.settings.generator_url.as_deref(),
            });
            alerts.push(labels.clone());
        }
        // Nothing here can fail to be written: texts, numbers and times.
        let body = serde_json::to_vec(&postables).unwrap_or_default().into();
        Some(Batch { alerts, body })
    }

    /// A batch was taken.
    pub(super) fn told(&mut self, batch: &Batch, now: Instant) {
        for labels in &batch.alerts {
            match self.entries.get_mut(labels) {
                Some(entry) if entry.ended.is_none() => {
                    entry.due = now + self.settings.pace.repeat;
                }
                _ => drop(self.entries.remove(labels)),
            }
        }
    }
}

fn later(wall: Timestamp, by: Duration) -> Timestamp {
    wall.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{alert, settings},
        *,
    };
    use serde_json::Value;

    struct Scene {
        book: Book,
        start: Instant,
    }

    impl Scene {
        fn new(capacity: usize) -> Self {
            let mut settings = settings(Vec::new());
            settings.capacity = capacity;
            Self { book: Book::new(Arc::new(settings)), start: Instant::now() }
        }

        fn at(&self, second: u64) -> (Instant, Timestamp) {
            let wall = Timestamp::from_second(1_700_000_000).expect("a time");
            let by = Duration::from_secs(second);
            (self.start + by, later(wall, by))
        }

        fn update(&mut self, second: u64, names: &[&str]) {
            let (now, wall) = self.at(second);
            let firing: Vec<_> = names.iter().map(|name| Arc::new(alert(name))).collect();
            self.book.update(&firing, now, wall);
        }

        /// What is told at that second: names with the second in which each ends.
        fn tell(&mut self, second: u64, taken: bool) -> Vec<(String, i64)> {
            let (now, wall) = self.at(second);
            let Some(batch) = self.book.batch(now, wall) else { return Vec::new() };
            if taken {
                self.book.told(&batch, now);
            }
            let alerts: Vec<Value> = serde_json::from_slice(&batch.body).expect("JSON");
            let told = alerts.iter().map(|alert| {
                let name = alert["labels"]["alertname"].as_str().expect("a name").to_owned();
                let ends: Timestamp =
                    alert["endsAt"].as_str().expect("an end").parse().expect("a time");
                (name, ends.as_second() - 1_700_000_000)
            });
            let mut told: Vec<_> = told.collect();
            told.sort();
            told
        }
    }

    fn told(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
        expected.iter().map(|(name, end)| ((*name).to_owned(), *end)).collect()
    }

    #[test]
    fn an_alert_is_told_at_once_repeated_each_minute_and_ended() {
        let mut scene = Scene::new(10);
        scene.update(0, &["a"]);
        assert_eq!(scene.tell(0, true), told(&[("a", 240)]));
        for second in 1..60 {
            scene.update(second, &["a"]);
            assert_eq!(scene.tell(second, true), []);
        }
        assert_eq!(scene.tell(60, true), told(&[("a", 300)]));
        scene.update(70, &["a", "b"]);
        assert_eq!(scene.tell(70, true), told(&[("b", 310)]));
        scene.update(80, &["b"]);
        assert_eq!(scene.tell(80, true), told(&[("a", 80)]));
        assert_eq!(scene.tell(130, true), told(&[("b", 370)]));
        scene.update(140, &[]);
        assert_eq!(scene.tell(140, true), told(&[("b", 140)]));
        assert_eq!(scene.book.next_due(), None);
    }

    #[test]
    fn the_latest_state_wins_while_nobody_listens() {
        let mut scene = Scene::new(10);
        scene.update(0, &["never told"]);
        scene.update(1, &[]);
        assert_eq!(scene.tell(1, true), []);
        scene.update(2, &["a"]);
        assert_eq!(scene.tell(2, false), told(&[("a", 242)]));
        // It may have got through, so its end is told,
        scene.update(3, &[]);
        assert_eq!(scene.tell(3, false), told(&[("a", 3)]));
        // unless it fires again,
        scene.update(5, &["a"]);
        assert_eq!(scene.tell(5, false), told(&[("a", 245)]));
        scene.update(6, &[]);
        assert_eq!(scene.tell(7, false), told(&[("a", 6)]));
        // or everybody has forgotten it meanwhile.
        scene.update(245, &[]);
        assert_eq!(scene.tell(245, false), []);
        assert_eq!(scene.book.next_due(), None);
    }

    #[test]
    fn ends_that_nobody_hears_are_bounded_too() {
        let mut scene = Scene::new(5);
        for second in 0..100 {
            let names: Vec<String> = (0..5).map(|n| format!("{second} {n}")).collect();
            scene.update(second, &names.iter().map(String::as_str).collect::<Vec<_>>());
            scene.tell(second, false);
        }
        assert!(scene.book.entries.len() <= 10, "{}", scene.book.entries.len());
    }

    #[test]
    fn many_alerts_are_told_in_batches() {
        let mut scene = Scene::new(1000);
        let names: Vec<String> = (0..150).map(|n| format!("a{n}")).collect();
        scene.update(0, &names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(scene.book.queued(scene.start), 150);
        let sizes = [0; 4].map(|_| scene.tell(0, true).len());
        assert_eq!(sizes, [64, 64, 22, 0]);
    }

    #[test]
    fn a_clock_set_back_ends_no_alert_before_its_beginning() {
        let mut scene = Scene::new(10);
        let (now, wall) = scene.at(0);
        let mut late = alert("a");
        late.starts_at = later(wall, Duration::from_secs(5000));
        scene.book.update(&[Arc::new(late)], now, wall);
        assert_eq!(scene.tell(0, true), told(&[("a", 5000)]));
        scene.update(1, &[]);
        assert_eq!(scene.tell(1, true), told(&[("a", 5000)]));
    }
}
