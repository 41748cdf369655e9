//! The file's shape: Prometheus' exporter-toolkit, docs/web-configuration.md there.
//!
//! What this version does not do is refused by name, never passed over: somebody relies on it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// TLS; none: plain HTTP.
    pub tls_server_config: Option<Tls>,
    /// HTTP.
    pub http_server_config: Http,
    /// Names, each with the bcrypt hash of its password; none: no password is asked.
    pub basic_auth_users: BTreeMap<String, String>,
}

/// What TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate, with those between it and the root, as PEM.
    pub cert_file: PathBuf,
    /// Its private key, as PEM.
    pub key_file: PathBuf,
    /// Whether clients have to show a certificate.
    #[serde(default)]
    pub client_auth_type: ClientAuth,
    /// Certificates of who may have signed theirs, as PEM.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// The oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: Option<Version>,
    /// The newest.
    #[serde(default)]
    pub max_version: Option<Version>,
}

/// Whether clients have to show a certificate, in Go's words (`crypto/tls`, `ClientAuthType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    /// Taken whoever signed it: refused, since it protects nothing.
    RequestClientCert,
    /// The same.
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    /// They may, and then it has to be a good one.
    VerifyClientCertIfGiven,
    /// They have to.
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Version {
    /// RFC 5246.
    #[serde(rename = "TLS12")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "TLS13")]
    Tls13,
}

/// What is done in HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// HTTP/2: may be said, and is not spoken in any case.
    pub http2: Option<bool>,
    /// Headers of every answer.
    pub headers: Headers,
}

/// Headers that may be added to every answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    #[serde(rename = "Content-Security-Policy")]
    content_security_policy: Option<String>,
    #[serde(rename = "X-Frame-Options")]
    x_frame_options: Option<String>,
    #[serde(rename = "X-Content-Type-Options")]
    x_content_type_options: Option<String>,
    #[serde(rename = "X-XSS-Protection")]
    x_xss_protection: Option<String>,
    #[serde(rename = "Strict-Transport-Security")]
    strict_transport_security: Option<String>,
}

impl Headers {
    pub(super) fn to_headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-security-policy", &self.content_security_policy),
            ("x-frame-options", &self.x_frame_options),
            ("x-content-type-options", &self.x_content_type_options),
            ("x-xss-protection", &self.x_xss_protection),
            ("strict-transport-security", &self.strict_transport_security),
        ] {
            let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("the header {name} cannot be {value:?}"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }
}

impl Tls {
    /// The files it names.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert_file, &self.key_file].into_iter().chain(&self.client_ca_file)
    }

    /// What cannot be read out of the parts alone.
    fn check(&self) -> Result<(), String> {
        if self.min_version.zip(self.max_version).is_some_and(|(min, max)| min > max) {
            return Err("min_version is above max_version".to_owned());
        }
        match (self.client_auth_type, &self.client_ca_file) {
            (ClientAuth::RequestClientCert | ClientAuth::RequireAnyClientCert, _) => {
                Err("client_auth_type takes certificates that nobody has checked, which protects \
                     nothing; use RequireAndVerifyClientCert and client_ca_file"
                    .to_owned())
            }
            (ClientAuth::NoClientCert, Some(_)) => {
                Err("client_ca_file has no effect without client_auth_type: \
                     RequireAndVerifyClientCert"
                    .to_owned())
            }
            (ClientAuth::NoClientCert, None) | (_, Some(_)) => Ok(()),
            (_, None) => Err("client_auth_type needs a client_ca_file".to_owned()),
        }
    }
}

impl Web {
    /// Reads the text of a file; an empty one asks nothing.
    ///
    /// # Errors
    ///
    /// In one line what is wrong, with its place in the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let config: Self = serde_saphyr::from_str(text).map_err(|error| {
            // The text may have hashes in it, which are no matter for a log.
            let told = error.without_snippet().to_string();
            told.lines().map(str::trim).collect::<Vec<_>>().join(" ")
        })?;
        config.tls_server_config.as_ref().map_or(Ok(()), Tls::check)?;
        Ok(config)
    }

    /// With paths that begin at `folder`, the file's own, unless they are absolute.
    pub(super) fn beside(mut self, folder: &Path) -> Self {
        if let Some(tls) = &mut self.tls_server_config {
            let paths = [&mut tls.cert_file, &mut tls.key_file];
            for path in paths.into_iter().chain(&mut tls.client_ca_file) {
                *path = folder.join(&path);
            }
        }
        self
    }
}
