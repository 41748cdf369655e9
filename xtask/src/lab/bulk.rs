//! What a process of the lab does many times over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::protocol::ChurnSpec;
use super::recipe::ConnectBy;
use super::sockets;
use super::uring::Ring;

/// The first port of clients that choose theirs: above those of the lab's servers.
const FIRST_SOURCE_PORT: u16 = 2000;

/// One connect that must find no local port.
pub(super) fn fail_to_connect(
    to: SocketAddr,
    by: ConnectBy,
    ring: &mut Option<Ring>,
) -> io::Result<()> {
    match sockets::connect(to, by, ring)? {
        Err(failure) if failure.errno == Errno::ADDRNOTAVAIL.raw_os_error() => Ok(()),
        Err(failure) => Err(io::Error::from_raw_os_error(failure.errno)),
        Ok(_) => Err(io::Error::other("connected, where no port was expected to be free")),
    }
}

/// Load A of the bench: connect, accept, close by the client, close by the server, over all
/// destinations in turn. Returns how long the connections took, the listener's making apart.
///
/// On loopback the handshake is over when `connect()` returns, so one thread can do both ends. The
/// client's FIN need not be there yet, a busy kernel leaves it to ksoftirqd: the server waits for
/// it, or both would close at once.
pub(super) fn churn(spec: &ChurnSpec) -> io::Result<Duration> {
    let Some(first) = spec.destinations.first() else {
        return Err(io::Error::other("a load needs a destination"));
    };
    let (family, any) = match first {
        IpAddr::V4(_) => (AddressFamily::INET, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let listener = sockets::listen(SocketAddr::new(any, spec.port), false)?;
    let mut destinations =
        spec.destinations.iter().map(|ip| SocketAddr::new(*ip, spec.port)).cycle();
    let begun = Instant::now();
    for number in 0..spec.connections {
        let Some(to) = destinations.next() else { break };
        if let Some(pace) = spec.pace.filter(|pace| *pace > 0) {
            // A load has a rate: this is it, not a wait for something.
            let due = begun + Duration::from_micros(number * 1_000_000 / u64::from(pace));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        // No options here: they would be part of the cost that is measured.
        let flags = SocketFlags::CLOEXEC;
        let client =
            rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        rustix::net::connect(&client, &to)?;
        let server = rustix::net::accept_with(&listener, flags)?;
        drop(client);
        sockets::await_end(server.as_fd())?;
        drop(server);
    }
    Ok(begun.elapsed())
}

/// Keeps this process on the first CPU that it may use.
///
/// Two ends on two CPUs overtake each other: an ACK that comes after the FIN behind it is answered
/// by the time-wait socket, the closed end resets that answer, and the reset ends `TIME_WAIT`
/// (RFC 1337). That is one socket in a hundred thousand, and loads are exact.
fn stay_on_one_cpu() -> io::Result<()> {
    let usual = sched_getaffinity(None)?;
    let mut first = CpuSet::new();
    if let Some(cpu) = (0..CpuSet::MAX_CPU).find(|cpu| usual.is_set(*cpu)) {
        first.set(cpu);
        sched_setaffinity(None, &first)?;
    }
    Ok(())
}

/// The server of a load whose server closes first.
pub(super) fn close_many(listener: BorrowedFd<'_>, connections: u64) -> io::Result<()> {
    stay_on_one_cpu()?;
    for _ in 0..connections {
        drop(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?);
    }
    Ok(())
}

/// The client of a load whose server closes first: it goes on when the server's FIN is there.
///
/// It chooses its ports itself. None is taken on its side, but where the server still waits a
/// second connection from the same port would take that place.
pub(super) fn connect_many(spec: &ChurnSpec) -> io::Result<()> {
    stay_on_one_cpu()?;
    let times = usize::try_from(spec.connections).map_err(io::Error::other)?;
    let sources = (FIRST_SOURCE_PORT..=u16::MAX)
        .flat_map(|port| spec.sources.iter().map(move |ip| (ip, port)));
    let ways = spec.destinations.iter().cycle().zip(sources).take(times);
    let mut made = 0;
    for (to, (from, port)) in ways {
        let from = SocketAddr::new(*from, port);
        let socket = sockets::connect_from(from, SocketAddr::new(*to, spec.port))?;
        sockets::await_end(socket.as_fd())?;
        made += 1;
    }
    if made < times {
        return Err(io::Error::other(format!("the sources have only {made} ports")));
    }
    Ok(())
}
