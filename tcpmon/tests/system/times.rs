//! When a transition happened: the probes take TCP's own reading of the clock where there is one,
//! which must never be that of an earlier segment.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::net::{Shutdown, shutdown, sockopt};

use crate::support::daemon::Daemon;
use crate::support::event::Event;
use crate::support::tail::Tail;
use crate::support::turn::Turn;

/// Between two steps: a time that is older than the step stands out then.
const PAUSE: Duration = Duration::from_millis(100);

/// The time of day may be set by a little while this runs.
const SLACK: SignedDuration = SignedDuration::from_millis(20);

/// A connection to ourselves, whose steps are watched.
struct Watched {
    tail: Tail,
    client: TcpStream,
    server: TcpStream,
}

impl Watched {
    fn connect(daemon: &Daemon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        let tail = Tail::start(daemon, &["--port", &to.port().to_string()]);
        let edges =
            ["close>syn_sent", "listen>syn_recv", "syn_recv>established", "syn_sent>established"];
        let (client, server) = step(&tail, &edges, || {
            let client = TcpStream::connect(to).expect("a connection");
            (client, listener.accept().expect("a connection").0)
        });
        // Its end is not of interest.
        step(&tail, &["listen>close"], || drop(listener));
        Self { tail, client, server }
    }

    /// Ends what the client sends; the server's end stays open.
    fn half_close(&self) {
        let edges = ["established>close_wait", "established>fin_wait1", "fin_wait1>fin_wait2"];
        step(&self.tail, &edges, || shutdown(&self.client, Shutdown::Write).expect("a FIN"));
    }

    /// Sends a byte to the client, which reads the clock for it and makes no transition.
    fn talk(&mut self) {
        thread::sleep(PAUSE);
        self.server.write_all(b"x").expect("a byte");
        self.client.read_exact(&mut [0]).expect("a byte");
    }
}

/// Does one thing, and sees that what comes of it is told with a time since then.
fn step<T>(tail: &Tail, edges: &[&str], act: impl FnOnce() -> T) -> T {
    thread::sleep(PAUSE);
    let begun = Timestamp::now();
    let done = act();
    let mut seen = tail.events(edges.len() as u64);
    let over = Timestamp::now();
    for event in &seen {
        let at: Timestamp = event.ts.parse().expect("RFC 3339");
        assert!(begun - SLACK <= at && at <= over + SLACK, "not {begun} to {over}: {event:?}");
    }
    seen.sort_by_key(Event::edge);
    assert_eq!(seen.iter().map(Event::edge).collect::<Vec<_>>(), edges);
    done
}

#[test]
fn is_when_the_segment_came_or_the_call_was_made() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);

    let mut watched = Watched::connect(&daemon);
    watched.talk();
    watched.half_close();
    watched.talk();
    let Watched { tail, client, server } = watched;
    let edges = ["close_wait>last_ack", "fin_wait2>time_wait", "last_ack>close"];
    step(&tail, &edges, || drop(server));
    drop(client);

    // A reset by the process: the socket closes in the call, with no segment at all.
    let mut watched = Watched::connect(&daemon);
    watched.half_close();
    watched.talk();
    let Watched { tail, client, server } = watched;
    sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("SO_LINGER");
    step(&tail, &["close_wait>close", "fin_wait2>close"], || drop(client));
    drop(server);
}
