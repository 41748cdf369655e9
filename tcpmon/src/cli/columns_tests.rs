//! Tests of the columns.

use super::*;
use crate::model::comm::Comm;
use crate::model::event::tests::example;
use crate::model::time_wait::Reason;

fn view(columns: &mut Columns, lines: &[Line]) -> String {
    let mut out = String::new();
    columns.header(&mut out);
    for line in lines {
        columns.line(line, &mut out);
    }
    out
}

fn utc() -> Columns {
    Columns::new(TimeZone::UTC, false, false)
}

fn failure() -> Event {
    Event {
        sport: 0,
        old: TcpState::SynSent,
        new: TcpState::Close,
        duration_us: None,
        port_exhausted: true,
        passage: None,
        ..example()
    }
}

fn passages() -> [Event; 2] {
    let entered = Event { passage: Some(Passage::Entered(Substate::FinWait2)), ..example() };
    let left = Event {
        old: TcpState::TimeWait,
        new: TcpState::Close,
        duration_us: Some(60_412_007),
        passage: Some(Passage::Left(Reason::Expired)),
        ..example()
    };
    [entered, left]
}

fn unowned() -> Event {
    Event { pid: None, comm: None, service: None, duration_us: Some(59_999_001), ..example() }
}

#[test]
fn ipv4_columns() {
    let lines = [
        Line::Event(example()),
        Line::Event(failure()),
        Line::Gap(Gap { lost: 42, place: LossPlace::Ring }),
        Line::Gap(Gap { lost: 1, place: LossPlace::Subscriber }),
        Line::Event(unowned()),
        Line::Event(passages()[0].clone()),
        Line::Event(passages()[1].clone()),
    ];
    insta::assert_snapshot!(view(&mut utc(), &lines), @r"
    TIME             PID COMM            LADDR           LPORT RADDR           RPORT OLDSTATE    -> NEWSTATE              MS
    08:00:00.123    4242 worker          10.0.0.1        40000 10.0.0.2         5432 FIN_WAIT2   -> TIME_WAIT          0.812
    08:00:00.123    4242 worker          10.0.0.1            - 10.0.0.2         5432 SYN_SENT    -> CLOSE                  - PORTS EXHAUSTED
    -- 42 events lost (ring: the kernel's buffer was full) --
    -- 1 event lost (subscriber: this reader is too slow) --
    08:00:00.123       - -               10.0.0.1        40000 10.0.0.2         5432 FIN_WAIT2   -> TIME_WAIT      59999.001
    08:00:00.123    4242 worker          10.0.0.1        40000 10.0.0.2         5432 FIN_WAIT2   -> TIME_WAIT          0.812 as FIN_WAIT2
    08:00:00.123    4242 worker          10.0.0.1        40000 10.0.0.2         5432 TIME_WAIT   -> CLOSE          60412.007 expired
    ");
}

#[test]
fn columns_grow_for_ipv6_and_the_header_comes_again() {
    let with = |saddr: &str, daddr: &str| {
        Line::Event(Event {
            saddr: saddr.parse().expect("address"),
            daddr: daddr.parse().expect("address"),
            ..example()
        })
    };
    let lines = [
        with("10.0.0.1", "192.168.100.200"),
        with("::1", "::1"),
        with("::ffff:192.168.100.200", "::ffff:10.0.0.1"),
        with("2001:db8:1111:2222:3333:4444:5555:6666", "fe80::1"),
        with("10.0.0.1", "192.168.100.200"),
    ];
    insta::assert_snapshot!(view(&mut utc(), &lines), @r"
    TIME             PID COMM            LADDR           LPORT RADDR           RPORT OLDSTATE    -> NEWSTATE              MS
    08:00:00.123    4242 worker          10.0.0.1        40000 192.168.100.200  5432 FIN_WAIT2   -> TIME_WAIT          0.812
    08:00:00.123    4242 worker          ::1             40000 ::1              5432 FIN_WAIT2   -> TIME_WAIT          0.812
    TIME             PID COMM            LADDR                     LPORT RADDR           RPORT OLDSTATE    -> NEWSTATE              MS
    08:00:00.123    4242 worker          ::ffff:192.168.100.200    40000 ::ffff:10.0.0.1  5432 FIN_WAIT2   -> TIME_WAIT          0.812
    TIME             PID COMM            LADDR                                   LPORT RADDR           RPORT OLDSTATE    -> NEWSTATE              MS
    08:00:00.123    4242 worker          2001:db8:1111:2222:3333:4444:5555:6666  40000 fe80::1          5432 FIN_WAIT2   -> TIME_WAIT          0.812
    08:00:00.123    4242 worker          10.0.0.1                                40000 192.168.100.200  5432 FIN_WAIT2   -> TIME_WAIT          0.812
    ");
}

#[test]
fn only_ipv6_starts_wide_and_never_grows() {
    let event = Event {
        saddr: "2001:db8:1111:2222:3333:4444:5555:6666".parse().expect("address"),
        daddr: "::1".parse().expect("address"),
        ..example()
    };
    let text = view(&mut Columns::new(TimeZone::UTC, false, true), &[Line::Event(event)]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(text.matches("LADDR").count(), 1);
}

#[test]
fn colours_change_no_column() {
    let lines = [Line::Event(failure()), Line::Gap(Gap { lost: 2, place: LossPlace::Ring })];
    let plain = view(&mut utc(), &lines);
    let coloured = view(&mut Columns::new(TimeZone::UTC, true, false), &lines);
    assert!(coloured.contains("\x1b[1;31mPORTS EXHAUSTED\x1b[0m"), "{coloured:?}");
    let mut stripped = String::new();
    for (index, part) in coloured.split('\x1b').enumerate() {
        let text = if index == 0 { part } else { part.split_once('m').expect("escape").1 };
        stripped.push_str(text);
    }
    assert_eq!(stripped, plain);
    assert!(!plain.contains('\x1b'));
}

#[test]
fn times_are_local() {
    let zone = TimeZone::fixed(jiff::tz::offset(-3));
    let text = view(&mut Columns::new(zone, false, false), &[Line::Event(example())]);
    assert!(text.contains("\n05:00:00.123 "), "{text}");
}

#[test]
fn names_cannot_drive_the_terminal() {
    let event = Event { comm: Some(Comm::truncated(b"\x1b[2J\r\n\xc2\x9b1m")), ..example() };
    let text = view(&mut utc(), &[Line::Event(event)]);
    assert!(text.contains(" ?[2J???1m       "), "{text:?}");
    assert_eq!(text.lines().count(), 2);
    assert_eq!(printable("a\u{202e}b"), "a?b");
    assert!(matches!(printable("käse"), Cow::Borrowed("käse")));
}

#[test]
fn colour_is_for_terminals_of_those_who_want_it() {
    let (set, empty, dumb) = (OsStr::new("1"), OsStr::new(""), OsStr::new("dumb"));
    for (terminal, no_color, term, expected) in [
        (true, None, None, true),
        (true, Some(empty), Some(OsStr::new("xterm")), true),
        (true, Some(set), None, false),
        (true, None, Some(dumb), false),
        (false, None, None, false),
    ] {
        assert_eq!(colour_wanted(terminal, no_color, term), expected);
    }
}
