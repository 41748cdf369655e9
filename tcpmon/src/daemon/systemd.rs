//! What systemd is told and what it hands over: sd_notify(3), the watchdog, sockets.

use super::{heart::Heart, reader::ReaderControl, run::DaemonError};
use crate::daemon::pipeline::Health;
use rustix::net::{AddressFamily, SocketType, sockopt};
use sd_notify::NotifyState;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;

/// Tells systemd, if it waits to be told (`Type=notify`).
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("cannot tell systemd: {error}");
    }
}

/// Says that the configuration is being read again.
pub(super) fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// How long a part that is rung up at each look may take.
pub(super) fn patience() -> Duration {
    // One look more than the one after which it was rung up.
    look_every().unwrap_or_default() * 3 / 2
}

fn look_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
}

/// Feeds systemd's watchdog while the pipeline moves; returns at once where there is none.
pub(super) async fn watchdog(mut heart: Heart, reader: ReaderControl, health: Health) {
    let Some(every) = look_every().filter(|every| !every.is_zero()) else { return };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained = None;
    loop {
        ticks.tick().await;
        let moves = if health.is_good() {
            heart.look(Instant::now())
        } else {
            Err("a thread that has ended")
        };
        match moves {
            Ok(()) => notify(&[NotifyState::Watchdog]),
            Err(part) if complained != Some(part) => {
                log::error!("{part} stands still: the watchdog is not fed");
                notify(&[NotifyState::Status(&format!("{part} stands still"))]);
                complained = Some(part);
            }
            Err(_) => {}
        }
        reader.ring_up();
    }
}

/// The listening TCP sockets that systemd hands over (`tcpmon.socket`); none where it does not.
///
/// To be called once, before anything else opens a file.
pub(super) fn sockets() -> Result<Vec<(SocketAddr, TcpListener)>, DaemonError> {
    let refused = |cause| DaemonError::Activation { cause };
    let mut found = Vec::new();
    for number in sd_notify::listen_fds().map_err(refused)? {
        // SAFETY: systemd says by LISTEN_PID and LISTEN_FDS that it has opened this descriptor for
        // this process, and nothing else here knows of it.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        found.push(listening(socket).map_err(refused)?);
    }
    Ok(found)
}

fn listening(socket: OwnedFd) -> io::Result<(SocketAddr, TcpListener)> {
    let family = sockopt::socket_domain(&socket)?;
    let fits = matches!(family, AddressFamily::INET | AddressFamily::INET6)
        && sockopt::socket_type(&socket)? == SocketType::STREAM
        && sockopt::socket_acceptconn(&socket)?;
    if !fits {
        return Err(io::Error::other("one of them is not a listening TCP socket"));
    }
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, listener))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpStream, UdpSocket};

    #[test]
    fn only_listening_tcp_sockets_are_taken() {
        let good = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = good.local_addr().expect("an address");
        let connected = TcpStream::connect(address).expect("a connection");
        assert_eq!(listening(good.into()).expect("it listens").0, address);
        assert!(listening(connected.into()).is_err());
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert!(listening(datagrams.into()).is_err());
        let folder = tempfile::tempdir().expect("a folder");
        let unix =
            std::os::unix::net::UnixListener::bind(folder.path().join("s")).expect("a socket");
        assert!(listening(unix.into()).is_err());
    }
}
