//! Floods of subscribers: they come, read a little or nothing, and go, faster than anybody looks.

use std::io::{Read as _, Write as _};
use std::thread;

use xtask::lab::{Addresses, Recipe};

use crate::support::books::{Auditor, PROMPT};
use crate::support::daemon::Daemon;
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

const THREADS: usize = 4;
const EACH: usize = 150;

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("procfs").count()
}

#[test]
fn that_come_and_go_leave_no_stream_no_descriptor_and_right_books() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &PROMPT);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].clone();
    let mut auditor = Auditor::new(&daemon);
    auditor.begin(&netns);
    let before = descriptors(&daemon);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let daemon = &daemon;
            scope.spawn(move || {
                for round in 0..EACH {
                    let mut stream = daemon.connect();
                    let route = match (number + round) % 4 {
                        0 => "/api/v1/events",
                        1 => "/api/v1/events?state=time_wait",
                        2 => "/api/v1/events?count=1",
                        _ => "/metrics",
                    };
                    let request = format!("GET {route} HTTP/1.1\r\nHost: tcpmon\r\n\r\n");
                    // Some go in the middle of their question, some before the answer, some in
                    // its middle.
                    let whole = round % 3 > 0;
                    let said = if whole { request.len() } else { request.len() / 2 };
                    stream.write_all(&request.as_bytes()[..said]).expect("room");
                    if round % 3 == 2 {
                        // It may be refused, as one stream too many, which is an answer too.
                        assert!(stream.read(&mut [0; 64]).expect("an answer") > 0);
                    }
                }
            });
        }
        lab::perform(&mut lab, Recipe::TimeWait, 500);
    });
    daemon.await_streams(0);
    eventually("all descriptors to be closed", || {
        // One is that of the question itself, as before.
        (descriptors(&daemon) <= before + 1).then_some(())
    });
    auditor.check_now("after the flood", std::slice::from_ref(&netns));
    let own = daemon.metrics();
    assert_eq!(own.count("tcpmon_events_lost_total", &[("where", "ring")]), 0);
}
