//! Tests of the JSON of events.

use std::hint::black_box;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::model::event::tests::example;

fn written(line: &Line) -> String {
    let mut out = Vec::new();
    JsonWriter::new().line(line, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[test]
fn the_contract_s_example_is_written_to_the_letter() {
    assert_eq!(
        written(&Line::Event(example())),
        r#"{"ts":"2026-11-22T08:00:00.123456Z","netns":4026531833,"family":"ipv4","saddr":"10.0.0.1","sport":40000,"daddr":"10.0.0.2","dport":5432,"old":"fin_wait2","new":"time_wait","duration_us":812,"role":"active","pid":4242,"comm":"worker","service":"api.service","cookie":812,"port_exhausted":false,"substate":"time_wait"}"#
    );
}

#[test]
fn the_end_of_a_time_wait_socket_has_its_reason() {
    let mut writer = JsonWriter::new();
    for (reason, name) in
        [(Reason::Expired, "expired"), (Reason::Reused, "reused"), (Reason::Killed, "killed")]
    {
        let mut out = Vec::new();
        let passage = Some(Passage::Left(reason));
        writer.event(&Event { passage, ..example() }, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.ends_with(&format!(r#"false,"reason":"{name}"}}"#)), "{text}");
    }
    let event = Event { passage: Some(Passage::Entered(Substate::FinWait2)), ..example() };
    let text = written(&Line::Event(event));
    assert!(text.ends_with(r#""port_exhausted":false,"substate":"fin_wait2"}"#), "{text}");
}

#[test]
fn what_is_not_known_is_null() {
    let event = Event {
        ts_ns: 999,
        duration_us: None,
        service: None,
        comm: None,
        pid: None,
        role: None,
        saddr: "::ffff:1.2.3.4".parse().expect("address"),
        daddr: "::".parse().expect("address"),
        port_exhausted: true,
        ..example()
    };
    assert_eq!(
        written(&Line::Event(event)),
        r#"{"ts":"1970-01-01T00:00:00.000000Z","netns":4026531833,"family":"ipv6","saddr":"::ffff:1.2.3.4","sport":40000,"daddr":"::","dport":5432,"old":"fin_wait2","new":"time_wait","duration_us":null,"role":null,"pid":null,"comm":null,"service":null,"cookie":812,"port_exhausted":true,"substate":"time_wait"}"#
    );
}

#[test]
fn gaps_are_lines_of_their_own() {
    for (place, name) in [(LossPlace::Ring, "ring"), (LossPlace::Subscriber, "subscriber")] {
        let gap = Line::Gap(Gap { lost: u64::MAX, place });
        let text = written(&gap);
        assert_eq!(text, format!(r#"{{"lost":18446744073709551615,"where":"{name}"}}"#));
        assert_eq!(parse_line(text.as_bytes()).expect("gap"), gap);
    }
}

#[test]
fn names_are_escaped_and_never_reach_a_terminal_raw() {
    let cases: [(&[u8], &str); 7] = [
        (b"worker", r#""worker""#),
        (b"", r#""""#),
        (br#"a"b\c"#, r#""a\"b\\c""#),
        (b"\x1b[31m\x07\n", r#""\u001b[31m\u0007\u000a""#),
        (b"\x7f\xc2\x9b", r#""\u007f\u009b""#),
        ("käse".as_bytes(), r#""käse""#),
        (b"\xff\xc3", "\"\u{fffd}\u{fffd}\""),
    ];
    for (bytes, expected) in cases {
        let mut out = Vec::new();
        string(bytes, &mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}

#[test]
fn the_cached_second_follows_the_clock_both_ways() {
    let mut writer = JsonWriter::new();
    for (ts_ns, expected) in [
        (1_795_334_400_999_999_999, "2026-11-22T08:00:00.999999Z"),
        (1_795_334_401_000_000_000, "2026-11-22T08:00:01.000000Z"),
        (1_795_334_400_000_001_000, "2026-11-22T08:00:00.000001Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000Z"),
        (u64::MAX, "2554-07-21T23:34:33.709551Z"),
    ] {
        let mut out = Vec::new();
        writer.timestamp(ts_ns, &mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}

#[test]
fn lines_that_are_not_events_are_refused_by_member() {
    let whole = written(&Line::Event(example()));
    for (line, complaint) in [
        (String::new(), "EOF"),
        ("{}".to_owned(), "ts \"\""),
        (whole.replace("fin_wait2", "finished"), "old \"finished\""),
        (whole.replace("10.0.0.2", "10.0.0"), "daddr \"10.0.0\""),
        (whole.replace("\"active\"", "\"idle\""), "role \"idle\""),
        (whole.replace("5432", "65536"), "65536"),
        (
            whole.replace("\"substate\":\"time_wait\"", "\"substate\":\"close\""),
            "substate \"close\"",
        ),
        (whole.replace("\"substate\":\"time_wait\"", "\"reason\":\"old\""), "reason \"old\""),
        (r#"{"lost":1,"where":"nowhere"}"#.to_owned(), "where \"nowhere\""),
    ] {
        let error = parse_line(line.as_bytes()).expect_err(&line).to_string();
        assert!(error.contains(complaint), "{error}");
    }
    let later = whole.replace("\"cookie\"", "\"region\":\"north\",\"cookie\"");
    assert_eq!(parse_line(later.as_bytes()).expect("later"), Line::Event(example()));
}

fn state() -> impl Strategy<Value = TcpState> {
    prop::sample::select(TcpState::ALL.to_vec())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<std::net::Ipv4Addr>().prop_map(IpAddr::V4), ipv6()]
}

fn ipv6() -> impl Strategy<Value = IpAddr> {
    any::<std::net::Ipv6Addr>().prop_map(IpAddr::V6)
}

prop_compose! {
    /// Any event, its time in whole microseconds, which is what JSON keeps.
    pub(crate) fn event()(
        times in (any::<u64>(), any::<Option<u64>>()),
        addresses in (address(), address()),
        numbers in any::<(u64, u32, u16, u16, bool)>(),
        pid in any::<Option<u32>>(),
        comm in prop::option::of("[^\0]{0,5}"),
        service in prop::option::of(".{0,40}"),
        states in (state(), state()),
        role in prop::option::of(prop_oneof![Just(Role::Active), Just(Role::Passive)]),
        passage in prop::option::of(prop_oneof![
            prop::sample::select(&Reason::ALL[..]).prop_map(Passage::Left),
            Just(Passage::Entered(Substate::FinWait2)),
            Just(Passage::Entered(Substate::TimeWait)),
        ]),
    ) -> Event {
        Event {
            ts_ns: times.0 / 1_000 * 1_000,
            duration_us: times.1,
            saddr: addresses.0,
            daddr: addresses.1,
            cookie: numbers.0,
            netns: numbers.1,
            sport: numbers.2,
            dport: numbers.3,
            port_exhausted: numbers.4,
            pid,
            comm: comm.map(|comm| Comm::truncated_str(&comm)),
            service: service.map(Into::into),
            old: states.0,
            new: states.1,
            role,
            passage,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(event in event()) {
        let line = Line::Event(event);
        prop_assert_eq!(parse_line(written(&line).as_bytes()).expect("line"), line);
    }

    #[test]
    fn any_bytes_in_names_make_a_json_string(bytes: Vec<u8>) {
        let mut out = Vec::new();
        string(&bytes, &mut out);
        let text: String = serde_json::from_slice(&out).expect("JSON string");
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
        let _ = parse_line(&bytes);
    }
}

/// `cargo test --release -p tcpmon -- --ignored --nocapture json_writer_speed`
#[test]
#[ignore = "a measurement, of use in a release build only"]
fn json_writer_speed() {
    const EVENTS: u32 = 5_000_000;
    let ipv4 = example();
    let ipv6 = Event {
        saddr: "2001:db8:1:2::15".parse().expect("address"),
        daddr: "fe80::a00:27ff:fe4e:66a1".parse().expect("address"),
        ..example()
    };
    for (name, mut event) in [("ipv4", ipv4), ("ipv6", ipv6)] {
        let mut writer = JsonWriter::new();
        let mut out = Vec::with_capacity(64 * 1024);
        let start = Instant::now();
        for _ in 0..EVENTS {
            if out.len() > 60 * 1024 {
                out.clear();
            }
            event.ts_ns += 3_000;
            writer.event(black_box(&event), &mut out);
            out.push(b'\n');
        }
        println!("{name}: {} ns an event", start.elapsed().as_nanos() / u128::from(EVENTS));
        let line = &out[..=out.iter().position(|&byte| byte == b'\n').expect("a line")];
        let start = Instant::now();
        for _ in 0..EVENTS / 10 {
            black_box(parse_line(black_box(line)).expect("line"));
        }
        println!("{name}: {} ns to read", start.elapsed().as_nanos() / u128::from(EVENTS / 10));
    }
}
