use super::*;
use std::{
    ptr::NonNull,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32},
    },
    thread,
};
use tcpmon_common::TcpState;

/// What the probes do, in Rust: `tcpmon-ebpf/src/ring.rs`.
#[derive(Clone, Copy)]
struct Probe {
    shape: RingShape,
    slots: NonNull<Slot>,
    ends: NonNull<RingEnds>,
}

// SAFETY: the memory is the test's, which outlives its threads.
unsafe impl Send for Probe {}
// SAFETY: as above.
unsafe impl Sync for Probe {}

impl Probe {
    fn of(records: &Records) -> Self {
        Self {
            shape: records.shape(),
            slots: records.places.slots.place(0).expect("a place"),
            ends: records.ends.place(0).expect("a ring"),
        }
    }

    /// The three words of a ring: claimed, lost, read.
    fn words(&self, ring: u32) -> [&AtomicU64; 3] {
        // SAFETY: inside, and valid as long as the rings.
        unsafe {
            let ends = self.ends.add(ring as usize).as_ptr();
            [
                AtomicU64::from_ptr(&raw mut (*ends).claimed),
                AtomicU64::from_ptr(&raw mut (*ends).lost),
                AtomicU64::from_ptr(&raw mut (*ends).read),
            ]
        }
    }

    fn claim(&self, ring: u32) -> Option<u64> {
        let [claimed, lost, read] = self.words(ring);
        let free = |number: u64| {
            let before = number - read.load(Ordering::Acquire);
            (before < u64::from(self.shape.slots)).then_some(number + 1)
        };
        let number = claimed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).ok();
        if number.is_none() {
            lost.fetch_add(1, Ordering::SeqCst);
        }
        number
    }

    fn submit(&self, ring: u32, number: u64, record: Transition) {
        let place = ring * self.shape.slots + (number % u64::from(self.shape.slots)) as u32;
        // SAFETY: inside; the place is this claim's alone.
        unsafe {
            let slot = self.slots.add(place as usize).as_ptr();
            (&raw mut (*slot).record).write(record);
            AtomicU64::from_ptr(&raw mut (*slot).turn).store(number + 1, Ordering::Release);
        }
    }

    fn put(&self, ring: u32, record: Transition) -> bool {
        self.claim(ring).map(|number| self.submit(ring, number, record)).is_some()
    }
}

fn rings(rings: u32, slots: u32) -> Records {
    let shape = RingShape { rings, slots };
    let memory = "memory for the rings";
    Records::new(
        shape,
        Mapped::of_nobody(shape.all_slots()).expect(memory),
        Mapped::of_nobody(rings).expect(memory),
    )
}

fn record(ts_ns: u64, cookie: u64) -> Transition {
    Transition {
        ts_ns,
        cookie,
        ..crate::model::event::tests::record_of(TcpState::Listen, TcpState::Close, 0)
    }
}

fn now_ns() -> u64 {
    u64::try_from(clock::read(ClockId::Monotonic).as_nanos()).expect("less than centuries")
}

fn take(records: &mut Records, most: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    records.take(&mut taken, most);
    taken.iter().map(|record| record.ts_ns).collect()
}

#[test]
fn records_come_in_the_order_of_their_time() {
    let mut records = rings(4, 16);
    let probe = Probe::of(&records);
    for (ring, ts_ns) in [(0, 10), (1, 5), (0, 20), (3, 12), (1, 30), (3, 12), (0, 25)] {
        assert!(probe.put(ring, record(ts_ns, 1)));
    }
    assert_eq!(take(&mut records, 3), [5, 10, 12]);
    assert!(!records.are_empty());
    assert_eq!(take(&mut records, 100), [12, 20, 25, 30]);
    assert!(records.are_empty());
}

#[test]
fn what_is_younger_than_the_look_waits_for_the_next() {
    let mut records = rings(2, 16);
    let probe = Probe::of(&records);
    let future = now_ns() + 60_000_000_000;
    probe.put(0, record(1, 1));
    probe.put(0, record(future, 1));
    probe.put(1, record(2, 1));
    assert_eq!(take(&mut records, 100), [1, 2]);
    assert!(!records.are_empty());
}

#[test]
fn a_record_that_is_not_whole_is_waited_for() {
    let mut records = rings(1, 16);
    let probe = Probe::of(&records);
    let number = probe.claim(0).expect("there is room");
    probe.put(0, record(2, 1));
    assert!(take(&mut records, 100).is_empty());
    assert!(!records.are_empty());
    probe.submit(0, number, record(1, 1));
    assert_eq!(take(&mut records, 100), [1, 2]);
}

#[test]
fn a_full_ring_counts_what_it_loses_and_goes_on() {
    let mut records = rings(2, 16);
    let probe = Probe::of(&records);
    for turn in 0..3 {
        for ts_ns in 0..20 {
            probe.put(1, record(ts_ns, 1));
        }
        assert_eq!(take(&mut records, 100), (0..16).collect::<Vec<_>>());
        assert_eq!(records.lost(), 4 * (turn + 1));
    }
    assert!(probe.put(0, record(1, 1)));
    assert_eq!(records.lost(), 12);
}

/// Threads in the part of CPUs, sockets that wander between them under their lock, and a reader:
/// nobody's records come in another order than they were made in, and none is missing.
#[test]
fn each_sockets_records_keep_their_order_whatever_ring_they_are_on() {
    const CPUS: u32 = 4;
    const SOCKETS: usize = 3;
    const EACH: u64 = 20_000;
    let mut records = rings(2, 64);
    let probe = Probe::of(&records);
    let sockets: Vec<Mutex<u64>> = (0..SOCKETS).map(|_| Mutex::new(0)).collect();
    let running = AtomicU32::new(CPUS);
    let disordered = AtomicBool::new(false);
    let mut read = [0u64; SOCKETS];
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (sockets, running) = (&sockets, &running);
            scope.spawn(move || {
                for turn in 0..EACH {
                    let socket = (turn as usize + cpu as usize) % SOCKETS;
                    let mut made = sockets[socket].lock().expect("nobody panics");
                    let mut made_now = record(now_ns(), socket as u64);
                    made_now.duration_ns = *made;
                    if probe.put(cpu % probe.shape.rings, made_now) {
                        *made += 1;
                    }
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        loop {
            let is_last = running.load(Ordering::SeqCst) == 0;
            let mut taken = Vec::new();
            records.take(&mut taken, 50);
            for record in &taken {
                let next = &mut read[record.cookie as usize];
                disordered.fetch_or(record.duration_ns != *next, Ordering::SeqCst);
                *next = record.duration_ns + 1;
            }
            if is_last && taken.is_empty() && records.are_empty() {
                break;
            }
        }
    });
    assert!(!disordered.into_inner(), "a socket's records came in another order");
    let made: Vec<u64> =
        sockets.into_iter().map(|made| made.into_inner().expect("nobody panicked")).collect();
    assert_eq!(read.to_vec(), made);
    assert_eq!(made.iter().sum::<u64>() + records.lost(), u64::from(CPUS) * EACH);
}
