//! The time of day, set forward and back while the daemon runs.
//!
//! A test that sets the clock takes it from everybody, so it is done on a machine of its own only:
//! where `TCPMON_MAY_SET_CLOCK` is set, as it is in the machines of `cargo xtask vm`. Everywhere it
//! is held that nothing but what is shown to people asks for the time of day, so that nothing else
//! can be led astray by it (`src/daemon/clock.rs`).

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use xtask::lab::{Addresses, Recipe};

use crate::support::books::{Auditor, PROMPT};
use crate::support::daemon::Daemon;
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{lab, skipped};

/// Sets the time of day off by so many seconds, and back when dropped.
struct Step {
    begun: Instant,
    was: Timespec,
}

impl Step {
    fn by(seconds: i64) -> Self {
        let was = clock_gettime(ClockId::Realtime);
        let begun = Instant::now();
        let then = Timespec { tv_sec: was.tv_sec + seconds, ..was };
        clock_settime(ClockId::Realtime, then).expect("CAP_SYS_TIME");
        Self { begun, was }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let passed = self.begun.elapsed();
        let whole = i64::try_from(passed.as_secs()).unwrap_or_default();
        let nanoseconds = self.was.tv_nsec + i64::from(passed.subsec_nanos());
        let then = Timespec {
            tv_sec: self.was.tv_sec + whole + nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000,
        };
        clock_settime(ClockId::Realtime, then).expect("CAP_SYS_TIME");
    }
}

#[test]
fn set_forward_and_back_it_leads_nothing_astray() {
    if std::env::var_os("TCPMON_MAY_SET_CLOCK").is_none() {
        return skipped("clock steps", "clock that may be set (TCPMON_MAY_SET_CLOCK)");
    }
    let turn = Turn::alone();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    let tail = Tail::start(&daemon, &["--netns", &netns.inode.to_string()]);
    for seconds in [3_600, -3_600, 5, -5] {
        let step = Step::by(seconds);
        let begun = Instant::now();
        let done = lab::perform(&mut lab, Recipe::ClientFirst, 3).expect("connections");
        // No duration is longer than what has passed by a clock that cannot be set.
        let longest = begun.elapsed() + Duration::from_millis(10);
        for event in tail.events(done.shown_transitions()) {
            let took = event.duration_us.map(Duration::from_micros);
            assert!(took.is_none_or(|took| took <= longest), "{seconds}: {event:?}");
        }
        let done = lab::perform(&mut lab, Recipe::TimeWait, 100).expect("a load");
        drop(tail.events(done.shown_transitions()));
        drop(step);
        auditor.check_now("after the clock was set", std::slice::from_ref(&netns));
    }
}

#[test]
fn in_a_time_namespace_events_have_the_time_of_day_and_come_at_once() {
    let turn = Turn::shared();
    let seconds = 100_000;
    let offset = seconds.to_string();
    // Before Linux 6.3 only a child is inside.
    let before = ["unshare", "--time", "--monotonic", &offset, "--fork", "--kill-child"];
    let daemon = Daemon::start_behind(&turn, &before, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let tail = Tail::start(&daemon, &["--netns", &lab.inodes()[0].to_string()]);
    let begun = jiff::Timestamp::now();
    let done = lab::perform(&mut lab, Recipe::ClientFirst, 1).expect("a connection");
    for event in tail.events(done.shown_transitions()) {
        let at: jiff::Timestamp = event.ts.parse().expect("RFC 3339");
        let late = at.duration_since(begun).as_secs();
        assert!((-1..=30).contains(&late), "{late} s: {event:?}");
    }
}
