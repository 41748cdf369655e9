//! The stream of transitions, while somebody looks at it: it costs the daemon work for each event,
//! so it is closed as soon as nobody does.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, watch};

use super::{
    super::{client, columns::printable},
    feed::BackOff,
    state::Message,
};
use crate::model::{event::Line, json};

/// A line that is longer is none of ours.
const MAX_LINE: usize = 64 << 10;

/// Which stream is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Counts what has been wanted: what still comes from an earlier stream has its number.
    pub(super) generation: u64,
    /// What to let through; `None`: no stream.
    pub(super) query: Option<String>,
}

/// What a stream says.
#[derive(Debug)]
pub(super) enum Streamed {
    /// From now on whatever happens is in it.
    Begun,
    /// Transitions and gaps.
    Lines(Vec<Line>),
    /// It has broken off, or could not be opened: why. It is tried again.
    Broken(String),
}

/// Keeps the stream that is wanted open.
pub(super) async fn follow(
    socket: PathBuf,
    mut wanted: watch::Receiver<Wanted>,
    messages: mpsc::Sender<Message>,
) {
    let mut back_off = BackOff::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        let Some(query) = now.query else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let sender = Sender { generation: now.generation, messages: &messages };
        let attempt = async {
            let error = match stream(&socket, &query, &sender, &mut back_off).await {
                Err(error) => error,
                Ok(()) => anyhow::anyhow!("the daemon ended the stream"),
            };
            let why = printable(&format!("{error:#}")).into_owned();
            sender.send(Streamed::Broken(why)).await?;
            tokio::time::sleep(back_off.failed()).await;
            anyhow::Ok(())
        };
        tokio::select! {
            done = attempt => if done.is_err() { return },
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                back_off.worked();
            }
        }
    }
}

struct Sender<'a> {
    generation: u64,
    messages: &'a mpsc::Sender<Message>,
}

impl Sender<'_> {
    async fn send(&self, said: Streamed) -> anyhow::Result<()> {
        self.messages.send(Message::Stream(self.generation, said)).await.context("nobody listens")
    }
}

async fn stream(
    socket: &Path,
    query: &str,
    sender: &Sender<'_>,
    back_off: &mut BackOff,
) -> anyhow::Result<()> {
    let route = format!("/api/v1/events?{query}");
    let mut body = client::get(client::connect(socket).await?, &route).await?.into_body();
    sender.send(Streamed::Begun).await?;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the daemon broke the stream off")?;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        let lines = whole_lines(&mut rest)?;
        if !lines.is_empty() {
            // Only now: a daemon that accepts and hangs up is to be left alone for longer and
            // longer.
            back_off.worked();
            sender.send(Streamed::Lines(lines)).await?;
        }
    }
    Ok(())
}

/// Takes the whole lines off the beginning of `text`.
fn whole_lines(text: &mut Vec<u8>) -> anyhow::Result<Vec<Line>> {
    let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |place| place + 1);
    let mut lines = Vec::new();
    for line in text[..end].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line = json::parse_line(line)
            .context("the daemon says something that this tcpmon does not know")?;
        lines.push(line);
    }
    text.drain(..end);
    if text.len() > MAX_LINE {
        bail!("the daemon's stream has no lines");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Gap, LossPlace};
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    const EVENT: &str = concat!(
        r#"{"ts":"2026-11-22T08:00:00.123456Z","netns":1,"family":"ipv4","saddr":"10.0.0.1","#,
        r#""sport":40000,"daddr":"10.0.0.2","dport":5432,"old":"fin_wait2","new":"time_wait","#,
        r#""duration_us":812,"role":"active","pid":1,"comm":"a","service":"a","cookie":1,"#,
        r#""port_exhausted":false}"#
    );

    #[test]
    fn lines_are_taken_whole_and_nonsense_is_told() {
        let mut text = format!("{EVENT}\n{{\"lost\":7,\"where\":\"ring\"}}\n{{\"ts\"").into_bytes();
        let lines = whole_lines(&mut text).expect("lines");
        assert!(matches!(lines[0], Line::Event(_)), "{lines:?}");
        assert_eq!(lines[1], Line::Gap(Gap { lost: 7, place: LossPlace::Ring }));
        assert_eq!(text, b"{\"ts\"");
        assert!(whole_lines(&mut text).expect("none").is_empty());
        for nonsense in [&b"{\n"[..], b"\xff\n", &vec![b'x'; MAX_LINE + 1]] {
            assert!(whole_lines(&mut nonsense.to_vec()).is_err());
        }
    }

    async fn next(messages: &mut mpsc::Receiver<Message>) -> (u64, Streamed) {
        let message = tokio::time::timeout(Duration::from_secs(30), messages.recv()).await;
        match message.expect("in time").expect("a message") {
            Message::Stream(generation, said) => (generation, said),
            other => panic!("{other:?}"),
        }
    }

    /// Takes one request, and answers it with that; the request.
    async fn answer(daemon: &UnixListener, text: &str) -> String {
        let (mut stream, _) = daemon.accept().await.expect("a client");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        stream.write_all(text.as_bytes()).await.expect("an answer");
        String::from_utf8(request).expect("UTF-8")
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_stream_is_told_and_it_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let (sender, mut messages) = mpsc::channel(8);
        let (want, wanted) = watch::channel(Wanted::default());
        tokio::spawn(follow(socket.clone(), wanted, sender));
        want.send_replace(Wanted { generation: 1, query: Some("dport=80".into()) });
        let (generation, said) = next(&mut messages).await;
        assert!(
            matches!(&said, Streamed::Broken(why) if why.starts_with("no tcpmon daemon answers")),
            "{said:?}"
        );
        assert_eq!(generation, 1);

        let daemon = UnixListener::bind(&socket).expect("a socket");
        let request = answer(
            &daemon,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\ntoo many\n",
        );
        let (request, (_, said)) = tokio::join!(request, next(&mut messages));
        assert!(request.starts_with("GET /api/v1/events?dport=80 "), "{request}");
        assert!(matches!(&said, Streamed::Broken(why) if why.ends_with(": too many")), "{said:?}");

        answer(&daemon, &format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{EVENT}\n")).await;
        assert!(matches!(next(&mut messages).await.1, Streamed::Begun));
        assert!(matches!(next(&mut messages).await.1, Streamed::Lines(lines) if lines.len() == 1));
        assert!(matches!(next(&mut messages).await.1, Streamed::Broken(_)));

        // Not looked at any more: nobody asks, and what is wanted then has another number.
        want.send_replace(Wanted { generation: 2, query: None });
        want.send_replace(Wanted { generation: 3, query: Some(String::new()) });
        let request = answer(&daemon, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(request.starts_with("GET /api/v1/events? "), "{request}");
        assert_eq!(next(&mut messages).await.0, 3);
    }
}
