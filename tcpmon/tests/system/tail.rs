//! `tcpmon tail`: its filters, its columns, and life without a daemon.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use xtask::lab::{Addresses, Lab, Recipe};

use crate::support::daemon::Daemon;
use crate::support::event::{self, Event};
use crate::support::program::{Lines, finish, start, tethered};
use crate::support::tail::Tail;
use crate::support::turn::Turn;
use crate::support::{eventually, lab};

/// One filter: its arguments, and which events it must let through.
struct Case {
    arguments: Vec<String>,
    wanted: Box<dyn Fn(&Event) -> bool>,
}

fn case(arguments: &str, wanted: impl Fn(&Event) -> bool + 'static) -> Case {
    let arguments = arguments.split(' ').map(str::to_owned).collect();
    Case { arguments, wanted: Box::new(wanted) }
}

/// What tells two events apart.
fn key(event: &Event) -> (u64, String, String) {
    (event.cookie, event.ts.clone(), event.edge())
}

/// Reads from each tail what it must show of `all`, and tells how much that was.
fn compare(cases: &[Case], tails: &[Tail], all: &[Event]) -> Vec<usize> {
    let pairs = cases.iter().zip(tails);
    pairs
        .map(|(case, tail)| {
            let wanted = all.iter().filter(|event| (case.wanted)(event));
            for event in wanted.clone() {
                assert_eq!(key(&tail.events(1)[0]), key(event), "{:?}", case.arguments);
            }
            wanted.count()
        })
        .collect()
}

/// Ends the daemon, and with it the streams, in which there must be nothing more.
fn end(daemon: Daemon, tails: Vec<Tail>) {
    assert_eq!(daemon.end(Signal::TERM).code, Some(0));
    for tail in tails {
        assert_eq!(tail.lines.rest(), [""; 0]);
    }
}

#[test]
fn every_filter_lets_through_exactly_what_it_names() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut labs = [lab::open(Addresses::Ipv4), lab::open(Addresses::Ipv6)];
    let [four, six] = labs.each_ref().map(|lab| lab.namespaces()[0].clone());
    let both = format!("{},{}", four.inode, six.inode);
    let (inode, name) = (four.inode, four.name.clone());
    let cases = vec![
        case("--state time_wait,close-wait", |e| {
            [&e.old, &e.new].into_iter().any(|state| state == "time_wait" || state == "close_wait")
        }),
        case("--state time_wait", |e| e.new == "time_wait"),
        case("--state LISTEN", |e| e.old == "listen" || e.new == "listen"),
        case("--addr 127.0.0.0/8", |e| e.family == "ipv4"),
        case("--addr fd74:6370::/32", |e| e.family == "ipv6"),
        case("--comm lab-server", |e| e.comm.as_deref() == Some("lab-server")),
        case("--comm lab-client,nobody", |e| e.comm.as_deref() == Some("lab-client")),
        case(&format!("--netns {inode}"), move |e| e.netns == inode),
        case(&format!("--netns {name}"), move |e| e.netns == inode),
        case("-4", |e| e.family == "ipv4"),
        case("-6", |e| e.family == "ipv6"),
        case("-4 --state syn_sent", |e| {
            e.family == "ipv4" && (e.old == "syn_sent" || e.new == "syn_sent")
        }),
        case("-6 --comm lab-client --state close", |e| {
            let closed = e.old == "close" || e.new == "close";
            e.family == "ipv6" && e.comm.as_deref() == Some("lab-client") && closed
        }),
    ];
    let everything = Lines::of(daemon.stream(&format!("netns={both}")));
    // The common part keeps others' connections out of the comparison.
    let tails: Vec<Tail> = cases
        .iter()
        .map(|case| {
            let mut arguments: Vec<&str> = case.arguments.iter().map(String::as_str).collect();
            if !arguments.contains(&"--netns") {
                arguments.extend(["--netns", &both]);
            }
            Tail::start(&daemon, &arguments)
        })
        .collect();
    let mut happened = 0;
    for lab in &mut labs {
        for recipe in [Recipe::ServerFirst, Recipe::Refused, Recipe::ResetByClient] {
            happened += lab::perform(lab, recipe, 2).expect("connections").shown_transitions();
        }
    }
    let all: Vec<Event> = (0..happened)
        .map(|_| event::event(&everything.next().expect("the stream goes on")))
        .collect();
    let shown = compare(&cases, &tails, &all);
    assert!(shown.iter().all(|shown| *shown > 0 && *shown < all.len()), "{shown:?}");
    end(daemon, tails);
}

#[test]
fn filters_by_port_pid_and_service() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let pid = std::process::id();
    let connect = |port: u16| {
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "{port}");
    };
    let own = |more: &str| format!("--pid {pid} {more}");
    let everything = Tail::start(&daemon, &["--pid", &pid.to_string(), "--dport", "1,2,3"]);
    connect(1);
    let service = everything.events(2)[0].service.clone().expect("a service");
    let bare = service.strip_suffix(".service").unwrap_or(&service).to_owned();
    let cases = vec![
        case(&own("--port 1,3"), |e| e.dport != 2),
        case(&own("--dport 2"), |e| e.dport == 2),
        case(&own("--sport 1,2,3"), |_| false),
        case(&format!("--pid 1,{pid} --dport 3,2"), |e| e.dport != 1),
        case(&format!("--service {service} --dport 1"), |e| e.dport == 1),
        case(&format!("--service {bare} --dport 2,3"), |e| e.dport != 1),
        case("--pid 1 --dport 1,2,3", |_| false),
        case("--service tcpmon-nobody --dport 1,2,3", |_| false),
    ];
    let tails: Vec<Tail> = cases
        .iter()
        .map(|case| {
            let arguments: Vec<&str> = case.arguments.iter().map(String::as_str).collect();
            Tail::start(&daemon, &arguments)
        })
        .collect();
    (1..=3).for_each(connect);
    let all = everything.events(6);
    compare(&cases, &tails, &all);
    end(daemon, tails);
}

#[test]
fn count_ends_it_and_so_does_a_closed_pipe() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].inode.to_string();
    let five = Tail::start(&daemon, &["--netns", &netns, "--count", "5"]);
    // As `tcpmon tail | head -1`.
    let before = daemon.streams();
    let mut command =
        tethered(&["tail", "--json", "--netns", &netns, "--socket", daemon.socket_text()]);
    let mut child = start(command.stdout(std::process::Stdio::piped()));
    daemon.await_one_more_stream(before);
    let mut head = std::io::BufReader::new(child.stdout.take().expect("a pipe"));

    lab.perform(Recipe::ClientFirst, None).expect("a connection");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut head, &mut line).expect("a line");
    assert!(line.starts_with("{\"ts\""), "{line}");
    // Nothing more happens there until the socket leaves TIME_WAIT, a minute later.
    let closed = Instant::now();
    drop(head);
    let cut = finish(child);
    assert_eq!((cut.code, cut.stderr.as_str()), (Some(0), ""));
    assert!(closed.elapsed() < Duration::from_secs(20), "it waited for an event");

    assert_eq!(five.lines.rest().len(), 5);
    let five = five.finish();
    assert_eq!((five.code, five.stderr.as_str()), (Some(0), ""));
    daemon.await_streams(0);
}

#[test]
fn columns_stand_below_their_headings() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv6);
    let mut mapped = lab::open(Addresses::Ipv4Mapped);
    let mut plain = lab::open(Addresses::Ipv4);
    let inodes = [&plain, &mapped, &lab].map(|lab| lab.namespaces()[0].inode.to_string()).join(",");
    let tail = Tail::start_plain(&daemon, &["--netns", &inodes]);
    let mut wanted = 0;
    for lab in [&mut plain, &mut mapped, &mut lab] {
        wanted += lab::perform(lab, Recipe::Exhausted, 1).expect("connections").shown_transitions();
    }
    let mut header = tail.lines.next().expect("a header");
    let names: Vec<&str> = header.split_whitespace().collect();
    let contract = "TIME PID COMM LADDR LPORT RADDR RPORT OLDSTATE -> NEWSTATE MS";
    assert_eq!(names.join(" "), contract);
    let (mut shown, mut headers, mut exhausted) = (0, 1, 0);
    while shown < wanted {
        let line = tail.lines.next().expect("tail goes on");
        if line.starts_with("TIME ") {
            header = line;
            headers += 1;
            continue;
        }
        assert_below(&header, &line);
        shown += 1;
        exhausted += u64::from(line.ends_with("PORTS EXHAUSTED"));
    }
    assert_eq!(exhausted, 3);
    assert!(headers > 1, "the columns widen for IPv6, and say so");
}

/// Every field of the line stands below its heading.
fn assert_below(header: &str, line: &str) {
    assert!(!line.contains('\x1b'), "colour in a pipe: {line:?}");
    let starts = |name: &str| header.find(name).expect("a heading");
    for name in ["TIME", "COMM", "LADDR", "RADDR", "OLDSTATE", "->", "NEWSTATE"] {
        let at = starts(name);
        let begins = line.as_bytes()[at] != b' ' && (at == 0 || line.as_bytes()[at - 1] == b' ');
        assert!(begins, "{name}:\n{header}\n{line}");
    }
    for name in ["PID", "LPORT", "RPORT", "MS"] {
        let end = starts(name) + name.len();
        let ends =
            line.as_bytes()[end - 1] != b' ' && line.as_bytes().get(end).is_none_or(|b| *b == b' ');
        assert!(ends, "{name}:\n{header}\n{line}");
    }
}

/// Makes connections until `tail` has seen enough of them: without a daemon nothing tells when it
/// begins to look.
fn connect_until_it_ends(lab: &mut Lab, tail: &mut Tail) {
    eventually("tail to have seen enough", || {
        lab.perform(Recipe::Refused, Some(1)).expect("a connection");
        tail.has_ended().then_some(())
    });
}

#[test]
fn without_a_daemon_it_uses_probes_of_its_own() {
    // It attaches probes of its own, who knows when.
    let _turn = Turn::alone();
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].inode.to_string();
    let nowhere = "/nowhere/tcpmon.sock";
    for (arguments, told) in [
        (&["--standalone"][..], ""),
        (&["--socket", nowhere], "no tcpmon daemon answers on /nowhere/tcpmon.sock"),
    ] {
        let usual = ["--json", "--netns", &netns, "--count", "4"];
        let mut tail = Tail::start_alone(&[&usual, arguments].concat());
        connect_until_it_ends(&mut lab, &mut tail);
        let lines = tail.lines.rest();
        let events: Vec<Event> = lines.iter().map(|line| event::event(line)).collect();
        assert_eq!(events.len(), 4);
        for event in &events {
            assert_eq!(event.netns.to_string(), netns);
            assert_eq!(event.comm.as_deref(), Some("lab-client"));
        }
        let finished = tail.finish();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let lines = usize::from(!told.is_empty());
        assert_eq!(finished.stderr.lines().count(), lines, "{finished:?}");
        assert!(finished.stderr.contains(told), "{finished:?}");
    }
}

#[test]
fn standalone_ends_by_signal() {
    // It attaches probes of its own, who knows when.
    let _turn = Turn::alone();
    let mut lab = lab::open(Addresses::Ipv4);
    let netns = lab.namespaces()[0].inode.to_string();
    let tail = Tail::start_alone(&["--json", "--standalone", "--netns", &netns]);
    let mut first = None;
    eventually("a first line", || {
        lab.perform(Recipe::Refused, Some(1)).expect("a connection");
        first = tail.lines.next_within(Duration::from_millis(20));
        first.is_some().then_some(())
    });
    let finished = tail.end(Signal::TERM);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}
