//! The hub: from the reader's batches to every subscriber's queue.
//!
//! A thread of its own makes events of the records (names, wall-clock time, JSON) once for all
//! subscribers, and gives each what its filter lets through. Filters apply before queueing.

use super::{
    clock::UtcOffset,
    departures::Departures,
    heart::Pulse,
    held::Held,
    names::{BatchNames, Names},
    pipeline::Health,
    reader::{Batch, ReaderControl},
    subscriber::{Account, Subscriber},
};
use crate::{
    export::Format,
    kernel::privileges::{self, Role},
    model::{event::Event, filter::Filter, json::JsonWriter},
};
use bytes::Bytes;
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tcpmon_common::Transition;

/// Streams at a time: each costs the hub its filter for every event, and up to a whole queue.
pub const STREAMS: usize = 192;

/// There are as many streams as there may be.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("there are {STREAMS} streams already; end one of them")]
pub struct TooManyStreams;

/// Where streams are subscribed to.
#[derive(Debug)]
pub struct Hub {
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    reader: ReaderControl,
    queue_bytes: usize,
    account: Arc<Account>,
    pulse: Pulse,
}

/// A subscription, which ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    subscriber: Arc<Subscriber>,
}

impl Subscription {
    /// The next chunk of whole lines; `None` at the end of the stream.
    pub async fn next(&self) -> Option<Bytes> {
        self.subscriber.next().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.hub.subscribers();
        subscribers.retain(|other| !Arc::ptr_eq(other, &self.subscriber));
        if subscribers.is_empty() {
            self.hub.reader.stream(false);
        }
    }
}

impl Hub {
    /// A hub without subscribers, each of which may have `queue_bytes` waiting.
    #[must_use]
    pub fn new(reader: ReaderControl, queue_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            subscribers: Mutex::default(),
            reader,
            queue_bytes,
            account: Arc::default(),
            pulse: Pulse::default(),
        })
    }

    /// Begins a stream. When this returns, the probes put their records on the rings: whatever
    /// happens from then on is in the stream.
    ///
    /// # Errors
    ///
    /// Where there are [`STREAMS`] already.
    pub fn subscribe(
        self: &Arc<Self>,
        filter: Filter,
        format: Format,
    ) -> Result<Subscription, TooManyStreams> {
        let subscriber =
            Arc::new(Subscriber::new(filter, format, self.queue_bytes, Arc::clone(&self.account)));
        let mut subscribers = self.subscribers();
        if subscribers.len() >= STREAMS {
            return Err(TooManyStreams);
        }
        subscribers.push(Arc::clone(&subscriber));
        self.reader.stream(true);
        drop(subscribers);
        self.reader.wait_until_told();
        Ok(Subscription { hub: Arc::clone(self), subscriber })
    }

    /// Beats with every batch.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// How many streams there are.
    #[must_use]
    pub fn subscriber_count(&self) -> usize {
        self.subscribers().len()
    }

    /// Events that slow subscribers lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.account.lost()
    }

    /// Ends all streams after what is queued.
    pub fn close(&self) {
        for subscriber in self.subscribers().iter() {
            subscriber.close();
        }
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the hub's thread, which ends when the reader does.
///
/// # Errors
///
/// Where no thread can be started.
pub fn start(
    hub: Arc<Hub>,
    names: Arc<Names>,
    batches: Receiver<Batch>,
    spares: Sender<Vec<Transition>>,
    health: Health,
) -> io::Result<JoinHandle<()>> {
    let mut worker = Worker::new(hub, names);
    std::thread::Builder::new().name("tcpmon-hub".to_owned()).spawn(move || {
        privileges::shed(Role::Other);
        health.watch(|| worker.run(&batches, &spares));
        // Nothing comes any more, however it ended: nobody should wait for it.
        worker.hub.close();
    })
}
struct Worker {
    hub: Arc<Hub>,
    names: Arc<Names>,
    held: Held,
    departures: Departures,
    clock: UtcOffset,
    json: JsonWriter,
    /// Records lost on the rings by the last batch.
    lost_total: u64,
    events: Vec<Event>,
}

impl Worker {
    fn new(hub: Arc<Hub>, names: Arc<Names>) -> Self {
        Self {
            hub,
            names,
            held: Held::default(),
            departures: Departures::default(),
            clock: UtcOffset::default(),
            json: JsonWriter::new(),
            lost_total: 0,
            events: Vec::new(),
        }
    }

    fn run(&mut self, batches: &Receiver<Batch>, spares: &Sender<Vec<Transition>>) {
        loop {
            let deadline = self.held.deadline().into_iter().chain(self.departures.deadline()).min();
            let batch = match deadline {
                None => batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => {
                    batches.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                }
            };
            match batch {
                Ok(mut batch) => {
                    self.handle(&mut batch);
                    self.hub.pulse.beat();
                    batch.records.clear();
                    // The reader may have ended; then the vector is not needed.
                    let _ = spares.send(batch.records);
                }
                Err(RecvTimeoutError::Timeout) => self.settle(&mut Vec::new(), Instant::now()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn handle(&mut self, batch: &mut Batch) {
        self.settle(&mut batch.records, batch.looked);
        let lost = if batch.begins { 0 } else { batch.lost_total.saturating_sub(self.lost_total) };
        self.lost_total = batch.lost_total;
        if lost > 0 {
            for subscriber in self.hub.subscribers().iter() {
                subscriber.push_ring_gap(lost);
            }
        }
    }

    fn settle(&mut self, records: &mut Vec<Transition>, looked: Instant) {
        let now = Instant::now();
        self.held.settle(records, looked, now);
        self.departures.settle(records, looked, now);
        if records.is_empty() {
            return;
        }
        let utc_offset_ns = self.clock.now_ns();
        let mut events = std::mem::take(&mut self.events);
        let shared_names = Arc::clone(&self.names);
        let mut names = shared_names.batch(now);
        for record in records.iter() {
            let service = names.service(record);
            match Event::from_record(record, utc_offset_ns, service) {
                Ok(event) => events.push(event),
                Err(error) => log::error!("{error}"),
            }
        }
        let mut subscribers = self.hub.subscribers().clone();
        subscribers.retain(|subscriber| !subscriber.is_closed());
        for takers in groups(&subscribers) {
            self.share(&takers, &events, &names);
        }
        for subscriber in subscribers.iter().filter(|subscriber| !shares(subscriber)) {
            self.pick(subscriber, &events, &names);
        }
        events.clear();
        self.events = events;
    }

    /// Gives events to those who want the same, in chunks that they share.
    fn share(&mut self, takers: &[&Subscriber], events: &[Event], names: &BatchNames<'_>) {
        let Some(first) = takers.first() else { return };
        let chunk_bytes = takers.iter().map(|taker| taker.chunk_bytes()).min().unwrap_or(0);
        let mut chunk = Chunk::new(first.format, events.len(), chunk_bytes);
        let named = |inode, name: &str| names.netns_is(inode, name);
        for event in events.iter().filter(|event| first.filter.matches(event, named)) {
            chunk.add(&mut self.json, event);
            if chunk.bytes.len() >= chunk_bytes {
                let (bytes, count) = chunk.take();
                push_all(takers, &bytes, count);
            }
        }
        let (bytes, count) = chunk.take();
        if count > 0 {
            push_all(takers, &bytes, count);
        }
    }

    /// Gives one subscriber the events that its filter lets through.
    fn pick(&mut self, subscriber: &Subscriber, events: &[Event], names: &BatchNames<'_>) {
        let mut wanted = subscriber.remaining().unwrap_or(u64::MAX);
        let chunk_bytes = subscriber.chunk_bytes();
        let mut chunk = Chunk::new(subscriber.format, events.len(), chunk_bytes);
        for event in events {
            if wanted == 0 {
                break;
            }
            let named = |inode, name: &str| names.netns_is(inode, name);
            if subscriber.filter.matches(event, named) {
                chunk.add(&mut self.json, event);
                wanted -= 1;
                if chunk.bytes.len() >= chunk_bytes {
                    let (bytes, count) = chunk.take();
                    subscriber.push(bytes, count);
                    // A chunk that was refused is still wanted.
                    wanted = subscriber.remaining().unwrap_or(u64::MAX);
                }
            }
        }
        let (bytes, count) = chunk.take();
        if count > 0 {
            subscriber.push(bytes, count);
        }
    }
}

fn push_all(takers: &[&Subscriber], chunk: &Bytes, events: u64) {
    for taker in takers {
        taker.push(chunk.clone(), events);
    }
}

/// Whether a subscriber may have chunks that others have too: not if it counts its events.
fn shares(subscriber: &Subscriber) -> bool {
    subscriber.filter.count.is_none()
}

/// Those of them who want the same, together.
fn groups(subscribers: &[Arc<Subscriber>]) -> Vec<Vec<&Subscriber>> {
    let mut groups: Vec<Vec<&Subscriber>> = Vec::new();
    for subscriber in subscribers.iter().filter(|subscriber| shares(subscriber)) {
        let wants_the_same = |group: &&mut Vec<&Subscriber>| {
            group.first().is_some_and(|first| {
                first.format == subscriber.format && first.filter == subscriber.filter
            })
        };
        match groups.iter_mut().find(wants_the_same) {
            Some(group) => group.push(subscriber),
            None => groups.push(vec![subscriber]),
        }
    }
    groups
}

/// Bytes that an event hardly ever exceeds, written for a stream.
const EVENT_BYTES: usize = 384;

struct Chunk {
    format: Format,
    /// Bytes to make room for at once.
    room: usize,
    bytes: Vec<u8>,
    events: u64,
}

impl Chunk {
    /// For so many events at most, and not many more bytes.
    fn new(format: Format, events: usize, bytes: usize) -> Self {
        let room = (events * EVENT_BYTES).min(bytes + EVENT_BYTES);
        Self { format, room, bytes: Vec::new(), events: 0 }
    }

    fn add(&mut self, json: &mut JsonWriter, event: &Event) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(self.room);
        }
        let (before, after) = self.format.frame();
        self.bytes.extend_from_slice(before);
        json.event(event, &mut self.bytes);
        self.bytes.extend_from_slice(after);
        self.events += 1;
    }

    fn take(&mut self) -> (Bytes, u64) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() < bytes.capacity() / 2 {
            // It may wait in a queue, where only its length counts.
            bytes.shrink_to_fit();
        }
        (bytes.into(), std::mem::take(&mut self.events))
    }
}

/// How long a subscriber waits for the probes to be told.
pub(super) const TOLD_WITHIN: Duration = Duration::from_secs(1);
