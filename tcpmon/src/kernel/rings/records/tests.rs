use super::*;
use std::{
    mem::ManuallyDrop,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
    thread,
};
use tcpmon_common::TcpState;

/// What the probes do, in Rust: `tcpmon-ebpf/src/ring.rs`.
struct Probe {
    shape: RingShape,
    slots: ManuallyDrop<Mapped<Slot>>,
    ends: ManuallyDrop<Mapped<RingEnds>>,
}

impl Probe {
    fn of(records: &Records) -> Self {
        let (slots, ends) = (records.places.slots.again(), records.ends.again());
        Self { shape: records.shape(), slots, ends }
    }

    fn end(&self, ring: u32, offset: usize) -> &AtomicU64 {
        self.ends.word(ring, offset).expect("a ring")
    }

    fn claim(&self, ring: u32) -> Option<u64> {
        let word = |offset| self.end(ring, offset);
        loop {
            let read = word(offset_of!(RingEnds, read)).load(Ordering::SeqCst);
            let claimed = word(offset_of!(RingEnds, claimed));
            let number = claimed.load(Ordering::SeqCst);
            let before = number.wrapping_sub(read);
            if before == u64::from(self.shape.slots) {
                word(offset_of!(RingEnds, lost)).fetch_add(1, Ordering::SeqCst);
                return None;
            }
            let swap = (number, number + 1, Ordering::SeqCst, Ordering::SeqCst);
            if before < u64::from(self.shape.slots)
                && claimed.compare_exchange(swap.0, swap.1, swap.2, swap.3).is_ok()
            {
                return Some(number);
            }
        }
    }

    fn submit(&self, ring: u32, number: u64, record: Transition) {
        let inside = u32::try_from(number % u64::from(self.shape.slots)).expect("a place");
        let place = ring * self.shape.slots + inside;
        let word = |offset| self.slots.word(place, offset).expect("a word");
        // SAFETY: both are the same bytes without a meaning of their own.
        let words = unsafe { std::mem::transmute::<Transition, [u64; 13]>(record) };
        for (index, value) in words.into_iter().enumerate() {
            word(offset_of!(Slot, record) + 8 * index).store(value, Ordering::Relaxed);
        }
        word(offset_of!(Slot, turn)).store(number + 1, Ordering::Release);
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
    u64::try_from(clock::of_probes().as_nanos()).expect("less than centuries")
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
fn nothing_overtakes_what_stands_behind_a_record_that_is_not_whole() {
    let mut records = rings(2, 16);
    let probe = Probe::of(&records);
    for (ring, ts_ns) in [(0, 1), (1, 2)] {
        probe.put(ring, record(ts_ns, 1));
    }
    let number = probe.claim(0).expect("there is room");
    probe.put(0, record(4, 1));
    for ts_ns in [3, 5] {
        probe.put(1, record(ts_ns, 1));
    }
    assert_eq!(take(&mut records, 100), [1, 2, 3]);
    assert!(take(&mut records, 100).is_empty());
    probe.submit(0, number, record(3, 2));
    assert_eq!(take(&mut records, 100), [3, 4, 5]);
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
    const SOCKETS: u32 = 3;
    // Miri interprets, and looks for races on the way.
    const EACH: u32 = if cfg!(miri) { 60 } else { 20_000 };
    let mut records = rings(2, 64);
    let probe = Probe::of(&records);
    let sockets = [const { Mutex::new(0u64) }; SOCKETS as usize];
    let running = AtomicU32::new(CPUS);
    let disordered = AtomicBool::new(false);
    let mut read = [0u64; SOCKETS as usize];
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (sockets, running, probe) = (&sockets, &running, &probe);
            scope.spawn(move || {
                for turn in 0..EACH {
                    let socket = (turn + cpu) % SOCKETS;
                    let mut made = sockets[socket as usize].lock().expect("nobody panics");
                    let mut made_now = record(now_ns(), u64::from(socket));
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
                let next = &mut read[usize::try_from(record.cookie).expect("a socket")];
                disordered.fetch_or(record.duration_ns != *next, Ordering::SeqCst);
                *next = record.duration_ns + 1;
            }
            if is_last && taken.is_empty() && records.are_empty() {
                break;
            }
        }
    });
    assert!(!disordered.into_inner(), "a socket's records came in another order");
    let made = sockets.map(|made| made.into_inner().expect("nobody panicked"));
    assert_eq!(read, made);
    assert_eq!(made.iter().sum::<u64>() + records.lost(), u64::from(CPUS * EACH));
}
