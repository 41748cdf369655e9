//! A process of the scene: it listens, or it connects and closes first at a rate.
//!
//! It is this program, called again, under the name that the pictures show.

use std::{
    ffi::CString,
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How soon a client tries again that found no port: sooner than ports come back, so that there
/// is none left at any time.
const AGAIN: Duration = Duration::from_millis(20);
/// Room for what is sent: nothing is.
const BYTES: usize = 16;

/// What a process of the scene does.
#[derive(Debug, clap::Args)]
pub struct PartArgs {
    /// Its name
    name: String,
    /// Where it listens, or connects to
    at: SocketAddr,
    /// Listen, and close after the client
    #[arg(long)]
    listen: bool,
    /// Connections that stay open
    #[arg(long, default_value_t = 0)]
    live: u16,
    /// Connections a second that are closed at once
    #[arg(long, default_value_t = 0)]
    rate: u32,
}

/// Plays the part until it is ended.
pub fn play(args: &PartArgs) -> Result<()> {
    let name = CString::new(&*args.name).context("no name of a process")?;
    rustix::thread::set_name(&name).context("cannot take the name")?;
    if args.listen { serve(args.at) } else { visit(args) }
}

fn serve(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    for client in listener.incoming() {
        let mut client = client.context("cannot accept")?;
        thread::spawn(move || {
            // However the client ends: this end is closed after it.
            while client.read(&mut [0; BYTES]).is_ok_and(|bytes| bytes > 0) {}
        });
    }
    Ok(())
}

fn visit(args: &PartArgs) -> Result<()> {
    let mut open = Vec::new();
    while open.len() < usize::from(args.live) {
        open.extend(connect(args.at)?);
    }
    if args.rate == 0 {
        loop {
            thread::park();
        }
    }
    let pause = Duration::from_secs(1) / args.rate;
    let mut next = Instant::now();
    loop {
        match connect(args.at)? {
            Some(connection) => {
                drop(connection);
                next += pause;
            }
            None => next = Instant::now() + AGAIN,
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A connection; `None`, after a moment, where there is no port or nobody listens yet.
fn connect(to: SocketAddr) -> Result<Option<TcpStream>> {
    match TcpStream::connect(to) {
        Ok(connection) => Ok(Some(connection)),
        Err(error) => match error.kind() {
            ErrorKind::AddrNotAvailable => Ok(None),
            ErrorKind::ConnectionRefused => {
                thread::sleep(AGAIN);
                Ok(None)
            }
            _ => Err(error).with_context(|| format!("cannot connect to {to}")),
        },
    }
}
