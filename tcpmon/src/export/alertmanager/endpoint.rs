//! Where an Alertmanager is, read from what was typed.

use hyper::Uri;
use std::{fmt, str::FromStr, sync::Arc};

/// The route that takes alerts.
const ROUTE: &str = "/api/v2/alerts";

/// An Alertmanager.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, an IPv6 address without brackets.
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    /// The header `Host`.
    pub(super) authority: Arc<str>,
    /// With [`ROUTE`].
    pub(super) path: Arc<str>,
    /// The header `Authorization`, where there is a password.
    pub(super) authorization: Option<Arc<str>>,
}

/// Why a text is not the URL of an Alertmanager. The text itself is not repeated, as it may have a
/// password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// TLS is not spoken here.
    #[error("https is not supported: give an http:// URL, of a proxy on this host if need be")]
    Https,
    /// It does not say how.
    #[error("an Alertmanager's URL begins with http://, as in http://alertmanager:9093")]
    Scheme,
    /// It is no URL at all.
    #[error("this is not a URL; wanted is one like http://alertmanager:9093")]
    Malformed,
    /// It has more than Alertmanager needs.
    #[error("the URL of an Alertmanager has no ? or #")]
    Query,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {}
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(EndpointError::Https);
            }
            _ => return Err(EndpointError::Scheme),
        }
        if text.contains(['?', '#']) {
            return Err(EndpointError::Query);
        }
        let uri = Uri::from_str(text).map_err(|_| EndpointError::Malformed)?;
        let whole = uri.authority().ok_or(EndpointError::Malformed)?.as_str();
        let (user, authority) = match whole.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, whole),
        };
        let host = uri.host().ok_or(EndpointError::Malformed)?;
        let after_host = authority.strip_prefix(host).ok_or(EndpointError::Malformed)?;
        let port = match after_host.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| EndpointError::Malformed)?,
            None => 80,
        };
        if port == 0 {
            return Err(EndpointError::Malformed);
        }
        let prefix = uri.path().trim_end_matches('/');
        let prefix = prefix.strip_suffix(ROUTE).unwrap_or(prefix);
        let authorization = match user {
            Some(user) => Some(basic(user).ok_or(EndpointError::Malformed)?.into()),
            None => None,
        };
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').into(),
            port,
            authority: authority.into(),
            path: format!("{prefix}{ROUTE}").into(),
            authorization,
        })
    }
}

/// The URL without the password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.path.strip_suffix(ROUTE).unwrap_or_default();
        write!(f, "http://{}{prefix}", self.authority)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// Basic authentication (RFC 7617) with what stands before the `@` of a URL.
fn basic(user: &str) -> Option<String> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut bytes = unescape(name)?;
    bytes.push(b':');
    bytes.extend(unescape(password)?);
    Some(format!("Basic {}", base64(&bytes)))
}

/// Percent-decoding (RFC 3986, 2.1).
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    Some(plain)
}

/// Base 64 (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * at) & 63) as usize).copied();
            text.push(if at <= three.len() { char::from(digit.unwrap_or(b'=')) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn urls_are_understood() {
        for (text, host, port, path, shown) in [
            ("http://am:9093", "am", 9093, "/api/v2/alerts", "http://am:9093"),
            ("HTTP://am:9093/", "am", 9093, "/api/v2/alerts", "http://am:9093"),
            ("http://am", "am", 80, "/api/v2/alerts", "http://am"),
            ("http://[::1]:9093", "::1", 9093, "/api/v2/alerts", "http://[::1]:9093"),
            ("http://am/x/y/", "am", 80, "/x/y/api/v2/alerts", "http://am/x/y"),
            ("http://am/x/api/v2/alerts", "am", 80, "/x/api/v2/alerts", "http://am/x"),
            ("http://u:p@am:1", "am", 1, "/api/v2/alerts", "http://am:1"),
        ] {
            let found = endpoint(text);
            assert_eq!((&*found.host, found.port, &*found.path), (host, port, path), "{text}");
            assert_eq!(found.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, expected) in [
            ("https://am:9093", EndpointError::Https),
            ("am:9093", EndpointError::Scheme),
            ("", EndpointError::Scheme),
            ("unix://run/am", EndpointError::Scheme),
            ("http://", EndpointError::Malformed),
            ("http://am:x", EndpointError::Malformed),
            ("http://am:0", EndpointError::Malformed),
            ("http://am:99999", EndpointError::Malformed),
            ("http://a b", EndpointError::Malformed),
            ("http://%zz@am", EndpointError::Malformed),
            ("http://am/?x=1", EndpointError::Query),
            ("http://am/#x", EndpointError::Query),
        ] {
            assert_eq!(text.parse::<Endpoint>().err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_password_is_sent_and_never_shown() {
        let found = endpoint("http://Aladdin:open%20sesame@am:9093");
        assert_eq!(found.authorization.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(&*found.authority, "am:9093");
        for shown in [format!("{found:?}"), found.to_string()] {
            assert!(!shown.contains("sesame") && !shown.contains("QWx"), "{shown}");
        }
        assert_eq!(endpoint("http://am").authorization, None);
    }

    #[test]
    fn base64_pads() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
