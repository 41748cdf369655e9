//! A service that does not close what its peers have closed.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::alert;
use crate::support::daemon::Daemon;
use crate::support::lab::inside;
use crate::support::load::{TO, small};
use crate::support::turn::Turn;
use crate::support::{PATIENCE, eventually};

#[test]
fn a_close_wait_leak_is_told_with_its_owner_and_ends() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &["--alert.growth", "10"]);
    let (_lab, netns) = small(1_000, "0");
    let mut leaked = Vec::new();
    let begun = Instant::now();
    let row = inside(&netns, || {
        let listener = TcpListener::bind(TO).expect("a port");
        loop {
            assert!(begun.elapsed() < 2 * PATIENCE, "no leak is told of");
            drop(TcpStream::connect(TO).expect("a connection"));
            leaked.push(listener.accept().expect("a client").0);
            if let Some(row) = alert(&daemon, &netns, "TcpCloseWaitLeak") {
                break row;
            }
            // The leak has this pace.
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    assert!(begun.elapsed() > Duration::from_mins(1), "they are not old yet: {row}");
    assert_eq!(row["service"], row["owners"][0]["service"], "{row}");
    assert_ne!(row["service"], "", "{row}");
    drop(leaked);
    eventually("its end", || alert(&daemon, &netns, "TcpCloseWaitLeak").is_none().then_some(()));
}

/// The connections grow old while nothing else happens, and nobody asks.
#[test]
fn a_leak_that_nothing_has_followed_is_told_too() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &["--alert.growth", "10"]);
    let (_lab, netns) = small(1_000, "0");
    let _leaked = inside(&netns, || {
        let listener = TcpListener::bind(TO).expect("a port");
        let mut leaked = Vec::new();
        for _ in 0..12 {
            let client = TcpStream::connect(TO).expect("a connection");
            let (server, _) = listener.accept().expect("a client");
            // Not closed: the time-wait table would be looked at until it leaves that.
            client.shutdown(Shutdown::Write).expect("a FIN");
            leaked.push((client, server));
            // The leak has this pace.
            std::thread::sleep(Duration::from_secs(2));
        }
        leaked
    });
    daemon.hear(&["alert=TcpCloseWaitLeak state=raised", &netns]);
}
