//! A daemon that has seen much: the program's own routes and page, with reports and events that
//! are made up, so that they are the same on every machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream;
use serde_json::{Value, json};
use tcpmon::export::Format;
use tcpmon::export::http::{Access, Backend, Document, Lines, router};
use tcpmon::export::web::Web;
use tcpmon::model::filter::Filter;
use tokio::runtime::Runtime;

/// The report that the text's tests have too, hostile names included.
const REPORT: &str = include_str!("../../src/cli/report/fixture.json");

/// A daemon.
pub(crate) struct Fixture {
    runtime: Option<Runtime>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Fixture {
    /// Starts one on that port; 0: any.
    pub(crate) fn start(port: u16) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let made = Arc::new(Made { begin: Instant::now(), asked: AtomicU64::new(0) });
        let routes = router(made, Access::Local, &Web::open());
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.expect("a connection");
                let service = hyper_util::service::TowerToHyperService::new(routes.clone());
                let io = hyper_util::rt::TokioIo::new(connection);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service),
                );
            }
        });
        Self { runtime: Some(runtime), address }
    }
}

impl Drop for Fixture {
    /// Hangs up on everybody, as a daemon that was killed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

#[derive(Debug)]
struct Made {
    begin: Instant,
    asked: AtomicU64,
}

/// The report, with some figures that change each time.
fn report(made: &Made) -> String {
    let asked = made.asked.fetch_add(1, Ordering::Relaxed);
    let mut report: Value = serde_json::from_str(REPORT).expect("a report");
    report["ts"] = json!(jiff::Timestamp::now().to_string());
    report["uptime_s"] = json!(made.begin.elapsed().as_secs_f64());
    report["time_wait"][0]["sockets"] = json!(20_000 + asked * 700);
    report["ports"][1]["time_wait"] = json!(9_000 + asked * 200);
    report["connections"][0]["per_s"] = json!(400 + asked % 7 * 20);
    for row in report["transitions"].as_array_mut().expect("transitions") {
        row["total"] = json!(row["total"].as_u64().expect("a total") + asked * 900);
    }
    let alerts = report["alerts"].as_array_mut().expect("alerts");
    alerts.insert(1, another(&alerts[0]));
    report.to_string()
}

/// Another alert about the same destination, with one piece of advice more.
fn another(alert: &Value) -> Value {
    let mut alert = alert.clone();
    alert["alert"] = json!("TcpPortsNearlyExhausted");
    alert["advice"].as_array_mut().expect("advice").push(json!("Something else."));
    alert
}

impl Backend for Made {
    fn metrics(&self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn document(&self, _: Document, _: Duration) -> Result<Vec<u8>, String> {
        Ok(report(self).into_bytes())
    }

    /// Entries to TIME_WAIT and ends of it in turn, and now and then a gap.
    fn subscribe(&self, _: Filter, format: Format) -> Result<Lines, String> {
        let (before, after) = format.frame();
        Ok(Box::pin(stream::unfold(0_u64, move |number| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let line = event(number).to_string();
            Some(([before, line.as_bytes(), after].concat().into(), number + 1))
        })))
    }
}

fn event(number: u64) -> Value {
    if number % 50 == 49 {
        return json!({"lost": 12, "where": "subscriber"});
    }
    let (old, new) =
        if number.is_multiple_of(2) { ("fin_wait2", "time_wait") } else { ("time_wait", "close") };
    json!({
        "ts": "2026-11-22T08:00:00.123456Z", "netns": 4_026_531_833_u32, "family": "ipv4",
        "saddr": "10.0.0.1", "sport": 40_000 + number % 20_000, "daddr": "10.0.0.2",
        "dport": 5432, "old": old, "new": new, "duration_us": 812, "role": "active", "pid": 4242,
        "comm": "worker", "service": "<img src=x onerror=alert(1)>", "cookie": number,
        "port_exhausted": false,
    })
}
