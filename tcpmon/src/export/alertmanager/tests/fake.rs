//! An Alertmanager that answers as a test wants it to.

use super::super::Endpoint;
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// No test waits longer, for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What it does once a request has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Conduct {
    /// Says that, and hangs up.
    Say(&'static str),
    /// Says the first, then the second again and again, as long as anybody reads.
    Flood(&'static str, &'static str),
    /// Says that and nothing more, and does not hang up.
    Hang(&'static str),
    /// Hangs up before it has read anything.
    Slam,
}

/// All is well.
pub(super) const OK: Conduct = Conduct::Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");

/// A request that has come.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) alerts: Vec<Value>,
}

impl Received {
    /// Each alert's name, and whether it has ended.
    pub(super) fn names(&self) -> Vec<(&str, bool)> {
        let of = |alert| -> Option<(&str, bool)> {
            let alert: &Value = alert;
            let ends: jiff::Timestamp = alert["endsAt"].as_str()?.parse().ok()?;
            Some((alert["labels"]["alertname"].as_str()?, ends <= jiff::Timestamp::now()))
        };
        let mut names: Vec<_> = self.alerts.iter().filter_map(of).collect();
        names.sort_unstable();
        names
    }
}

/// The fake; it ends when it is dropped.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// Follows `conduct` connection by connection, the last one for ever.
    pub(super) async fn start(conduct: &'static [Conduct]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (sender, received) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.expect("a connection");
                let conduct = conduct.get(number).or(conduct.last()).copied().expect("a conduct");
                connections.spawn(answer(stream, conduct, sender.clone()));
            }
        });
        Self { address, received, task }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        format!("http://{}", self.address).parse().expect("a URL")
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv()).await.expect("a request in time").expect("the fake")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, conduct: Conduct, to: mpsc::UnboundedSender<Received>) {
    if matches!(conduct, Conduct::Slam) {
        return;
    }
    let Some(received) = read(&mut stream).await else { return };
    let _ = to.send(received);
    // Whoever hangs up does not hear the rest.
    match conduct {
        Conduct::Say(text) => drop(stream.write_all(text.as_bytes()).await),
        Conduct::Flood(first, again) => {
            let mut written = stream.write_all(first.as_bytes()).await;
            while written.is_ok() {
                written = stream.write_all(again.as_bytes()).await;
            }
        }
        Conduct::Hang(text) => {
            drop(stream.write_all(text.as_bytes()).await);
            std::future::pending::<()>().await;
        }
        Conduct::Slam => {}
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            break (head.to_owned(), length.parse::<usize>().ok()?);
        }
    };
    let end = head.len() + 4 + length;
    while bytes.len() < end {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let alerts = serde_json::from_slice(bytes.get(head.len() + 4..end)?).expect("JSON");
    Some(Received { head, alerts })
}
