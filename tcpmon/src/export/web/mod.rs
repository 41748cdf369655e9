//! Who is let in over TCP: TLS, client certificates and passwords, from the file that
//! `--web.config.file` names.
//!
//! The file has the format of Prometheus' exporter-toolkit, so that one file does for all exporters
//! of a host. It and the files that it names are read again when they change and on SIGHUP. A
//! reload that would open what was closed (an empty file, while somebody is writing it) is refused:
//! TLS, certificates and passwords are switched off only by a restart.

mod config;
pub(crate) mod credentials;
mod error;
mod gate;
mod passwords;
mod tls;

#[cfg(test)]
mod tests;

pub use config::Web as WebConfig;
pub use error::WebError;
pub use gate::{Gate, Peer, Trusted, bodiless, gate};

use passwords::Passwords;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// How often it is looked whether a file has changed, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Far more than any sensible file.
const MAX_BYTES: u64 = 1 << 20;

/// What is asked of whoever comes over TCP.
#[derive(Debug)]
pub struct Web {
    /// The file; `None`: nothing is asked.
    path: Option<PathBuf>,
    rules: RwLock<Arc<Rules>>,
    looked: Mutex<Looked>,
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Rules {
    tls: Option<Arc<ServerConfig>>,
    certificates: config::ClientAuth,
    passwords: Passwords,
    headers: axum::http::HeaderMap,
    /// The files that all this came from.
    files: Vec<PathBuf>,
}

impl Rules {
    /// What makes TLS of a connection; `None`: there is to be none.
    #[must_use]
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.tls.clone().map(TlsAcceptor::from)
    }

    /// Whether whoever gets through has shown who they are.
    fn are_strict(&self) -> bool {
        self.certificates == config::ClientAuth::RequireAndVerifyClientCert
            || !self.passwords.is_empty()
    }
}

#[derive(Debug)]
struct Looked {
    at: Instant,
    stamps: Vec<Stamp>,
}

/// What changes when a file is written or replaced.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl Web {
    /// Nothing is asked.
    #[must_use]
    pub fn open() -> Arc<Self> {
        Arc::new(Self::with_rules(None, Rules::default()))
    }

    /// What `file` says.
    ///
    /// # Errors
    ///
    /// Where it or a file that it names cannot be read, or says what will not do.
    pub fn from_file(file: Option<&Path>) -> Result<Arc<Self>, WebError> {
        let Some(path) = file else { return Ok(Self::open()) };
        let rules = read(path)?;
        Ok(Arc::new(Self::with_rules(Some(path.to_owned()), rules)))
    }

    fn with_rules(path: Option<PathBuf>, rules: Rules) -> Self {
        let looked = Looked { at: Instant::now(), stamps: stamps(&rules.files) };
        Self { path, rules: RwLock::new(Arc::new(rules)), looked: Mutex::new(looked) }
    }

    /// The rules in force, read again if a file has changed.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        if self.path.is_some() {
            self.look(Instant::now());
        }
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether connections are TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.rules().tls.is_some()
    }

    /// Reads the files again, whether they have changed or not.
    ///
    /// # Errors
    ///
    /// As [`Self::from_file`], and where less would be asked than before; then the rules stay.
    pub fn reload(&self) -> Result<(), WebError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut looked = self.looked();
        self.replace(path, &mut looked)
    }

    fn look(&self, now: Instant) {
        let Some(path) = &self.path else { return };
        // One at a time; who comes meanwhile takes the rules as they are.
        let Ok(mut looked) = self.looked.try_lock() else { return };
        if now.saturating_duration_since(looked.at) < LOOK_EVERY {
            return;
        }
        looked.at = now;
        let files = self.files();
        if stamps(&files) == looked.stamps {
            return;
        }
        match self.replace(path, &mut looked) {
            Ok(()) => log::info!("{} was read again", path.display()),
            Err(error) => log::warn!("the web configuration stays as it was: {error}"),
        }
    }

    fn replace(&self, path: &Path, looked: &mut Looked) -> Result<(), WebError> {
        // Taken before reading: what changes meanwhile is read once more.
        looked.stamps = stamps(&self.files());
        let mut rules = read(path)?;
        let before = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let opens = before.tls.is_some() && rules.tls.is_none()
            || before.are_strict() && !rules.are_strict();
        if opens {
            return Err(WebError::Opens { path: path.to_owned() });
        }
        rules.passwords = rules.passwords.in_place_of(&before.passwords);
        if rules.files != before.files {
            looked.stamps = stamps(&rules.files);
        }
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).files.clone()
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<Rules, WebError> {
    let text = read_text(path)?;
    let config = WebConfig::parse(&text)
        .map_err(|message| WebError::File { path: path.to_owned(), message })?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let config = config.beside(folder);
    let mut files = vec![path.to_owned()];
    let mut rules = Rules::default();
    if let Some(tls) = &config.tls_server_config {
        files.extend(tls.files().cloned());
        rules.tls = Some(tls::server_config(tls)?);
        rules.certificates = tls.client_auth_type;
    }
    rules.passwords = Passwords::new(config.basic_auth_users)
        .map_err(|message| WebError::File { path: path.to_owned(), message })?;
    rules.headers = config
        .http_server_config
        .headers
        .to_headers()
        .map_err(|message| WebError::File { path: path.to_owned(), message })?;
    rules.files = files;
    Ok(rules)
}

fn read_text(path: &Path) -> Result<String, WebError> {
    use std::io::Read as _;
    let refused = |cause| WebError::Read { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(refused)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(refused)?;
    if text.len() as u64 > MAX_BYTES {
        let cause = std::io::Error::other(format!("it is longer than {MAX_BYTES} bytes"));
        return Err(refused(cause));
    }
    Ok(text)
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
    };
    files.iter().map(stamp).collect()
}
