//! One subscriber's queue: bounded, and never a brake on the reader.
//!
//! What does not fit is counted, and told to the subscriber as a gap at the place in its stream
//! where the events are missing. Chunks that go to several subscribers are shared, not copied, so
//! many slow subscribers hold little more memory than one.

use crate::{
    export::Format,
    model::{
        event::{Gap, LossPlace},
        filter::Filter,
        json,
    },
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// A subscriber's end of the hub.
#[derive(Debug)]
pub struct Subscriber {
    /// What it wants to see.
    pub filter: Filter,
    /// How it wants to see it.
    pub format: Format,
    limit_bytes: usize,
    queue: Mutex<Queue>,
    news: Notify,
    account: Arc<Account>,
}

/// What all subscribers' queues have in common.
#[derive(Debug, Default)]
pub struct Account {
    /// Events lost because a queue was full.
    lost: AtomicU64,
    /// Bytes in all queues; a shared chunk counts in each.
    queued: AtomicUsize,
}

impl Account {
    /// Events that slow subscribers lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Bytes in all queues above which those that lag get no more.
const BUDGET: usize = 128 << 20;
/// Bytes in a queue up to which its subscriber does not lag.
const PROMPT: usize = 512 << 10;
/// Chunks are handed over once they have grown to this size, or to a part of a small queue.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// Events lost after the last chunk of the queue, since it was full.
    lost: u64,
    /// The same, lost on the ring.
    ring_lost: u64,
    /// Events still to be sent, where the subscriber asked for so many.
    remaining: Option<u64>,
    closed: bool,
}

impl Subscriber {
    /// A subscriber whose queue holds `limit_bytes` at most; `account` is told.
    #[must_use]
    pub fn new(filter: Filter, format: Format, limit_bytes: usize, account: Arc<Account>) -> Self {
        let remaining = filter.count.map(std::num::NonZeroU64::get);
        Self {
            filter,
            format,
            limit_bytes,
            queue: Mutex::new(Queue { remaining, ..Queue::default() }),
            news: Notify::new(),
            account,
        }
    }

    /// Events that it still wants; `None`: all that come.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.queue().remaining
    }

    /// Queues a chunk of `events` whole events, or counts them as lost.
    ///
    /// A subscriber that wants a certain number of events is never given more in one chunk than
    /// it still wants: see [`Self::remaining`].
    pub fn push(&self, chunk: Bytes, events: u64) {
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        let bytes = queue.bytes + chunk.len();
        let queued = self.account.queued.load(Ordering::Relaxed);
        if bytes > self.limit_bytes || (bytes > PROMPT && queued > BUDGET) {
            queue.lost += events;
            self.account.lost.fetch_add(events, Ordering::Relaxed);
        } else {
            self.tell_loss(&mut queue);
            self.append(&mut queue, chunk);
            if let Some(remaining) = &mut queue.remaining {
                *remaining = remaining.saturating_sub(events);
                queue.closed = *remaining == 0;
            }
        }
        drop(queue);
        self.news.notify_one();
    }

    /// Notes that so many events were lost on the ring, which all subscribers see, however full the
    /// queue is.
    pub fn push_ring_gap(&self, lost: u64) {
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        queue.ring_lost += lost;
        drop(queue);
        self.news.notify_one();
    }

    /// Bytes that a chunk for this subscriber should have at most.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        CHUNK.min(self.limit_bytes / 4)
    }

    /// Whether nothing more is wanted.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue().closed
    }

    /// Ends the stream after what is queued.
    pub fn close(&self) {
        self.queue().closed = true;
        self.news.notify_one();
    }

    /// The next chunk; `None` at the end of the stream.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut queue = self.queue();
                if let Some(chunk) = queue.chunks.pop_front() {
                    queue.bytes -= chunk.len();
                    self.account.queued.fetch_sub(chunk.len(), Ordering::Relaxed);
                    return Some(chunk);
                }
                if queue.lost + queue.ring_lost > 0 {
                    self.tell_loss(&mut queue);
                    continue;
                }
                if queue.closed {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    fn tell_loss(&self, queue: &mut Queue) {
        let lost = std::mem::take(&mut queue.lost);
        let ring_lost = std::mem::take(&mut queue.ring_lost);
        for (lost, place) in [(lost, LossPlace::Subscriber), (ring_lost, LossPlace::Ring)] {
            if lost > 0 {
                let line = self.gap_line(Gap { lost, place });
                self.append(queue, line);
            }
        }
    }

    fn append(&self, queue: &mut Queue, chunk: Bytes) {
        queue.bytes += chunk.len();
        self.account.queued.fetch_add(chunk.len(), Ordering::Relaxed);
        queue.chunks.push_back(chunk);
    }

    fn gap_line(&self, gap: Gap) -> Bytes {
        let (before, after) = self.format.frame();
        let mut line = before.to_vec();
        json::gap_object(gap, &mut line);
        line.extend_from_slice(after);
        line.into()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock, and a half-done update would only lose a gap.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let queued = self.queue().bytes;
        self.account.queued.fetch_sub(queued, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(limit: usize) -> (Subscriber, Arc<Account>) {
        let account = Arc::default();
        let filter = Filter::default();
        (Subscriber::new(filter, Format::JsonLines, limit, Arc::clone(&account)), account)
    }

    async fn drain(subscriber: &Subscriber) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(chunk) = subscriber.next().await {
            lines.push(String::from_utf8(chunk.to_vec()).expect("text"));
        }
        lines
    }

    #[tokio::test]
    async fn a_full_queue_tells_the_loss_where_it_happened() {
        let (subscriber, account) = subscriber(8);
        subscriber.push(Bytes::from_static(b"first\n"), 1);
        subscriber.push(Bytes::from_static(b"second\n"), 2);
        subscriber.push(Bytes::from_static(b"third\n"), 3);
        assert_eq!(subscriber.next().await.as_deref(), Some(&b"first\n"[..]));
        subscriber.push(Bytes::from_static(b"fourth\n"), 1);
        subscriber.push_ring_gap(3);
        subscriber.push_ring_gap(4);
        subscriber.close();
        assert_eq!(
            drain(&subscriber).await,
            [
                "{\"lost\":5,\"where\":\"subscriber\"}\n",
                "fourth\n",
                "{\"lost\":7,\"where\":\"ring\"}\n"
            ]
        );
        assert_eq!(account.lost(), 5);
        assert_eq!(account.queued.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn gaps_take_two_lines_until_something_else_comes() {
        let (subscriber, account) = subscriber(64);
        for _ in 0..1_000 {
            subscriber.push(Bytes::from_static(&[b'x'; 65]), 3);
            subscriber.push_ring_gap(2);
        }
        assert_eq!(account.queued.load(Ordering::Relaxed), 0);
        subscriber.push(Bytes::from_static(b"event\n"), 1);
        subscriber.push_ring_gap(1);
        subscriber.close();
        assert_eq!(
            drain(&subscriber).await,
            [
                "{\"lost\":3000,\"where\":\"subscriber\"}\n",
                "{\"lost\":2000,\"where\":\"ring\"}\n",
                "event\n",
                "{\"lost\":1,\"where\":\"ring\"}\n"
            ]
        );
    }

    #[tokio::test]
    async fn a_loss_at_the_end_is_told_too() {
        let (subscriber, _) = subscriber(0);
        subscriber.push(Bytes::from_static(b"first\n"), 1);
        subscriber.close();
        assert_eq!(drain(&subscriber).await, ["{\"lost\":1,\"where\":\"subscriber\"}\n"]);
    }
}
