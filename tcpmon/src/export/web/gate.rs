//! What every request over TCP passes before its route is looked for.

use super::{Web, passwords::Verdict};
use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::IpAddr, sync::Arc};

/// What is known of the other end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it is; `None` on the Unix socket.
    pub host: Option<IpAddr>,
    /// It has shown a certificate, and that was found good.
    pub certified: bool,
}

/// Whether whoever asks has shown who they are; an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trusted(pub bool);

/// What [`gate`] goes by.
#[derive(Clone, Debug)]
pub struct Gate(pub Arc<Web>);

/// Routes that tell nothing but whether the daemon is well, for whoever keeps it running.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// Asks for the password, if there is to be one, and notes whether the request may be trusted.
pub async fn gate(State(Gate(web)): State<Gate>, mut request: Request, next: Next) -> Response {
    let rules = web.rules();
    let mut response = if has_body(&request) {
        no_body()
    } else {
        let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
        let mut trusted = peer.certified;
        let asked = !rules.passwords.is_empty() && !HEALTH.contains(&request.uri().path());
        let verdict = if asked {
            let shown = only(request.headers(), &header::AUTHORIZATION).map(HeaderValue::as_bytes);
            rules.passwords.check(shown, peer.host).await
        } else {
            Verdict::Right
        };
        trusted |= asked && verdict == Verdict::Right;
        match verdict {
            Verdict::Right => {
                request.extensions_mut().insert(Trusted(trusted));
                next.run(request).await
            }
            Verdict::Wrong => {
                let how = HeaderValue::from_static("Basic realm=\"tcpmon\", charset=\"UTF-8\"");
                let told = (StatusCode::UNAUTHORIZED, "a name and a password are needed\n");
                ([(header::WWW_AUTHENTICATE, how)], told).into_response()
            }
            Verdict::Busy => {
                let told = "too many wrong passwords; try again in a moment\n";
                let later = [(header::RETRY_AFTER, HeaderValue::from_static("5"))];
                (StatusCode::SERVICE_UNAVAILABLE, later, told).into_response()
            }
        }
    };
    let headers = response.headers_mut();
    headers.extend(rules.headers.clone());
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    response
}

/// Refuses what comes with a body, on the Unix socket too: no route takes one.
pub async fn bodiless(request: Request, next: Next) -> Response {
    if has_body(&request) { no_body() } else { next.run(request).await }
}

fn has_body(request: &Request<Body>) -> bool {
    !request.body().is_end_stream()
}

fn no_body() -> Response {
    // What is on its way is not read: the connection ends with the answer.
    let end = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (StatusCode::PAYLOAD_TOO_LARGE, end, "no route takes a body\n").into_response()
}

/// The value of a header that may stand there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}
