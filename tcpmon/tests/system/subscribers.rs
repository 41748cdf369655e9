//! Many subscribers, some of which never read: the others miss nothing, and memory is bounded.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use xtask::lab::{Addresses, Recipe};

use crate::support::daemon::Daemon;
use crate::support::event::{self, Line};
use crate::support::http::Body;
use crate::support::program::{run, tcpmon};
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

const READERS: usize = 20;
const SLEEPERS: usize = 10;
/// The load comes in pieces, each smaller than a queue: so that a reader on a busy machine is
/// never taken for a slow one. All pieces together are more than a queue and the socket's buffer
/// hold.
const PIECES: u64 = 8;
const CONNECTIONS: u64 = 500;
/// How often this is tried on a machine that is never quiet.
const ATTEMPTS: usize = 5;
/// So many events of others make no difference: they are an eightieth of what a queue holds.
const NEGLIGIBLE: u64 = 250;
/// What the daemon may have resident: 8 MiB for the queues, whose chunks are shared; three times
/// as much that the sockets hold, at most; and the daemon itself, built without optimisation.
const BOUND: u64 = 120 << 20;

/// What came of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    shown: u64,
    lost: u64,
}

/// Reads a stream to the mark on a thread of its own. `progress` is what the stream has told of,
/// as shown or as lost.
fn read(stream: Body<UnixStream>, mark: String, progress: Arc<AtomicU64>) -> JoinHandle<Account> {
    thread::spawn(move || {
        let mut account = Account::default();
        for line in BufReader::new(stream).lines() {
            let line = line.expect("the stream goes on");
            if line.starts_with("{\"lost\"") {
                match event::parse(&line) {
                    Line::Gap { lost, .. } => account.lost += lost,
                    Line::Event(event) => panic!("{event:?}"),
                }
            } else {
                account.shown += 1;
            }
            progress.store(account.shown + account.lost, Ordering::Relaxed);
            if line.contains(&mark) && line.contains("\"old\":\"syn_sent\"") {
                return account;
            }
        }
        panic!("the stream ended before the mark")
    })
}

/// Streams that are being read.
struct Readers {
    threads: Vec<JoinHandle<Account>>,
    progress: Vec<Arc<AtomicU64>>,
}

impl Readers {
    fn of(streams: impl IntoIterator<Item = Body<UnixStream>>, mark: &str) -> Self {
        let (threads, progress) = streams
            .into_iter()
            .map(|stream| {
                let progress = Arc::new(AtomicU64::new(0));
                (read(stream, mark.to_owned(), Arc::clone(&progress)), progress)
            })
            .unzip();
        Self { threads, progress }
    }

    /// Waits until all of them have been told of so many events.
    fn await_progress(&self, events: u64, mut meanwhile: impl FnMut()) {
        eventually("all to have read all there is", || {
            meanwhile();
            let behind = self.progress.iter().any(|told| told.load(Ordering::Relaxed) < events);
            (!behind).then_some(())
        });
    }

    fn accounts(self) -> Vec<Account> {
        self.threads.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    }
}

#[test]
fn slow_subscribers_cost_the_others_nothing() {
    let turn = Turn::alone();
    // A load of somebody else's can make anybody slow.
    let undisturbed = (0..ATTEMPTS).any(|_| {
        let foreign = try_once(&turn);
        foreign <= NEGLIGIBLE
    });
    assert!(undisturbed, "other programs made connections during each of {ATTEMPTS} attempts");
}

/// Tells how many events were not ours; if those are many, nothing was tested.
fn try_once(turn: &Turn) -> u64 {
    let daemon = Daemon::start(turn, &[]);
    let mut load = lab::open(Addresses::Ipv4);
    // In a namespace of its own, so that nobody takes it for another.
    let mut mark = lab::open(Addresses::Ipv4);
    let of_mark = format!("\"netns\":{},", mark.namespaces()[0].inode);

    // Not what others leave: their time-wait sockets end when it is their time.
    let both = [&load, &mark].map(|lab| lab.namespaces()[0].inode.to_string()).join(",");
    let query = format!("netns={both}");
    let sleepers: Vec<_> = (0..SLEEPERS).map(|_| daemon.stream(&query)).collect();
    let readers = Readers::of((0..READERS).map(|_| daemon.stream(&query)), &of_mark);
    assert_eq!(daemon.streams(), (READERS + SLEEPERS) as u64);

    let mut happened = 0;
    let mut most_resident = 0;
    for _ in 0..PIECES {
        let done = load.perform(Recipe::Churn, Some(CONNECTIONS)).expect("a load");
        happened += done.shown_transitions();
        readers.await_progress(happened, || {
            most_resident = most_resident.max(daemon.resident_bytes());
        });
    }
    // They awake, and learn what they missed.
    let late = Readers::of(sleepers, &of_mark);
    late.await_progress(happened, || {});
    mark.perform(Recipe::Refused, Some(1)).expect("a mark");

    let accounts = readers.accounts();
    // Others may connect too, which everybody sees; the mark is two events.
    let told = |account: &Account| account.shown + account.lost;
    let all = told(&accounts[0]);
    let foreign = all.checked_sub(happened + 2).expect("nobody misses anything untold");
    if foreign > NEGLIGIBLE {
        eprintln!("tried again, because of {foreign} events of others");
        return foreign;
    }
    for account in &accounts {
        assert_eq!(*account, Account { shown: all, lost: 0 });
    }
    let mut lost = 0;
    for account in late.accounts() {
        assert!(account.lost > 0 && account.shown > 0, "{account:?}");
        assert_eq!(told(&account), all);
        lost += account.lost;
    }
    let metrics = daemon.metrics();
    let counted = |place| metrics.count("tcpmon_events_lost_total", &[("where", place)]);
    assert_eq!((counted("subscriber"), counted("ring")), (lost, 0));
    let mib = most_resident >> 20;
    eprintln!("{SLEEPERS} of {} subscribers asleep: {mib} MiB resident", READERS + SLEEPERS);
    assert!(most_resident < BOUND, "{mib} MiB resident");
    foreign
}

#[test]
fn there_is_a_bound_to_streams_and_a_line_that_says_so() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let most = tcpmon::daemon::hub::STREAMS;
    let streams: Vec<_> = (0..most).map(|_| daemon.stream("")).collect();
    let refused = daemon.get("/api/v1/events");
    assert_eq!(refused.status, 503);
    let told = refused.text();
    assert!(told.contains(&most.to_string()) && told.contains("end one"), "{told}");
    let tail = run(&mut tcpmon(&[], &["tail", "--socket", daemon.socket_text()]));
    assert_eq!((tail.code, tail.stderr.lines().count()), (Some(1), 1), "{tail:?}");
    assert!(tail.stderr.contains("end one"), "{tail:?}");
    drop(streams);
    daemon.await_streams(0);
    assert_eq!(daemon.get("/api/v1/events?count=1").status, 200);
}
