//! An event after a second of silence is shown at once: the reader sleeps deeply then.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{as_quick_as, event};

/// The aim is 50 ms. Here the program is built without optimisation and the machine may be busy,
/// but a reader that is not woken at all would let us wait for ever.
const BOUND: Duration = Duration::from_secs(1);

#[test]
fn after_silence_an_event_is_shown_at_once() {
    let turn = Turn::alone();
    let daemon = Daemon::start(&turn, &[]);
    let pid = std::process::id().to_string();
    let tail = Tail::start(&daemon, &["--pid", &pid]);
    let mut figures = Vec::new();
    for _ in 0..3 {
        // Silence has no event to wait for.
        thread::sleep(Duration::from_millis(1100));
        let begun = Instant::now();
        // Port 1 (tcpmux) is served nowhere: refused, two transitions.
        let refused = TcpStream::connect("127.0.0.1:1");
        assert!(refused.is_err());
        let first = event::event(&tail.lines.next().expect("a line"));
        figures.push(begun.elapsed());
        assert_eq!((first.edge().as_str(), first.dport), ("close>syn_sent", 1));
        assert_ne!(first.sport, 0);
        assert_eq!(tail.events(1)[0].edge(), "syn_sent>close");
    }
    eprintln!("shown after a second of silence within {figures:?}");
    assert!(figures.iter().all(|took| *took < as_quick_as(BOUND)), "{figures:?}");
}
