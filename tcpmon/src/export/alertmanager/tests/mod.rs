//! The pusher against Alertmanagers that behave, and that do not.
//!
//! Nothing here sleeps: the pace is set short, and what happens is waited for. What depends on long
//! times is tested where times are passed in, in `book.rs` and `backoff.rs`.

mod fake;

use super::*;
use crate::model::report::Severity;
use fake::{Conduct, Fake, OK, PATIENCE};
use jiff::Timestamp;
use std::time::Instant;
use tokio::time::timeout;

/// An alert of that name.
pub(super) fn alert(name: &str) -> Alert {
    Alert {
        labels: Labels {
            alertname: name.into(),
            severity: Severity::Warning,
            netns: "host".into(),
            src: None,
            dst: Some([10, 0, 0, 2].into()),
            dport: Some(5432),
            service: None,
        },
        annotations: Annotations { summary: format!("this is {name}"), ..Default::default() },
        starts_at: Timestamp::from_second(1_700_000_000).expect("a time"),
    }
}

pub(super) fn settings(endpoints: Vec<Endpoint>) -> Settings {
    Settings::new(endpoints, "db-7".into())
}

/// Settings for one Alertmanager that is asked again soon, and hardly ever told again.
fn soon(fake: &Fake) -> Settings {
    let mut settings = settings(vec![fake.endpoint()]);
    settings.pace.gap = Duration::ZERO;
    settings.pace.push = Duration::from_millis(300);
    settings.pace.first_pause = Duration::from_millis(2);
    settings.pace.longest_pause = Duration::from_millis(10);
    settings
}

fn counts(pusher: &AlertPusher) -> Counts {
    pusher.counts().pop().expect("an Alertmanager")
}

/// Waits until the counts are as wanted. They change in the task's own time, so it is let run.
async fn until(pusher: &AlertPusher, wanted: impl Fn(&Counts) -> bool) {
    let looked = timeout(PATIENCE, async {
        while !wanted(&counts(pusher)) {
            tokio::task::yield_now().await;
        }
    });
    looked.await.unwrap_or_else(|_| panic!("still {:?}", counts(pusher)));
}

#[tokio::test]
async fn an_alert_is_pushed_and_resolved() {
    let mut fake = Fake::start(&[OK]).await;
    let mut settings = soon(&fake);
    settings.generator_url = Some("http://db-7:10066/".into());
    let pusher = AlertPusher::start(settings);
    pusher.set(vec![alert("a")]);
    let received = fake.next().await;
    assert!(received.head.starts_with("POST /api/v2/alerts HTTP/1.1\r\n"), "{}", received.head);
    for header in [
        format!("host: {}", fake.address),
        "content-type: application/json".into(),
        format!("user-agent: tcpmon/{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(received.head.lines().any(|line| line == header), "{}", received.head);
    }
    assert!(!received.head.contains("authorization"), "{}", received.head);
    let [told] = &received.alerts[..] else { panic!("{received:?}") };
    assert_eq!(told["labels"]["instance"], "db-7");
    assert_eq!(told["labels"]["dport"], "5432");
    assert_eq!(told["annotations"]["summary"], "this is a");
    assert_eq!(told["startsAt"], "2023-11-14T22:13:20Z");
    assert_eq!(told["generatorURL"], "http://db-7:10066/");
    assert_eq!(received.names(), [("a", false)]);

    pusher.set(vec![alert("a"), alert("b")]);
    assert_eq!(fake.next().await.names(), [("b", false)]);
    pusher.set(vec![alert("b")]);
    assert_eq!(fake.next().await.names(), [("a", true)]);
    until(&pusher, |counts| counts.sent == 3).await;
    pusher.shutdown(PATIENCE).await;
    assert_eq!(fake.next().await.names(), [("b", true)]);
}

#[tokio::test]
async fn what_fires_is_repeated() {
    let mut fake = Fake::start(&[OK]).await;
    let mut settings = soon(&fake);
    settings.pace.repeat = Duration::from_millis(20);
    let pusher = AlertPusher::start(settings);
    pusher.set(vec![alert("a")]);
    for _ in 0..3 {
        assert_eq!(fake.next().await.names().len(), 1);
    }
}

#[tokio::test]
async fn every_alertmanager_is_told() {
    let (mut one, mut other) = (Fake::start(&[OK]).await, Fake::start(&[OK]).await);
    let mut settings = soon(&one);
    settings.endpoints.push(other.endpoint());
    let pusher = AlertPusher::start(settings);
    pusher.set(vec![alert("a")]);
    for fake in [&mut one, &mut other] {
        assert_eq!(fake.next().await.names(), [("a", false)]);
    }
    pusher.shutdown(PATIENCE).await;
    for fake in [&mut one, &mut other] {
        assert_eq!(fake.next().await.names(), [("a", true)]);
    }
}

#[tokio::test]
async fn a_password_goes_along() {
    let mut fake = Fake::start(&[OK]).await;
    let mut settings = soon(&fake);
    let url = format!("http://Aladdin:open%20sesame@{}/prefix/", fake.address);
    settings.endpoints = vec![url.parse().expect("a URL")];
    let pusher = AlertPusher::start(settings);
    assert!(!format!("{:?}", pusher.counts()).contains("sesame"));
    pusher.set(vec![alert("a")]);
    let head = fake.next().await.head;
    assert!(head.starts_with("POST /prefix/api/v2/alerts "), "{head}");
    assert!(head.contains("\r\nauthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{head}");
}

/// Every misconduct is a failure, is tried again, and does not keep the alert from being told once
/// Alertmanager has come to its senses.
#[tokio::test]
async fn misconduct_is_survived() {
    const MISCONDUCT: [&[Conduct]; 16] = [
        &[Conduct::Slam, OK],
        &[Conduct::Say(""), OK],
        &[Conduct::Say("HTTP/1.1 500 Internal Server Error\r\n\r\noh \x1b[31m no"), OK],
        &[Conduct::Say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), OK],
        &[Conduct::Say("HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\n\"bad\""), OK],
        &[Conduct::Say("HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), OK],
        &[Conduct::Say("HTTP/1.1 307 Again\r\nLocation: /api/v2/alerts\r\n\r\n"), OK],
        &[Conduct::Say("garbage\r\n\r\n"), OK],
        &[Conduct::Say("HTTP/1.1 abc\r\n\r\n"), OK],
        &[Conduct::Say("HTTP/1.1 200"), OK],
        &[Conduct::Say("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), OK],
        &[Conduct::Flood("", "x"), OK],
        &[Conduct::Flood("HTTP/1.1 200 OK\r\n", "X-Flood: flood\r\n"), OK],
        &[Conduct::Flood("", "HTTP/1.1 100 Continue\r\n\r\n"), OK],
        &[Conduct::Flood("HTTP/1.1 500 No\r\nContent-Length: 999999999\r\n\r\n", "flood"), OK],
        &[Conduct::Hang("HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nslow"), OK],
    ];
    for conduct in MISCONDUCT {
        let mut fake = Fake::start(conduct).await;
        let pusher = AlertPusher::start(soon(&fake));
        pusher.set(vec![alert("a")]);
        until(&pusher, |counts| counts.sent == 1).await;
        let counts = counts(&pusher);
        assert_eq!((counts.failed, counts.queued), (1, 0), "{conduct:?}: {counts:?}");
        if !matches!(conduct[0], Conduct::Slam) {
            fake.next().await;
        }
        assert_eq!(fake.next().await.names(), [("a", false)], "{conduct:?}");
    }
}

#[tokio::test]
async fn the_rest_of_a_good_answer_is_not_waited_for() {
    const ODDITIES: [Conduct; 3] = [
        Conduct::Hang("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nslow"),
        Conduct::Flood("HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", "flood"),
        Conduct::Flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "ffff\r\nflood"),
    ];
    let fake = Fake::start(&ODDITIES).await;
    let mut settings = soon(&fake);
    settings.pace.push = PATIENCE;
    let pusher = AlertPusher::start(settings);
    for number in 1..=3 {
        pusher.set(vec![alert(&number.to_string())]);
        until(&pusher, |counts| counts.sent >= number && counts.queued == 0).await;
    }
    assert_eq!(counts(&pusher).failed, 0);
}

#[tokio::test]
async fn nobody_there_is_survived() {
    let mut settings = soon(&Fake::start(&[OK]).await);
    settings.pace.longest_pause = Duration::from_millis(2);
    let pusher = AlertPusher::start(settings);
    pusher.set(vec![alert("a"), alert("b")]);
    until(&pusher, |counts| counts.failed >= 3).await;
    let counts = counts(&pusher);
    assert_eq!((counts.sent, counts.queued), (0, 2));
    // The end of what was never heard is not pushed either.
    pusher.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn silence_ends_in_time_and_setting_never_waits() {
    let mut fake = Fake::start(&[Conduct::Hang(""), OK]).await;
    let mut settings = soon(&fake);
    settings.pace.push = PATIENCE;
    let pusher = AlertPusher::start(settings);
    pusher.set(vec![alert("a")]);
    fake.next().await;
    // Alertmanager keeps silent, and alerts come and go.
    for number in 0..10_000 {
        pusher.set(vec![alert("a"), alert(&number.to_string())]);
    }
    let start = Instant::now();
    pusher.shutdown(PATIENCE).await;
    assert!(start.elapsed() < PATIENCE / 2, "the push that hangs was waited for");
    // It may have heard of the first, and cannot of the others.
    assert_eq!(fake.next().await.names(), [("a", true)]);
}

#[tokio::test]
async fn the_end_has_a_limit() {
    let fake = Fake::start(&[OK, Conduct::Hang("")]).await;
    let mut settings = soon(&fake);
    settings.pace.push = PATIENCE;
    let pusher = AlertPusher::start(settings);
    pusher.set(vec![alert("a")]);
    until(&pusher, |counts| counts.sent == 1).await;
    let start = Instant::now();
    pusher.shutdown(Duration::from_millis(50)).await;
    assert!(start.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn too_many_are_dropped_the_mildest_first_and_counted_once() {
    let mut fake = Fake::start(&[OK]).await;
    let mut settings = soon(&fake);
    settings.capacity = 2;
    let pusher = AlertPusher::start(settings);
    let all = || {
        let mut alerts = ["mild", "bad", "worse"].map(alert);
        alerts[0].labels.severity = Severity::Info;
        alerts[2].labels.severity = Severity::Critical;
        alerts.to_vec()
    };
    for _ in 0..3 {
        pusher.set(all());
    }
    assert_eq!(fake.next().await.names(), [("bad", false), ("worse", false)]);
    assert_eq!(counts(&pusher).dropped, 1);
    pusher.set(vec![alert("bad"), alert("bad")]);
    assert_eq!(fake.next().await.names(), [("worse", true)]);
    assert_eq!(counts(&pusher).dropped, 1);
}

#[tokio::test]
async fn dropping_the_handle_ends_the_tasks() {
    let mut fake = Fake::start(&[OK]).await;
    let pusher = AlertPusher::start(soon(&fake));
    pusher.set(vec![alert("a")]);
    fake.next().await;
    let tasks: Vec<_> = pusher
        .workers
        .iter()
        .map(|worker| worker.2.lock().expect("no panic").as_ref().expect("a task").abort_handle())
        .collect();
    drop(pusher);
    let ended = timeout(PATIENCE, async {
        while !tasks.iter().all(tokio::task::AbortHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    });
    ended.await.expect("the tasks end");
}

#[test]
fn families_have_a_line_for_each_alertmanager() {
    let counts = ["http://a:9093", "http://b:9093"].map(|alertmanager| Counts {
        alertmanager: alertmanager.into(),
        sent: 1,
        failed: 2,
        dropped: 3,
        queued: 4,
    });
    assert_eq!(families(&counts).len(), 4);
    assert_eq!(families(&[]).len(), 4);
}
