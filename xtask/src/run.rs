//! `cargo xtask run`: from a clone to a running daemon.
//!
//! This process becomes the daemon (or the sudo that runs it) by exec, so that
//! Ctrl-C, signals and the exit code need no forwarding. What to type next is
//! told by a second process of this program, which watches for the daemon to
//! be ready and then ends.

use std::{
    env,
    io::{self, ErrorKind, IsTerminal as _, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, build, short},
    process::{find_program, is_root},
};

/// Where the daemon listens when nothing else is said.
const LISTEN_ADDRESS: &str = "127.0.0.1:10066";
const SOCKET: &str = "/run/tcpmon/tcpmon.sock";

/// How often the daemon is asked whether it is ready, how long it may take to
/// answer, and how long it may take until it is.
const POLL: Duration = Duration::from_millis(50);
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
const READY_LIMIT: Duration = Duration::from_mins(1);

/// Arguments of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arguments of `tcpmon daemon`
    #[arg(last = true)]
    daemon: Vec<String>,
}

/// What the second process has to know.
#[derive(Debug, clap::Args)]
pub struct AnnounceArgs {
    pid: u32,
    binary: PathBuf,
    #[arg(last = true)]
    daemon: Vec<String>,
}

/// Builds, then becomes the daemon. Returns only if that fails.
pub fn main(args: &Args) -> Result<()> {
    let binary = build(&build::Args::default())?;
    let mut command = if is_root() {
        Command::new(&binary)
    } else if find_program("sudo").is_some() {
        let mut command = Command::new("sudo");
        command.arg("--").arg(&binary);
        command
    } else {
        bail!(
            "the daemon needs root and there is no sudo; as root: {} daemon {}",
            binary.display(),
            args.daemon.join(" ")
        );
    };
    command.arg("daemon").args(&args.daemon);
    // If another daemon answers there already, the new one will say so itself.
    if Endpoint::of(&args.daemon).ask() != Answer::Ready {
        announce_later(&binary, &args.daemon)?;
    }
    eprintln!("xtask: {} daemon {}", short(&binary).display(), args.daemon.join(" "));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

/// Starts [`announce`] in a process that is nobody's child: the daemon, which
/// takes this process's place, would not know to wait for it.
fn announce_later(binary: &Path, daemon: &[String]) -> Result<()> {
    let own = env::current_exe().context("own path")?;
    Command::new("sh")
        .args(["-c", "\"$0\" announce \"$@\" &"])
        .arg(own)
        .arg(std::process::id().to_string())
        .arg(binary)
        .arg("--")
        .args(daemon)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start sh")?;
    Ok(())
}

/// Waits until the daemon is ready and tells what to type next; says nothing
/// if the daemon ends before.
pub fn announce(args: &AnnounceArgs) -> Result<()> {
    let endpoint = Endpoint::of(&args.daemon);
    let process = PathBuf::from(format!("/proc/{}", args.pid));
    let deadline = Instant::now() + READY_LIMIT;
    while process.exists() && Instant::now() < deadline {
        if endpoint.ask() == Answer::Ready {
            let needs_sudo = !is_root() && !endpoint.socket_admits();
            let advice = endpoint.advice(&short(&args.binary), needs_sudo);
            eprint!(
                "{}",
                if io::stderr().is_terminal() { on_any_terminal(&advice) } else { advice }
            );
            break;
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Lines that begin at the left edge of a raw terminal too: sudo makes it raw
/// while it passes on what the daemon writes to a terminal of its own
/// (`use_pty`, which Debian sets).
fn on_any_terminal(text: &str) -> String {
    text.replace('\n', "\r\n")
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Ready,
    NotYet,
}

/// Where the daemon can be asked.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    /// As given, for people; empty host means every address.
    address: String,
    socket: PathBuf,
    /// Whether the socket is not where clients look for it by themselves.
    is_other_socket: bool,
}

impl Endpoint {
    /// Reads it from the daemon's arguments.
    fn of(daemon: &[String]) -> Self {
        let value = |flag: &str| {
            daemon.iter().enumerate().find_map(|(index, word)| match word.strip_prefix(flag)? {
                "" => daemon.get(index + 1).cloned(),
                rest => rest.strip_prefix('=').map(str::to_owned),
            })
        };
        let socket = value("--socket");
        Self {
            address: value("--web.listen-address").unwrap_or_else(|| LISTEN_ADDRESS.into()),
            is_other_socket: socket.as_deref().is_some_and(|socket| socket != SOCKET),
            socket: socket.unwrap_or_else(|| SOCKET.into()).into(),
        }
    }

    /// The address to connect to: a wildcard means this machine's own.
    fn reachable(&self) -> String {
        match self.address.rsplit_once(':') {
            Some(("" | "0.0.0.0" | "[::]", port)) => format!("localhost:{port}"),
            _ => self.address.clone(),
        }
    }

    /// Asks whether the daemon is ready, over TCP, or over the Unix socket
    /// where TCP is encrypted or its port was left to the kernel.
    fn ask(&self) -> Answer {
        let addresses: Vec<SocketAddr> =
            self.reachable().to_socket_addrs().map(Iterator::collect).unwrap_or_default();
        let by_tcp = addresses.iter().filter(|address| address.port() != 0).any(|address| {
            TcpStream::connect_timeout(address, ANSWER_LIMIT)
                .and_then(|stream| stream.set_read_timeout(Some(ANSWER_LIMIT)).map(|()| stream))
                .is_ok_and(is_ready)
        });
        let by_socket = || {
            UnixStream::connect(&self.socket)
                .and_then(|stream| stream.set_read_timeout(Some(ANSWER_LIMIT)).map(|()| stream))
                .is_ok_and(is_ready)
        };
        if by_tcp || by_socket() { Answer::Ready } else { Answer::NotYet }
    }

    /// Whether this user may stream from the daemon.
    fn socket_admits(&self) -> bool {
        UnixStream::connect(&self.socket)
            .map_or_else(|error| error.kind() != ErrorKind::PermissionDenied, |_| true)
    }

    /// What to type next.
    fn advice(&self, binary: &Path, needs_sudo: bool) -> String {
        let binary = binary.display();
        let sudo = if needs_sudo { "sudo " } else { "" };
        let socket = if self.is_other_socket {
            format!(" --socket {}", self.socket.display())
        } else {
            String::new()
        };
        let metrics = match self.reachable() {
            address if address.ends_with(":0") => String::new(),
            address => format!("  curl -s http://{address}/metrics\n"),
        };
        format!(
            "xtask: tcpmon is ready; Ctrl-C ends it. In a second terminal:\n  \
             {sudo}{binary} tail{socket}\n{metrics}"
        )
    }
}

/// Whether the daemon at the other end says that it is ready.
fn is_ready(mut stream: impl Read + Write) -> bool {
    const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut head = [0; 12];
    stream.write_all(REQUEST).and_then(|()| stream.read_exact(&mut head)).is_ok()
        && head.starts_with(b"HTTP/1.")
        && head.ends_with(b" 200")
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, net::TcpListener};

    use super::*;

    fn endpoint(words: &[&str]) -> Endpoint {
        Endpoint::of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_daemons_arguments_tell_where_it_listens() {
        for (words, address, socket, is_other_socket) in [
            (&[][..], "127.0.0.1:10066", SOCKET, false),
            (&["--web.listen-address", "[::1]:9"], "[::1]:9", SOCKET, false),
            (&["--web.listen-address=:9", "--socket=/tmp/s"], "localhost:9", "/tmp/s", true),
            (&["--web.listen-address=0.0.0.0:9"], "localhost:9", SOCKET, false),
            (&["--socket", SOCKET, "--top", "3"], "127.0.0.1:10066", SOCKET, false),
            (&["--web.listen-address"], "127.0.0.1:10066", SOCKET, false),
            (&["--socket-mode=1"], "127.0.0.1:10066", SOCKET, false),
        ] {
            let endpoint = endpoint(words);
            assert_eq!(endpoint.reachable(), address, "{words:?}");
            assert_eq!(endpoint.socket, Path::new(socket), "{words:?}");
            assert_eq!(endpoint.is_other_socket, is_other_socket, "{words:?}");
        }
    }

    #[test]
    fn advice_can_be_typed_as_it_stands() {
        let binary = Path::new("target/release/tcpmon");
        let advice = endpoint(&[]).advice(binary, true);
        assert!(advice.contains("\n  sudo target/release/tcpmon tail\n"), "{advice}");
        assert!(advice.contains("\n  curl -s http://127.0.0.1:10066/metrics\n"), "{advice}");
        let advice = endpoint(&["--socket=/tmp/s", "--web.listen-address=[::]:0"]);
        let advice = advice.advice(binary, false);
        assert!(advice.ends_with("\n  target/release/tcpmon tail --socket /tmp/s\n"), "{advice}");
    }

    #[test]
    fn each_line_of_the_advice_begins_at_the_left_edge_of_a_raw_terminal() {
        let advice = endpoint(&[]).advice(Path::new("tcpmon"), true);
        let raw = on_any_terminal(&advice);
        assert!(raw.ends_with("\r\n") && raw.matches('\n').count() == 3, "{raw:?}");
        assert_eq!(
            raw.split_terminator("\r\n").collect::<Vec<_>>(),
            advice.lines().collect::<Vec<_>>()
        );
    }

    #[test]
    fn only_a_200_is_ready() {
        struct Peer(Cursor<&'static [u8]>);
        impl Read for Peer {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }
        }
        impl Write for Peer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (said, expected) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], true),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            (b"HTTP/1.1 400 Bad Request", false),
            (b"HTTP/1.1", false),
            (b"\x15\x03\x03\x00\x02\x02\x46........", false),
            (b"", false),
        ] {
            assert_eq!(is_ready(Peer(Cursor::new(said))), expected, "{said:?}");
        }
    }

    #[test]
    fn nobody_listening_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let endpoint =
            endpoint(&[&format!("--web.listen-address={address}"), "--socket=/nonexistent/s"]);
        assert_eq!(endpoint.ask(), Answer::NotYet);
    }
}
