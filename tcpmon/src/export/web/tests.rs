//! The rules, and a server that goes by them, with certificates made here.

use super::{Web, WebConfig, WebError, config::ClientAuth};
use crate::{
    export::{
        Format,
        http::{Access, Backend, Document, Lines, router},
        server,
    },
    model::filter::Filter,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
};

#[test]
fn the_file_is_read_as_the_toolkit_writes_it() {
    let full = "\
tls_server_config:
  cert_file: server.crt
  key_file: /etc/ssl/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS13
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze
";
    let config = WebConfig::parse(full).expect("a configuration").beside(Path::new("/etc/tcpmon"));
    let tls = config.tls_server_config.expect("TLS");
    assert_eq!(tls.cert_file, PathBuf::from("/etc/tcpmon/server.crt"));
    assert_eq!(tls.key_file, PathBuf::from("/etc/ssl/server.key"));
    assert_eq!(tls.client_auth_type, ClientAuth::RequireAndVerifyClientCert);
    assert_eq!(config.basic_auth_users.len(), 1);
    for empty in ["", "\n", "# nothing\n", "basic_auth_users: {}\n"] {
        assert_eq!(WebConfig::parse(empty), Ok(WebConfig::default()), "{empty:?}");
    }
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let tls = |more: &str| format!("tls_server_config:\n  cert_file: a\n  key_file: b\n  {more}\n");
    for (text, words) in [
        (tls("cipher_suites: [x]"), &["cipher_suites"][..]),
        (tls("client_auth_typ: x"), &["client_auth_typ"]),
        (tls("client_auth_type: Maybe"), &["Maybe"]),
        (tls("client_auth_type: RequireAnyClientCert"), &["nobody has checked", "RequireAnd"]),
        (tls("client_auth_type: RequireAndVerifyClientCert"), &["needs a client_ca_file"]),
        (tls("client_ca_file: c"), &["no effect", "client_auth_type"]),
        (tls("min_version: TLS10"), &["TLS10"]),
        (tls("min_version: TLS13\n  max_version: TLS12"), &["above max_version"]),
        ("tls_server_config:\n  cert_file: a\n".into(), &["key_file"]),
        ("rate_limit: 1\n".into(), &["rate_limit"]),
        ("basic_auth_users: [a]\n".into(), &["line 1"]),
        ("basic_auth_users:\n  a: x\n  a: y\n".into(), &["duplicate"]),
        ("http_server_config:\n  headers:\n    X-Own: a\n".into(), &["X-Own"]),
        (": : :\n\t".into(), &["line"]),
        ("- 1\n".into(), &["line 1"]),
    ] {
        let error = WebConfig::parse(&text).expect_err(&text);
        assert!(!error.contains('\n'), "{error}");
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error:?} of {text}");
        }
    }
    let secret = "basic_auth_users:\n  alice: $2y$10$secretsecretsecret\nx: 1\n";
    let error = WebConfig::parse(secret).expect_err("an unknown key");
    assert!(!error.contains("secret") && error.contains("line 3"), "{error}");
}

/// A folder with a certificate authority, a server's and a client's certificate, and passwords.
struct Place {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// Cheap enough for a test; what is right is remembered in any case.
fn hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| bcrypt::hash("secret", 4).expect("a hash"))
}

impl Place {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let place = Self { folder: tempfile::tempdir().expect("a folder"), authority };
        fs::write(place.path("ca.crt"), place.authority.pem()).expect("written");
        place.issue("server");
        place.issue("client");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a certificate and its key; returns the certificate.
    fn issue(&self, name: &str) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).expect("written");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
        certificate.der().to_vec()
    }

    fn write(&self, text: &str) {
        fs::write(self.path("web.yml"), text).expect("written");
    }

    fn web(&self, text: &str) -> Arc<Web> {
        self.write(text);
        Web::from_file(Some(&self.path("web.yml"))).expect("rules")
    }

    fn connector(
        &self,
        certificate: Option<&str>,
        version: &'static SupportedProtocolVersion,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        let config = match certificate {
            None => config.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.crt")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
                config
                    .with_client_auth_cert(vec![chain.expect("PEM")], key.expect("PEM"))
                    .expect("a pair")
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";
const MUTUAL: &str = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
const OPTIONAL: &str = "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n";

fn users() -> String {
    format!("basic_auth_users:\n  prometheus: {}\n", hash())
}

struct Nothing;

impl Backend for Nothing {
    fn metrics(&self) -> Result<Vec<u8>, String> {
        // More than the buffers of a connection on loopback hold.
        Ok(vec![b'#'; 8 << 20])
    }

    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn document(&self, _which: Document, _max_age: Duration) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    fn subscribe(&self, _: Filter, _: Format) -> Result<Lines, String> {
        Ok(Box::pin(futures_util::stream::empty()))
    }
}

/// A server on a port of its own, until it is dropped.
struct Served {
    address: SocketAddr,
    _stop: watch::Sender<bool>,
}

async fn serve(access: Access, web: &Arc<Web>) -> Served {
    let (stop, stopping) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = router(Arc::new(Nothing), access, web);
    server::serve(listener, routes, Some(Arc::clone(web)), stopping);
    Served { address, _stop: stop }
}

fn request(route: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("GET {route} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text + "\r\n"
}

/// The answer's head; empty where the other end hangs up without one.
async fn ask<C: AsyncRead + AsyncWrite + Unpin>(mut connection: C, request: &str) -> String {
    // The answer may come before all of it is sent.
    let _ = connection.write_all(request.as_bytes()).await;
    let mut answer = vec![0; 4096];
    let mut length = 0;
    while let Ok(more) = connection.read(&mut answer[length..]).await {
        length += more;
        if more == 0 || answer[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

async fn status(address: SocketAddr, request: &str) -> u16 {
    let connection = TcpStream::connect(address).await.expect("a connection");
    code(&ask(connection, request).await)
}

/// 0 where there is no answer.
fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

impl Served {
    async fn by_tls(
        &self,
        connector: &TlsConnector,
        request: &str,
    ) -> Result<(u16, Vec<u8>), std::io::Error> {
        let connection = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = connector.connect(name, connection).await?;
        let chain = connection.get_ref().1.peer_certificates().expect("a certificate").to_vec();
        let answer = ask(&mut connection, request).await;
        Ok((code(&answer), chain[0].to_vec()))
    }
}

#[tokio::test]
async fn beyond_loopback_there_are_metrics_alone_unless_a_password_is_asked() {
    let place = Place::new();
    let open = serve(Access::Metrics, &Web::open()).await;
    for (route, expected) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 403),
        ("/api", 403),
        ("/api/v1/events", 403),
        ("/api/v1/nothing", 403),
        ("/nothing", 404),
        ("//api/v1/events", 404),
        ("/metrics/../api/v1/events", 404),
        ("/%61pi/v1/events", 404),
        ("http://localhost/api/v1/events", 403),
    ] {
        assert_eq!(status(open.address, &request(route, &[])).await, expected, "{route}");
        // A password helps nobody where none is asked.
        let shown = [("Authorization", basic("prometheus:secret"))];
        let shown = shown.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(status(open.address, &request(route, &shown)).await, expected, "{route}");
    }
    let asked = serve(Access::Metrics, &place.web(&users())).await;
    for (user, route, expected) in [
        ("prometheus:secret", "/metrics", 200),
        ("prometheus:secret", "/", 200),
        ("prometheus:secret", "/api/v1/events", 200),
        ("prometheus:secret", "/api/v1/nothing", 404),
        ("prometheus:Secret", "/metrics", 401),
        ("nobody:secret", "/", 401),
        ("", "/api/v1/nothing", 401),
        ("", "/metrics", 401),
        ("", "/healthz", 200),
        ("", "/readyz", 200),
    ] {
        let value = basic(user);
        let headers = [("Authorization", value.as_str())];
        let headers = if user.is_empty() { &headers[..0] } else { &headers };
        let got = status(asked.address, &request(route, headers)).await;
        assert_eq!(got, expected, "{user} {route}");
    }
    let (good, bad) = (basic("prometheus:secret"), basic("prometheus:x"));
    let twice = [("Authorization", good.as_str()), ("Authorization", bad.as_str())];
    assert_eq!(status(asked.address, &request("/", &twice)).await, 401, "two of them");
    let connection = TcpStream::connect(asked.address).await.expect("a connection");
    let told = ask(connection, &request("/", &[])).await.to_lowercase();
    assert!(told.contains("www-authenticate: basic realm=\"tcpmon\""), "{told}");
    assert!(told.contains("x-content-type-options: nosniff"), "{told}");
}

#[tokio::test]
async fn a_name_of_the_internet_is_no_name_of_loopback() {
    let place = Place::new();
    let local = serve(Access::Local, &Web::open()).await;
    for (target, hosts, expected) in [
        ("/", &["localhost"][..], 200),
        ("/", &["rebound.example"], 403),
        ("/", &["localhost", "rebound.example"], 400),
        ("http://rebound.example/", &["localhost"], 403),
        ("/metrics", &["rebound.example"], 200),
    ] {
        let headers: Vec<_> = hosts.iter().map(|host| ("Host", *host)).collect();
        let got = status(local.address, &request(target, &headers)).await;
        // Two names are refused, by whomever.
        assert!(got == expected || expected == 400 && got == 403, "{target} {hosts:?}: {got}");
    }
    let asked = serve(Access::Local, &place.web(&users())).await;
    let value = basic("prometheus:secret");
    let shown = [("Host", "tcpmon.example"), ("Authorization", value.as_str())];
    assert_eq!(status(asked.address, &request("/", &shown)).await, 200);
}

#[tokio::test]
async fn tls_with_and_without_a_certificate_of_the_client() {
    let place = Place::new();
    let nobody = place.connector(None, &TLS13);
    let client = place.connector(Some("client"), &TLS13);
    let (root, metrics) = (request("/", &[]), request("/metrics", &[]));
    let stranger = Place::new();
    fs::copy(stranger.path("client.crt"), place.path("other.crt")).expect("copied");
    fs::copy(stranger.path("client.key"), place.path("other.key")).expect("copied");
    let other = place.connector(Some("other"), &TLS13);

    let plain = serve(Access::Metrics, &place.web(TLS)).await;
    assert_eq!(plain.by_tls(&nobody, &metrics).await.expect("TLS").0, 200);
    assert_eq!(plain.by_tls(&nobody, &root).await.expect("TLS").0, 403, "TLS is no password");
    assert_eq!(status(plain.address, &metrics).await, 0, "no HTTP where TLS is spoken");
    let old = place.connector(None, &TLS12);
    assert_eq!(plain.by_tls(&old, &metrics).await.expect("TLS 1.2").0, 200);

    let mutual = serve(Access::Metrics, &place.web(&[TLS, MUTUAL].concat())).await;
    assert_eq!(mutual.by_tls(&client, &root).await.expect("TLS").0, 200);
    for refused in [&nobody, &other] {
        // In TLS 1.3 the client learns it with the first answer.
        let told = mutual.by_tls(refused, &metrics).await;
        assert!(told.as_ref().map_or(true, |(code, _)| *code == 0), "{told:?}");
    }

    let optional = serve(Access::Metrics, &place.web(&[TLS, OPTIONAL].concat())).await;
    assert_eq!(optional.by_tls(&client, &root).await.expect("TLS").0, 200);
    assert_eq!(optional.by_tls(&nobody, &root).await.expect("TLS").0, 403);
    assert_eq!(optional.by_tls(&nobody, &metrics).await.expect("TLS").0, 200);

    let newest =
        serve(Access::Metrics, &place.web(&[TLS, "  min_version: TLS13\n"].concat())).await;
    assert!(newest.by_tls(&old, &metrics).await.is_err());

    let both = serve(Access::Metrics, &place.web(&[TLS, MUTUAL, &users()].concat())).await;
    assert_eq!(both.by_tls(&client, &root).await.expect("TLS").0, 401);
    let value = basic("prometheus:secret");
    let shown = request("/", &[("Authorization", &value)]);
    assert_eq!(both.by_tls(&client, &shown).await.expect("TLS").0, 200);
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let place = Place::new();
    let web = place.web(&[TLS, &users()].concat());
    let served = serve(Access::Metrics, &web).await;
    let client = place.connector(None, &TLS13);
    let root = request("/healthz", &[]);
    let first = served.by_tls(&client, &root).await.expect("TLS").1;
    let renewed = place.issue("server");
    assert_ne!(first, renewed);
    let mut shown = first.clone();
    for _ in 0..100 {
        shown = served.by_tls(&client, &root).await.expect("TLS").1;
        if shown == renewed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shown, renewed, "without a signal, within seconds");

    // Half a file: what was there goes on, and says why.
    fs::write(place.path("server.key"), "-----BEGIN").expect("written");
    let error = web.reload().expect_err("a broken key").to_string();
    assert!(error.contains("server.key") && !error.contains('\n'), "{error}");
    assert_eq!(served.by_tls(&client, &root).await.expect("TLS").1, renewed);
    let renewed = place.issue("server");
    web.reload().expect("rules");
    assert_eq!(served.by_tls(&client, &root).await.expect("TLS").1, renewed);

    // An empty file, as while it is written, opens nothing.
    for less in ["", TLS, &users()] {
        place.write(less);
        assert!(matches!(web.reload(), Err(WebError::Opens { .. })), "{less}");
        let code = served.by_tls(&client, &request("/metrics", &[])).await.expect("TLS").0;
        assert_eq!(code, 401, "{less}");
    }
    let mutual = [TLS, MUTUAL].concat();
    place.write(&mutual);
    web.reload().expect("certificates for passwords");
    assert_eq!(web.rules().certificates, ClientAuth::RequireAndVerifyClientCert);
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let place = Place::new();
    fs::copy(place.path("client.key"), place.path("wrong.key")).expect("copied");
    fs::write(place.path("empty"), "").expect("written");
    for (text, words) in [
        (TLS.replace("server.crt", "none.crt"), &["none.crt", "cannot be read"][..]),
        (TLS.replace("server.key", "wrong.key"), &["server.crt", "does not go with its key"]),
        (TLS.replace("server.crt", "empty"), &["empty", "no certificate in PEM"]),
        (TLS.replace("server.key", "server.crt"), &["server.crt", "no private key in PEM"]),
        ("basic_auth_users:\n  a: secret\n".into(), &["web.yml", "no bcrypt hash"]),
    ] {
        place.write(&text);
        let error = Web::from_file(Some(&place.path("web.yml"))).expect_err(&text).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n') && !error.contains("secret"), "{error}");
    }
    let error = Web::from_file(Some(&place.path("nowhere.yml"))).expect_err("no file").to_string();
    assert!(error.contains("nowhere.yml") && error.contains("--web.config.file"), "{error}");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let served = serve(Access::Local, &Web::open()).await;
    let long = "x".repeat(32 << 10);
    let wide: Vec<_> = (0..100).map(|number| (format!("X-{number}"), "x")).collect();
    let wide: Vec<_> = wide.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(status(served.address, &request("/", &[("X-Long", &long)])).await, 431);
    assert_eq!(status(served.address, &request("/", &wide)).await, 431);
    let route = status(served.address, &request(&format!("/{long}"), &[])).await;
    assert!(matches!(route, 414 | 431), "{route}");
    let (length, chunked) =
        ([("Content-Length", "99999999999")], [("Transfer-Encoding", "chunked")]);
    assert_eq!(status(served.address, &request("/metrics", &length)).await, 413);
    assert_eq!(status(served.address, &request("/metrics", &chunked)).await, 413);
    let post = request("/", &[]).replacen("GET", "POST", 1);
    assert_eq!(status(served.address, &post).await, 405);

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let (_stop, stopping) = watch::channel(false);
    let place = Place::new();
    // No password is asked here, whatever is asked over TCP.
    let web = place.web(&[TLS, &users()].concat());
    server::serve(listener, router(Arc::new(Nothing), Access::Full, &web), None, stopping);
    let connect = || UnixStream::connect(&path);
    let answer = ask(connect().await.expect("connected"), &request("/", &[])).await;
    assert_eq!(code(&answer), 200);
    let answer = ask(connect().await.expect("connected"), &request("/", &length)).await;
    assert_eq!(code(&answer), 413);
}
