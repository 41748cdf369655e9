//! `tcpmon top` in a real terminal: what is where, the way from a destination to its sockets, a
//! daemon that goes and comes back, and a terminal that is as it was.

use rustix::process::Signal;

use crate::support::daemon::Daemon;
use crate::support::load::{Load, TO, small};
use crate::support::skipped;
use crate::support::terminal::{self, Terminal};
use crate::support::turn::Turn;

/// The daemon's arguments: a port of the system's choice.
const DAEMON: [&str; 2] = ["--web.listen-address", "127.0.0.1:0"];

fn ended_well(terminal: &Terminal) {
    let left = terminal.left();
    assert!(left.screen.contains("ended with 0"), "{left:?}");
    assert!(left.is_as_before && left.errors.is_empty(), "{left:?}");
}

/// By a key of its own: with another one right behind it, Escape would be taken for Alt.
fn forget_the_filter(top: &Terminal) {
    top.press(&["Escape"]);
    top.wait("no filter", |screen| {
        let last = screen.lines().rfind(|line| !line.is_empty());
        last.is_some_and(|line| !line.contains('/'))
    });
}

#[test]
fn from_the_destinations_to_the_sockets_through_a_restart_to_the_end() {
    if !terminal::is_there() {
        return skipped("top in a terminal", "tmux");
    }
    let turn = Turn::shared();
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start_at(&turn, folder.path(), &DAEMON);
    let (_lab, netns) = small(2_000, "0");
    let mut load = Load::start(&netns, 20);
    let socket = daemon.socket_text().to_owned();
    let top = Terminal::start(&["top", "--socket", &socket, "--interval", "0.5"], &[]);
    let to = TO.to_string();

    // Whatever else there is on this machine is left out.
    top.sees(&["1 Ports", "destinations", "? keys"]);
    top.types("/");
    top.types(&netns);
    top.press(&["Enter"]);
    top.sees(&[&format!("/{netns}"), &to, "[="]);
    top.press(&["2"]);
    top.sees(&["Who leaves TIME_WAIT", &to]);
    top.press(&["3"]);
    top.sees(&["Sockets by state", "LISTEN", "TIME_WAIT  "]);
    top.press(&["4"]);
    top.sees(&["alert", "4 Alerts"]);
    assert_eq!(daemon.streams(), 0, "a stream that nobody looks at");

    // In the lines of transitions there is no namespace.
    forget_the_filter(&top);
    top.press(&["5"]);
    top.types("/907");
    top.press(&["Enter"]);
    top.sees(&["Transitions, as they happen", &to, "-> TIME_WAIT"]);
    daemon.await_streams(1);
    forget_the_filter(&top);
    top.press(&["Tab"]);
    daemon.await_streams(0);

    top.types("/");
    top.types(&netns);
    top.press(&["Enter", "Enter"]);
    top.sees(&[&format!("127.0.0.1 -> {to} in tcpmon-lab"), "# live", "as they happen"]);
    daemon.await_streams(1);
    top.press(&["Enter"]);
    top.press(&["/"]);
    forget_the_filter(&top);
    top.sees(&["sockets of", "TIME_WAIT", "in FIN_WAIT2", "-> TIME_WAIT"]);

    top.press(&["p"]);
    top.sees(&["HELD STILL", "have passed since"]);
    top.press(&["p"]);
    top.wait("it to go on", |screen| !screen.contains("HELD STILL"));
    top.press(&["?"]);
    top.sees(&["Keys", "draw everything anew"]);
    top.press(&["Escape"]);
    top.sees(&["sockets of"]);
    top.resize(130, 40);
    top.sees(&["LOCAL", "127.0.0.1:2", "as they happen"]);
    top.resize(30, 8);
    top.wait("a small picture", |screen| screen.lines().all(|line| line.chars().count() <= 30));
    top.resize(80, 24);
    top.sees(&["sockets of", "as they happen"]);

    daemon.end(Signal::TERM);
    top.sees(&["daemon lost, trying again: no tcpmon daemon", "no stream, trying again"]);
    let daemon = Daemon::start_at(&turn, folder.path(), &DAEMON);
    assert_eq!(daemon.socket_text(), socket);
    top.wait("the daemon again", |screen| {
        !screen.contains("lost, trying") && screen.contains("as they happen")
    });
    top.sees(&["-> TIME_WAIT"]);
    top.press(&["q"]);
    ended_well(&top);
    daemon.await_streams(0);
    load.end();
}

#[test]
fn whatever_ends_it_the_terminal_is_as_it_was() {
    if !terminal::is_there() {
        return skipped("top ended by signals", "tmux");
    }
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let arguments = ["top", "--socket", daemon.socket_text()];
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let top = Terminal::start(&arguments, &[]);
        top.sees(&["1 Ports"]);
        top.signal(signal);
        ended_well(&top);
    }
    let top = Terminal::start(&arguments, &[("NO_COLOR", "1")]);
    top.sees(&["no alert fires"]);
    // 39 and 49 are what the terminal has by itself (ECMA-48, 8.3.117).
    let coloured = top.coloured().replace("\x1b[39m", "").replace("\x1b[49m", "");
    assert!(
        ["\x1b[3", "\x1b[4", "\x1b[9", ";3"].iter().all(|code| !coloured.contains(code)),
        "{coloured:?}"
    );
    top.press(&["C-c"]);
    ended_well(&top);
}

#[test]
fn without_a_daemon_or_a_terminal_it_says_so_in_a_line() {
    let piped = crate::support::program::run(&mut crate::support::program::tcpmon(&[], &["top"]));
    assert_eq!((piped.code, &*piped.stdout), (Some(1), ""));
    assert_eq!(piped.stderr.lines().count(), 1, "{}", piped.stderr);
    assert!(piped.stderr.contains("needs a terminal"), "{}", piped.stderr);
    if !terminal::is_there() {
        return skipped("top without a daemon", "tmux");
    }
    let top = Terminal::start(&["top", "--socket", "/nowhere/tcpmon.sock"], &[]);
    let left = top.left();
    assert!(left.is_as_before && left.screen.contains("ended with 1"), "{left:?}");
    assert_eq!(left.errors.lines().count(), 1, "{left:?}");
    assert!(left.errors.contains("/nowhere/tcpmon.sock") && left.errors.contains("start `tcpmon"));
}
