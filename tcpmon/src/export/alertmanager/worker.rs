//! The task that talks to one Alertmanager.

use super::{
    Counters, Firing, Settings,
    backoff::{Backoff, Quiet},
    book::Book,
    client::{PushError, push},
    endpoint::Endpoint,
};
use jiff::Timestamp;
use std::sync::{Arc, atomic::Ordering};
use tokio::{sync::watch, time::Instant};

pub(super) struct Worker {
    pub(super) endpoint: Endpoint,
    pub(super) settings: Arc<Settings>,
    pub(super) counters: Arc<Counters>,
}

impl Worker {
    /// Tells what fires until `stop` turns true, then that all has ended.
    pub(super) async fn run(
        self,
        mut firing: watch::Receiver<Firing>,
        mut stop: watch::Receiver<bool>,
    ) {
        let pace = self.settings.pace;
        let mut book = Book::new(Arc::clone(&self.settings));
        let mut backoff = Backoff::new(pace.first_pause, pace.longest_pause);
        let mut quiet = Quiet::default();
        let mut not_before = Instant::now();
        loop {
            let now = Instant::now();
            book.update(&firing.borrow_and_update(), now, Timestamp::now());
            self.count(&book, now);
            let wake = book.next_due().map(|due| due.max(not_before));
            if wake.is_none_or(|wake| wake > now) {
                tokio::select! {
                    // An error says that the handle is gone, and with it everybody who could be
                    // interested.
                    _ = stop.wait_for(|stop| *stop) => break,
                    changed = firing.changed() => if changed.is_err() { break },
                    () = until(wake) => {}
                }
                continue;
            }
            let Some(batch) = book.batch(now, Timestamp::now()) else { continue };
            let pushed = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                pushed = push(&self.endpoint, batch.body.clone(), &pace) => pushed,
            };
            let now = Instant::now();
            self.note(&pushed, batch.alerts.len(), &mut quiet, now);
            if pushed.is_ok() {
                book.told(&batch, now);
                backoff.succeeded();
                if book.queued(now) == 0 {
                    not_before = now + pace.gap;
                }
            } else {
                not_before = now + backoff.failed();
            }
        }
        self.end(book, quiet).await;
    }

    /// Tells that all has ended, once. Whoever waits for it has a limit.
    async fn end(&self, mut book: Book, mut quiet: Quiet) {
        let now = Instant::now();
        book.update(&[], now, Timestamp::now());
        while let Some(batch) = book.batch(now, Timestamp::now()) {
            let pushed = push(&self.endpoint, batch.body.clone(), &self.settings.pace).await;
            self.note(&pushed, batch.alerts.len(), &mut quiet, now);
            if pushed.is_err() {
                break;
            }
            book.told(&batch, now);
        }
        self.count(&book, now);
    }

    fn count(&self, book: &Book, now: Instant) {
        let queued = u64::try_from(book.queued(now)).unwrap_or(u64::MAX);
        self.counters.queued.store(queued, Ordering::Relaxed);
    }

    /// Counts and says what became of a push.
    fn note(&self, pushed: &Result<(), PushError>, alerts: usize, quiet: &mut Quiet, now: Instant) {
        let endpoint = &self.endpoint;
        match pushed {
            Ok(()) => {
                let alerts = u64::try_from(alerts).unwrap_or(u64::MAX);
                self.counters.sent.fetch_add(alerts, Ordering::Relaxed);
                if let Some(unsaid) = quiet.success(now) {
                    log::info!("alerts reach {endpoint} again ({unsaid} more failures before)");
                }
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                if let Some(times) = quiet.failure(now) {
                    let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
                    log::warn!("cannot push alerts to {endpoint}{times}: {error}");
                }
            }
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
