//! Prometheus or Alertmanager on a free port of loopback, with its files in a temporary folder.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// No test waits longer, for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain waited for: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// The folder deploy/ of the repository.
pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("deploy")
}

/// The text of a file in it.
pub(crate) fn shipped(file: &str) -> String {
    fs::read_to_string(deploy().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Alertmanager with the shipped configuration.
pub(crate) fn alertmanager() -> Server {
    let config = shipped("prometheus/alertmanager.example.yml");
    Server::start("prometheus-alertmanager", &[("alertmanager.yml", &config)], |folder| {
        vec![
            format!("--config.file={}/alertmanager.yml", folder.display()),
            format!("--storage.path={}/data", folder.display()),
            // No cluster: nothing listens but the API.
            "--cluster.listen-address=".into(),
        ]
    })
}

/// The status and body of what a server answers; `None` where it does not.
pub(crate) fn ask(address: SocketAddr, route: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    // HTTP/1.0, so that the answer is not in chunks.
    write!(stream, "GET {route} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A program that serves HTTP; it is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts `program` with its files, and waits until it is ready.
    pub(crate) fn start(
        program: &str,
        files: &[(&str, &str)],
        arguments: impl Fn(&Path) -> Vec<String>,
    ) -> Self {
        // Somebody else may take the port in between.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a folder");
            for (name, text) in files {
                fs::write(folder.path().join(name), text).expect("a file");
            }
            let address = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .expect("a free port");
            let log = File::create(folder.path().join("log")).expect("a file");
            let child = Command::new(program)
                .args(arguments(folder.path()))
                .arg(format!("--web.listen-address={address}"))
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file"))
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}; cargo xtask test installs it"));
            let mut server = Self { address, child, folder };
            let ready = until(&format!("{program} to start"), || {
                if server.child.try_wait().expect("a child").is_some() {
                    return Some(false);
                }
                ask(server.address, "/-/ready")
                    .is_some_and(|(status, _)| status == 200)
                    .then_some(true)
            });
            if ready {
                return server;
            }
            eprintln!("{program} ended: {}", server.log());
        }
        panic!("{program} does not start");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What it answers.
    pub(crate) fn get(&self, route: &str) -> Value {
        let (status, body) = ask(self.address, route)
            .unwrap_or_else(|| panic!("no answer to {route}: {}", self.log()));
        let value = serde_json::from_str(&body);
        value.unwrap_or_else(|error| panic!("{route}: {status}: {error}: {body}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the log of {}:\n{}", self.address, self.log());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
