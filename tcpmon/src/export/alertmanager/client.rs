//! One push: a connection, a request, an answer, each of bounded size and time.

use super::{
    Pace,
    endpoint::Endpoint,
    words::{WORDS, on_one_line},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{io, pin::pin, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// Bytes of an answer's head at most.
const HEAD: usize = 16 << 10;
/// Headers of an answer at most.
const HEADERS: usize = 64;
/// How long the words of a refusal are waited for.
const WORDS_WITHIN: Duration = Duration::from_secs(1);

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("not understood: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}, a redirect, which is not followed: give the URL that it leads to")]
    Redirect(StatusCode),
    #[error("it answers {status}{words}")]
    Refused { status: StatusCode, words: String },
    #[error("the request cannot be made: {0}")]
    Request(hyper::http::Error),
}

/// Sends one batch.
pub(super) async fn push(endpoint: &Endpoint, body: Bytes, pace: &Pace) -> Result<(), PushError> {
    timeout(pace.push, exchange(endpoint, body, pace.connect))
        .await
        .unwrap_or(Err(PushError::Timeout(pace.push)))
}

async fn exchange(endpoint: &Endpoint, body: Bytes, within: Duration) -> Result<(), PushError> {
    let mut request = Request::post(&*endpoint.path)
        .header(header::HOST, &*endpoint.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("tcpmon/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if let Some(authorization) = &endpoint.authorization {
        request = request.header(header::AUTHORIZATION, &**authorization);
    }
    let request = request.body(Full::new(body)).map_err(PushError::Request)?;

    let stream = timeout(within, TcpStream::connect((&*endpoint.host, endpoint.port)))
        .await
        .map_err(|_| PushError::ConnectTimeout(within))?
        .map_err(PushError::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = pin!(connection);
    let mut judged = pin!(async { judge(sender.send_request(request).await?).await });
    // In one task, so that whoever drops this future drops the connection with it.
    tokio::select! {
        judged = &mut judged => judged,
        // The connection has been read to its end, well or ill: the answer is there, or why not.
        _ = &mut connection => judged.await,
    }
}

/// What an answer means.
async fn judge(response: Response<Incoming>) -> Result<(), PushError> {
    let status = response.status();
    if status.is_success() {
        // Whatever else it has to say is not waited for.
        return Ok(());
    }
    if status.is_redirection() {
        return Err(PushError::Redirect(status));
    }
    let words = timeout(WORDS_WITHIN, words(response.into_body())).await.unwrap_or_default();
    Err(PushError::Refused { status, words })
}

/// The beginning of a refusal's text, on one line.
async fn words(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < WORDS
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data.get(..data.len().min(WORDS)).unwrap_or_default());
        }
    }
    on_one_line(&bytes)
}
