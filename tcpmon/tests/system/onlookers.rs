//! A hundred open pages and thirty `tail`s, and a load as fast as it goes: whoever looks on changes
//! nothing that is counted, and costs a bounded amount of memory.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use xtask::lab::{Addresses, Recipe};

use crate::counters::compare;
use crate::support::daemon::Daemon;
use crate::support::event::{self, Line};
use crate::support::http::{self, Body};
use crate::support::measure::Witness;
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

const PAGES: usize = 100;
const TAILS: usize = 30;
const CONNECTIONS: u64 = 3_000;
/// What the daemon may have resident: 8 MiB of queues, whose chunks are shared, what the sockets
/// hold, and the daemon itself, built without optimisation.
const BOUND: u64 = 192 << 20;
/// A page asks for a report as often.
const PAGE_ASKS_EVERY: Duration = Duration::from_secs(2);

/// Transitions that a stream has told of, as shown or as lost.
type Told = Arc<AtomicU64>;

/// Reads a stream to its end on a thread of its own.
fn read(stream: Body<impl Read + Send + 'static>) -> (JoinHandle<()>, Told) {
    let told = Told::default();
    let sum = Arc::clone(&told);
    let thread = thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            // It ends with the daemon.
            let Ok(line) = line else { return };
            let line = line.strip_prefix("data: ").unwrap_or(&line);
            if line.is_empty() {
                continue;
            }
            let events = if line.starts_with("{\"lost\"") {
                match event::parse(line) {
                    Line::Gap { lost, .. } => lost,
                    Line::Event(event) => panic!("{event:?}"),
                }
            } else {
                1
            };
            sum.fetch_add(events, Ordering::Relaxed);
        }
    });
    (thread, told)
}

#[test]
fn a_hundred_pages_and_thirty_tails_change_no_figure() {
    let turn = Turn::alone();
    let witness = Witness::start(&turn);
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let query = format!("netns={}", lab.inodes()[0]);
    let route = format!("/api/v1/events?{query}");
    let page = || daemon.get_by_tcp(&route, &[("Accept", "text/event-stream")]).body;
    let (mut threads, mut told): (Vec<_>, Vec<_>) = (0..PAGES).map(|_| read(page())).unzip();
    let tails: (Vec<_>, Vec<_>) = (0..TAILS).map(|_| read(daemon.stream(&query))).unzip();
    threads.extend(tails.0);
    told.extend(tails.1);
    assert_eq!(daemon.streams(), (PAGES + TAILS) as u64);

    let is_over = AtomicBool::new(false);
    let (measured, most_resident) = thread::scope(|scope| {
        let reports = scope.spawn(|| {
            let mut most_resident = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Not over TCP: a new connection would be seen as another program's.
                let of_a_page = [("Cache-Control", "max-age=1")];
                let report = http::get(daemon.connect(), "/api/v1/report", &of_a_page);
                assert_eq!(report.status, 200);
                most_resident = most_resident.max(daemon.resident_bytes());
                // The pace of so many pages.
                thread::sleep(PAGE_ASKS_EVERY / u32::try_from(PAGES).expect("few"));
            }
            most_resident
        });
        let measured = witness.measure(&daemon, &mut lab, |lab| {
            vec![lab.perform(Recipe::Churn, Some(CONNECTIONS)).expect("a load")]
        });
        is_over.store(true, Ordering::Relaxed);
        (measured, reports.join().expect("the pages"))
    });
    compare(&measured);
    let mib = most_resident >> 20;
    eprintln!("{PAGES} pages and {TAILS} tails: {mib} MiB resident");
    assert!(most_resident < BOUND, "{mib} MiB resident");

    // Nobody misses anything untold.
    let all = measured.done[0].shown_transitions();
    eventually("all to have been told of all", || {
        told.iter().all(|told| told.load(Ordering::Relaxed) >= all).then_some(())
    });
    let lost = daemon.metrics().count("tcpmon_events_lost_total", &[("where", "ring")]);
    assert_eq!(lost, 0, "on the ring");
    drop(daemon);
    for thread in threads {
        thread.join().expect("a reader");
    }
}
