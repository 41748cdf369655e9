//! The page at `/`: plain files, joined when tcpmon is compiled and embedded in it.
//!
//! It has no build step and fetches nothing from elsewhere. What it shows comes from
//! `/api/v1/report` and `/api/v1/events`, names of foreign processes among it: the policy below
//! lets no text become markup, style or script.

use std::sync::LazyLock;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::http::{accepts, accepts_gzip, gzip};

const HTML: &str = include_str!("index.html");
const STYLE: &str =
    concat!(include_str!("vendor/uplot/uPlot.min.css"), "\n", include_str!("style.css"));
const SCRIPT: &str = concat!(
    include_str!("vendor/uplot/uPlot.iife.min.js"),
    "\n(() => {\n'use strict';\n",
    include_str!("script/format.js"),
    include_str!("script/dom.js"),
    include_str!("script/link.js"),
    include_str!("script/charts.js"),
    include_str!("script/diagram.js"),
    include_str!("script/stream.js"),
    include_str!("script/view.js"),
    include_str!("script/main.js"),
    "})();\n",
);

/// Scripts and styles of this origin, none of them in the page's text; nothing from elsewhere; no
/// markup made of strings (Trusted Types); nobody may show the page in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

static PACKED_HTML: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| gzip(HTML.as_bytes()).ok());
static PACKED_STYLE: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| gzip(STYLE.as_bytes()).ok());
static PACKED_SCRIPT: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| gzip(SCRIPT.as_bytes()).ok());

/// Whether the client is to have the page: all but those that ask for plain text alone.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    accepts(headers, header::ACCEPT, "text/html") || !accepts(headers, header::ACCEPT, "text/plain")
}

/// The page.
pub(super) fn html(headers: &HeaderMap) -> Response {
    served(headers, "text/html; charset=utf-8", HTML, PACKED_HTML.as_deref())
}

/// Its style sheet.
pub(super) async fn style(headers: HeaderMap) -> Response {
    served(&headers, "text/css; charset=utf-8", STYLE, PACKED_STYLE.as_deref())
}

/// Its script.
pub(super) async fn script(headers: HeaderMap) -> Response {
    served(&headers, "text/javascript; charset=utf-8", SCRIPT, PACKED_SCRIPT.as_deref())
}

fn served(
    headers: &HeaderMap,
    kind: &'static str,
    text: &'static str,
    packed: Option<&'static [u8]>,
) -> Response {
    let mut response = match packed.filter(|_| accepts_gzip(headers)) {
        Some(packed) => {
            let encoding = HeaderValue::from_static("gzip");
            ([(header::CONTENT_ENCODING, encoding)], packed).into_response()
        }
        None => text.into_response(),
    };
    let told: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // It belongs to this version of the daemon.
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept, accept-encoding"),
    ];
    for (name, value) in told {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http_body_util::BodyExt as _;

    fn asked(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
        for (at, _) in HTML.match_indices("http") {
            // The name of a namespace, within the icon; nothing is fetched by it.
            assert!(HTML[at..].starts_with("http://www.w3.org/2000/svg"), "{}", &HTML[at..at + 40]);
        }
        for forbidden in ["<style", "style=", "onclick", "onload", "javascript:", "//cdn"] {
            assert!(!HTML.contains(forbidden), "{forbidden}");
        }
        for element in HTML.split("<script").skip(1) {
            assert!(element.starts_with(" src=\"page.js\""), "an inline script: {element:.40}");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        let own = &SCRIPT[include_str!("vendor/uplot/uPlot.iife.min.js").len()..];
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!own.contains(forbidden), "{forbidden}");
        }
        assert!(!POLICY.contains("unsafe") && !POLICY.contains('*'));
    }

    #[test]
    fn every_element_that_the_script_asks_for_is_there() {
        let mut asked = 0;
        for call in SCRIPT.split("byId('").skip(1) {
            let id = call.split('\'').next().unwrap_or_default();
            assert!(HTML.contains(&format!("id=\"{id}\"")), "{id}");
            asked += 1;
        }
        assert!(asked > 20, "only {asked}");
    }

    #[test]
    fn all_get_the_page_but_those_who_ask_for_plain_text() {
        assert!(wanted(&asked(header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(wanted(&asked(header::ACCEPT, "*/*")));
        assert!(wanted(&HeaderMap::new()));
        assert!(!wanted(&asked(header::ACCEPT, "text/plain")));
    }

    #[tokio::test]
    async fn files_are_served_with_their_policy_packed_or_not() {
        for packed in [false, true] {
            let headers =
                if packed { asked(header::ACCEPT_ENCODING, "gzip, br") } else { HeaderMap::new() };
            let response = script(headers).await;
            let told = response.headers();
            assert_eq!(told[header::CONTENT_SECURITY_POLICY], POLICY);
            assert_eq!(told.contains_key(header::CONTENT_ENCODING), packed);
            let body = Body::new(response.into_body()).collect().await.expect("a body").to_bytes();
            assert_eq!(body.len() < SCRIPT.len() / 2, packed);
        }
    }
}
