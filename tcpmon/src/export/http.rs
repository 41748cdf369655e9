//! The routes of the HTTP interface.

use super::{
    Format, page, recent,
    web::{Gate, Trusted, Web, bodiless, gate},
};
use crate::model::filter::Filter;
use axum::{
    Router,
    body::Body,
    extract::{RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{Stream, StreamExt};
use std::{convert::Infallible, io::Write, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

/// Chunks of whole lines.
pub type Lines = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// What the routes show.
pub trait Backend: Send + Sync + 'static {
    /// The metrics as Prometheus text; an error is one line for the scraper to see.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    fn metrics(&self) -> Result<Vec<u8>, String>;

    /// Whether everything runs that has to.
    ///
    /// # Errors
    ///
    /// What does not, in one line.
    fn healthy(&self) -> Result<(), String>;

    /// Whether transitions are being observed.
    ///
    /// # Errors
    ///
    /// Why not, in one line.
    fn ready(&self) -> Result<(), String>;

    /// A document as JSON; a report that was made no longer than `max_age` ago will do.
    ///
    /// # Errors
    ///
    /// Where what it is made of cannot be read, in one line.
    fn document(&self, which: Document, max_age: Duration) -> Result<Vec<u8>, String>;

    /// Begins a stream of events. May take a moment: not to be called in an async task.
    ///
    /// # Errors
    ///
    /// Where there are too many already, in one line.
    fn subscribe(&self, filter: Filter, format: Format) -> Result<Lines, String>;
}

/// What is served as one piece of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// Everything: `crate::model::report::Report`.
    Report,
    /// The alerts that fire.
    Alerts,
    /// What to change.
    Advice,
}

/// Who may see what on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything: the Unix socket.
    Full,
    /// Everything, but not to a web page that calls this host by a name of its own choosing:
    /// loopback addresses.
    Local,
    /// Metrics and health alone, unless whoever asks has shown a password or a certificate: any
    /// other address.
    Metrics,
}

/// Prometheus' text format 0.0.4, by its full name.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes that `backend` answers on a listener of that access; `web`: what is asked of whoever
/// comes over TCP.
pub fn router<B: Backend>(backend: Arc<B>, access: Access, web: &Arc<Web>) -> Router {
    let open = Router::new()
        .route("/metrics", get(metrics::<B>))
        .route(
            "/healthz",
            get(|State(backend): State<Arc<B>>| async move { told(backend.healthy()) }),
        )
        .route(
            "/readyz",
            get(|State(backend): State<Arc<B>>| async move { told(backend.ready()) }),
        );
    let guarded = match access {
        Access::Full => full(),
        Access::Local => full().route_layer(middleware::from_fn(by_local_name)),
        Access::Metrics => full().route_layer(middleware::from_fn(trusted_only)),
    };
    let fallback = if access == Access::Metrics { any(missing_elsewhere) } else { any(missing) };
    let routes = open.merge(guarded).fallback(fallback).with_state(backend);
    match access {
        Access::Full => routes.layer(middleware::from_fn(bodiless)),
        _ => routes.layer(middleware::from_fn_with_state(Gate(Arc::clone(web)), gate)),
    }
}

fn full<B: Backend>() -> Router<Arc<B>> {
    Router::new()
        .route("/", get(index))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/api/v1/events", get(events::<B>))
        .route(
            "/api/v1/report",
            get(|backend, asked| document::<B>(backend, asked, Document::Report)),
        )
        .route(
            "/api/v1/alerts",
            get(|backend, asked| document::<B>(backend, asked, Document::Alerts)),
        )
        .route(
            "/api/v1/advice",
            get(|backend, asked| document::<B>(backend, asked, Document::Advice)),
        )
}

/// Lets a request through that names this host by an address or by a name without a dot.
///
/// A browser sends along the name in the page's address. A page may make its own name resolve to
/// a loopback address, and could then read what is served there (DNS rebinding).
///
/// Whoever has shown a password or a certificate is no such page.
async fn by_local_name(request: Request, next: Next) -> Response {
    // In a proxy's form (RFC 9112, 3.2.2) the address has a name too.
    let target = request.uri().authority().is_none_or(|name| is_local(name.as_str()));
    let mut named = request.headers().get_all(header::HOST).iter();
    let local = target && named.all(|host| host.to_str().is_ok_and(is_local));
    if local || is_trusted(&request) {
        return next.run(request).await;
    }
    line(StatusCode::FORBIDDEN, "not served under this name; use an address".to_owned())
}

/// Lets through whoever has shown a password or a certificate.
async fn trusted_only(request: Request, next: Next) -> Response {
    if is_trusted(&request) { next.run(request).await } else { forbidden() }
}

fn is_trusted(request: &Request) -> bool {
    request.extensions().get::<Trusted>().is_some_and(|trusted| trusted.0)
}

/// Whether a Host header (RFC 9110, 7.2), with or without a port, is an IP address or a name that
/// nobody can own on the Internet.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.parse::<IpAddr>().is_ok() || !name.trim_end_matches('.').contains('.')
}

async fn metrics<B: Backend>(State(backend): State<Arc<B>>, headers: HeaderMap) -> Response {
    let read = tokio::task::spawn_blocking(move || backend.metrics()).await;
    let text = match read {
        Ok(Ok(text)) => text,
        Ok(Err(why)) => return line(StatusCode::INTERNAL_SERVER_ERROR, why),
        Err(error) => return line(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE));
    if accepts_gzip(&headers)
        && let Ok(packed) = gzip(&text)
    {
        let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return ([kind, encoding], packed).into_response();
    }
    ([kind], text).into_response()
}

async fn events<B: Backend>(
    State(backend): State<Arc<B>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let filter = match Filter::from_query(query.as_deref().unwrap_or_default()) {
        Ok(filter) => filter,
        Err(error) => return line(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let format = if accepts(&headers, header::ACCEPT, "text/event-stream") {
        Format::EventStream
    } else {
        Format::JsonLines
    };
    match tokio::task::spawn_blocking(move || backend.subscribe(filter, format)).await {
        Ok(Err(why)) => line(StatusCode::SERVICE_UNAVAILABLE, why),
        Ok(Ok(lines)) => {
            let kind = HeaderValue::from_static(format.media_type());
            let still = HeaderValue::from_static("no-store");
            let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, still)], body).into_response()
        }
        Err(error) => line(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn document<B: Backend>(
    State(backend): State<Arc<B>>,
    headers: HeaderMap,
    which: Document,
) -> Response {
    let max_age = recent::max_age(&headers);
    match tokio::task::spawn_blocking(move || backend.document(which, max_age)).await {
        Ok(Ok(text)) => {
            let kind = HeaderValue::from_static("application/json");
            let still = HeaderValue::from_static("no-store");
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, still)], text).into_response()
        }
        Ok(Err(why)) => line(StatusCode::INTERNAL_SERVER_ERROR, why),
        Err(error) => line(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// What there is to ask for, a line each.
const ROUTES: &str = "tcpmon\n\n/metrics\n/healthz\n/readyz\n/api/v1/report\n/api/v1/alerts\n\
                      /api/v1/advice\n/api/v1/events";

/// The page; for those who ask for plain text the routes.
async fn index(headers: HeaderMap) -> Response {
    if page::wanted(&headers) {
        return page::html(&headers);
    }
    line(StatusCode::OK, ROUTES.to_owned())
}

fn forbidden() -> Response {
    line(
        StatusCode::FORBIDDEN,
        "not served on an address that is not loopback without a password or a client \
         certificate; use a loopback address, the Unix socket or --web.config.file"
            .to_owned(),
    )
}

/// Does not tell which routes there are to whoever may not see them.
async fn missing_elsewhere(request: Request) -> Response {
    let path = request.uri().path();
    let api = path == "/api" || path.starts_with("/api/");
    if api && !is_trusted(&request) { forbidden() } else { missing().await }
}

async fn missing() -> Response {
    line(StatusCode::NOT_FOUND, "no such route; / lists those there are".to_owned())
}

fn told(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => line(StatusCode::OK, "ok".to_owned()),
        Err(why) => line(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn line(status: StatusCode, text: String) -> Response {
    (status, text + "\n").into_response()
}

pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    accepts(headers, header::ACCEPT_ENCODING, "gzip")
}

/// Whether a header with a list of choices has `choice`, and does not refuse it by `q=0`.
pub(super) fn accepts(headers: &HeaderMap, name: header::HeaderName, choice: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(choice));
            let refused = parts
                .filter_map(|part| part.strip_prefix("q="))
                .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight == 0.0));
            named && !refused
        })
}

pub(super) fn gzip(text: &[u8]) -> std::io::Result<Vec<u8>> {
    // The fastest level: a scrape is waited for, and the text shrinks tenfold as it is.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_internet_are_told_from_local_ones() {
        for host in ["127.0.0.1", "127.0.0.1:10066", "[::1]:10066", "[::1]", "localhost:80", "x"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["rebound.example", "rebound.example:10066", "127.0.0.1.example", "a.b."] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn choices_are_read_as_http_has_them() {
        for (value, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, deflate", false),
            ("deflate", false),
            ("gzipped", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
