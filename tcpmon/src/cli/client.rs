//! Talking to the daemon over its Unix socket.

use crate::kernel::requirements;
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use std::{fmt::Display, io, path::Path};
use tokio::net::UnixStream;

/// Why the daemon cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// There is no daemon behind the socket.
    #[error("no tcpmon daemon answers on {path}: {cause}")]
    Absent {
        /// The socket.
        path: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// There may be one, but not for this user.
    #[error("may not talk to the tcpmon daemon on {0}: join the group tcpmon, or run as root")]
    Forbidden(String),
}

/// Connects to the daemon.
///
/// # Errors
///
/// Where nobody listens, or not for us.
pub async fn connect(socket: &Path) -> Result<UnixStream, Unreachable> {
    UnixStream::connect(socket).await.map_err(|cause| {
        let path = socket.display().to_string();
        if cause.kind() == io::ErrorKind::PermissionDenied {
            Unreachable::Forbidden(path)
        } else {
            Unreachable::Absent { path, cause }
        }
    })
}

/// Says that probes of its own are used instead, where `absent` tells why no daemon answers.
///
/// # Errors
///
/// Where this program may not load probes.
pub fn do_without(absent: &impl Display) -> anyhow::Result<()> {
    if requirements::refuse().is_err() {
        bail!("{absent}; start `tcpmon daemon`, or see `tcpmon check` to do without");
    }
    super::say(&format!("{absent}; using probes of its own"));
    Ok(())
}

/// Far more than any answer that is asked for whole.
const MAX_BYTES: usize = 64 << 20;

/// Asks for `route`, and returns the whole of the daemon's answer.
///
/// # Errors
///
/// As [`connect`] and [`get`], or where the answer breaks off or has no end.
pub async fn fetch(socket: &Path, route: &str) -> anyhow::Result<Bytes> {
    let response = get(connect(socket).await?, route).await?;
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    Ok(body.map_err(|error| anyhow!("the daemon broke its answer off: {error}"))?.to_bytes())
}

/// Asks for `route`, and returns the daemon's answer once its head is there.
///
/// # Errors
///
/// Where the daemon hangs up, or answers with anything but 200: its own line then.
pub async fn get(stream: UnixStream, route: &str) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("cannot talk to the daemon")?;
    tokio::spawn(connection);
    let request = Request::get(route)
        .header(header::HOST, "tcpmon")
        .body(Empty::<Bytes>::new())
        .context("cannot ask the daemon")?;
    let response = sender.send_request(request).await.context("the daemon does not answer")?;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let status = response.status();
    let words = Limited::new(response.into_body(), 4096)
        .collect()
        .await
        .map_err(|error| anyhow!("the daemon answers {status}: {error}"))?
        .to_bytes();
    bail!("the daemon answers {status}: {}", String::from_utf8_lossy(&words).trim_end())
}
