//! From files to what TLS is spoken with.

use super::{
    config::{ClientAuth, Tls, Version},
    error::WebError,
};
use std::{path::Path, sync::Arc};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

/// What `tls` says, from its files.
pub(super) fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, WebError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&tls.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file)
        .map_err(|error| unreadable(&tls.key_file, "private key", &error))?;
    let unfit = |path: &Path, message: String| WebError::Certificate { path: path.into(), message };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls))
        .map_err(|error| unfit(&tls.cert_file, error.to_string()))?;
    let builder = match &tls.client_ca_file {
        Some(file) if tls.client_auth_type != ClientAuth::NoClientCert => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unfit(file, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if tls.client_auth_type == ClientAuth::VerifyClientCertIfGiven {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            let verifier = verifier.build().map_err(|error| unfit(file, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unfit(&tls.cert_file, format!("it does not go with its key: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let range =
        tls.min_version.unwrap_or(Version::Tls12)..=tls.max_version.unwrap_or(Version::Tls13);
    let all = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)];
    all.into_iter().filter(|(version, _)| range.contains(version)).map(|(_, told)| told).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, WebError> {
    let told = |error| unreadable(path, "certificate", &error);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(told)?.collect();
    let found = found.map_err(told)?;
    if found.is_empty() {
        return Err(unreadable(path, "certificate", &pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn unreadable(path: &Path, what: &str, error: &pem::Error) -> WebError {
    let message = match error {
        pem::Error::Io(cause) => format!("cannot be read: {cause}"),
        pem::Error::NoItemsFound => format!("there is no {what} in PEM format in it"),
        other => format!("its {what} is broken: {other}"),
    };
    WebError::Certificate { path: path.to_owned(), message }
}
