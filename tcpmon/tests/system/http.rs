//! The HTTP interface, as Prometheus, a probe of Kubernetes and a script see it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use xtask::lab::{Addresses, Recipe};

use crate::support::daemon::Daemon;
use crate::support::turn::Turn;
use crate::support::{PATIENCE, event, exposition, http, lab};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[test]
fn metrics_have_their_exact_type_and_are_packed_when_asked_for() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let plain = daemon.get_by_tcp("/metrics", &[]);
    assert_eq!((plain.status, plain.header("content-type")), (200, Some(METRICS_TYPE)));
    assert_eq!(plain.header("content-encoding"), None);
    let text = plain.text();
    exposition::parse(&text).unwrap_or_else(|why| panic!("{why}"));

    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let headers = [("Accept-Encoding", "gzip"), ("Accept", accept)];
    let packed = daemon.get_by_tcp("/metrics", &headers);
    assert_eq!((packed.status, packed.header("content-type")), (200, Some(METRICS_TYPE)));
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let packed = packed.bytes();
    assert!(packed.len() * 3 < text.len(), "{} of {}", packed.len(), text.len());
    let mut unpacked = String::new();
    GzDecoder::new(&*packed).read_to_string(&mut unpacked).expect("gzip");
    exposition::parse(&unpacked).unwrap_or_else(|why| panic!("{why}"));

    let refused = daemon.get_by_tcp("/metrics", &[("Accept-Encoding", "gzip;q=0, deflate")]);
    assert_eq!(refused.header("content-encoding"), None);
}

#[test]
fn health_and_what_is_not_there() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    for route in ["/healthz", "/readyz"] {
        let answer = daemon.get_by_tcp(route, &[]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "{route}");
    }
    for route in ["/", "/metrics"] {
        assert_eq!(daemon.get_by_tcp(route, &[]).status, 200, "{route}");
        assert_eq!(daemon.get(route).status, 200, "{route} on the Unix socket");
    }
    for route in ["/nothing", "/metrics/", "/api", "/api/v1", "/api/v1/nothing", "/%00"] {
        assert_eq!(daemon.get_by_tcp(route, &[]).status, 404, "{route}");
    }
}

#[test]
fn a_bad_query_is_refused_by_parameter() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    for (query, words) in [
        ("state=open", &["parameter state", "open", "time_wait"][..]),
        ("port=99999", &["parameter port", "99999"]),
        ("addr=10.0.0.0%2F40", &["parameter addr", "10.0.0.0/40"]),
        ("pid=-1", &["parameter pid", "-1"]),
        ("count=0", &["parameter count"]),
        ("family=6", &["parameter family", "ipv4 or ipv6"]),
        ("stat=close", &["\"stat\"", "state"]),
    ] {
        let answer = daemon.get_by_tcp(&format!("/api/v1/events?{query}"), &[]);
        assert_eq!(answer.status, 400, "{query}");
        let told = answer.text();
        assert_eq!(told.lines().count(), 1, "{told}");
        for word in words {
            assert!(told.contains(word), "no {word:?} in: {told}");
        }
    }
    assert_eq!(daemon.streams(), 0);
}

#[test]
fn events_come_as_json_lines_or_as_an_event_stream() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let route = format!("/api/v1/events?netns={}&count=2", lab.namespaces()[0].inode);
    let lines = daemon.get_by_tcp(&route, &[]);
    let accept = [("Accept", "text/event-stream")];
    let stream = daemon.get_by_tcp(&route, &accept);
    lab.perform(Recipe::Refused, Some(3)).expect("connections");

    let kind = lines.header("content-type").map(str::to_owned);
    assert_eq!((lines.status, kind.as_deref()), (200, Some("application/jsonl; charset=utf-8")));
    let lines = lines.text();
    let edges: Vec<String> = lines.lines().map(|line| event::event(line).edge()).collect();
    assert_eq!(edges, ["close>syn_sent", "syn_sent>close"], "and no more than asked for");

    let kind = stream.header("content-type").map(str::to_owned);
    let kind = kind.as_deref().and_then(|kind| kind.split(';').next());
    assert_eq!((stream.status, kind), (200, Some("text/event-stream")));
    // HTML, 9.2.5: each event is a line `data: ...` and an empty line.
    let text: Vec<String> =
        BufReader::new(stream.body).lines().map(|line| line.expect("a line")).collect();
    assert_eq!(text.len(), 4, "{text:?}");
    for (pair, line) in text.chunks(2).zip(lines.lines()) {
        assert_eq!(pair, [format!("data: {line}"), String::new()]);
    }
}

#[test]
fn an_address_that_is_not_loopback_serves_metrics_and_health_alone() {
    let turn = Turn::shared();
    let both = ["--web.listen-address", ":0", "--web.listen-address", "127.0.0.1:0"];
    let daemon = Daemon::start_listening(&turn, &both);
    assert!(daemon.address().ip().is_unspecified(), "{}", daemon.address());
    let get = |address: &str, route: &str| {
        let stream = TcpStream::connect(address).expect("the daemon's port");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        http::get(stream, route, &[])
    };
    // The listener is what counts, not the way to it.
    for host in ["127.0.0.1", "[::1]"] {
        let open = format!("{host}:{}", daemon.address().port());
        for (route, status) in [
            ("/metrics", 200),
            ("/healthz", 200),
            ("/readyz", 200),
            ("/", 403),
            ("/api/v1/events", 403),
            ("/api/v1/events?count=1", 403),
            ("/api/v1/report", 403),
            ("/api/", 403),
            ("/api", 403),
            ("//api/v1/events", 404),
            ("/nothing", 404),
        ] {
            assert_eq!(get(&open, route).status, status, "{open}{route}");
        }
    }
    let told = get(&format!("127.0.0.1:{}", daemon.address().port()), "/").text();
    assert!(told.contains("loopback") && told.contains("Unix socket"), "{told}");
    assert_eq!(daemon.get("/").status, 200);
}

#[test]
fn a_page_elsewhere_cannot_make_a_browser_read_the_stream() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    // A name that somebody has pointed to 127.0.0.1 (DNS rebinding).
    let rebound = [("Host", "tcpmon.example.com:10066")];
    assert_eq!(daemon.get_by_tcp("/api/v1/events", &rebound).status, 403);
    for host in ["127.0.0.1:10066", "[::1]:10066", "localhost:10066"] {
        let answer = daemon.get_by_tcp("/", &[("Host", host)]);
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[test]
fn who_dawdles_is_hung_up_on() {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let whole = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // A request without its end, one whose second never comes, and none at all.
    thread::scope(|scope| {
        for sent in [&whole[..20], whole, ""] {
            let address = daemon.address();
            scope.spawn(move || dawdle(address, sent, whole));
        }
    });
}

/// Sends that much of a request, and waits to be hung up on: not at once, and not for ever.
fn dawdle(address: SocketAddr, sent: &str, whole: &str) {
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a bound");
    client.write_all(sent.as_bytes()).expect("a part of a request");
    let begun = Instant::now();
    let mut told = String::new();
    // To be reset is to be hung up on too.
    if let Err(error) = client.read_to_string(&mut told) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{sent:?}");
    }
    assert!(told.is_empty() || sent == whole || told.contains(" 408 "), "{sent:?}: {told}");
    assert!(begun.elapsed() > Duration::from_secs(5), "{sent:?}: at once");
}
