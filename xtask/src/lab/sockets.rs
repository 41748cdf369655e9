//! The system calls on sockets that a process of the lab makes, each bounded in time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use super::protocol::SocketId;
use super::recipe::ConnectBy;
use super::uring::Ring;

/// How long one system call may take.
const LIMIT: Duration = Duration::from_secs(5);
/// `listen()`'s queue: long enough for any recipe.
const BACKLOG: i32 = 1024;

/// The sockets of a process, by number. Numbers are never used again.
#[derive(Default)]
pub(super) struct Sockets(Vec<Option<OwnedFd>>);

impl Sockets {
    pub(super) fn add(&mut self, socket: OwnedFd) -> SocketId {
        self.0.push(Some(socket));
        self.0.len() - 1
    }

    pub(super) fn get(&self, id: SocketId) -> io::Result<BorrowedFd<'_>> {
        self.0.get(id).and_then(Option::as_ref).map(AsFd::as_fd).ok_or_else(|| unknown(id))
    }

    pub(super) fn take(&mut self, id: SocketId) -> io::Result<OwnedFd> {
        self.0.get_mut(id).and_then(Option::take).ok_or_else(|| unknown(id))
    }
}

fn unknown(id: SocketId) -> io::Error {
    io::Error::other(format!("there is no socket {id}"))
}

/// A `connect()` that failed: why, and the local port it had.
pub(super) struct Failure {
    pub(super) errno: i32,
    pub(super) port: u16,
}

/// A TCP socket of the family of `address`, whose calls end after [`LIMIT`].
pub(super) fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    bound(&socket)?;
    Ok(socket)
}

fn bound(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_timeout(socket, Timeout::Recv, Some(LIMIT))?;
    sockopt::set_socket_timeout(socket, Timeout::Send, Some(LIMIT))?;
    Ok(())
}

pub(super) fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    // As servers do: time-wait sockets of an earlier one may hold the port.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, reuse_port)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The outcome of a `connect()` is a result inside the result: the outer one fails where the lab
/// itself does.
pub(super) fn connect(
    to: SocketAddr,
    by: ConnectBy,
    ring: &mut Option<Ring>,
) -> io::Result<Result<OwnedFd, Failure>> {
    let socket = tcp_socket(to)?;
    let outcome = match by {
        ConnectBy::Blocking => rustix::net::connect(&socket, &to).map_err(io::Error::from),
        ConnectBy::Nonblocking => {
            set_nonblocking(socket.as_fd(), true)?;
            let outcome = match rustix::net::connect(&socket, &to) {
                Err(Errno::INPROGRESS) => finish_connect(socket.as_fd()),
                other => other.map_err(io::Error::from),
            };
            set_nonblocking(socket.as_fd(), false)?;
            outcome
        }
        ConnectBy::IoUring => {
            let ring = match ring {
                Some(ring) => ring,
                None => ring.insert(Ring::new()?),
            };
            ring.connect(socket.as_fd(), to)?
        }
    };
    match outcome {
        Ok(()) => Ok(Ok(socket)),
        Err(error) => {
            let errno = error.raw_os_error().ok_or(error)?;
            Ok(Err(Failure { errno, port: local_address(socket.as_fd())?.port() }))
        }
    }
}

/// Connects from `from`.
pub(super) fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(to)?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}

/// Sends a SYN from `from` and does not wait for the answer.
pub(super) fn begin_connect(from: SocketAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(to)?;
    rustix::net::bind(&socket, &from)?;
    set_nonblocking(socket.as_fd(), true)?;
    match rustix::net::connect(&socket, &to) {
        Err(Errno::INPROGRESS) => Ok(socket),
        Ok(()) => Err(io::Error::other("connected at once, where the peer's SYN was held back")),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the outcome of a `connect()` that is under way.
pub(super) fn finish_connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    wait_for(socket, PollFlags::OUT)?;
    sockopt::socket_error(socket)??;
    set_nonblocking(socket, false)
}

/// Waits until a `connect()` that is under way is refused.
pub(super) fn await_refusal(socket: BorrowedFd<'_>) -> io::Result<()> {
    wait_for(socket, PollFlags::OUT)?;
    match sockopt::socket_error(socket)? {
        Err(Errno::CONNREFUSED) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(io::Error::other("connected, where nobody was to listen")),
    }
}

/// The next connection of a listener; `None` if none is there and `wait` is false.
pub(super) fn accept(
    listener: BorrowedFd<'_>,
    wait: bool,
) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
    if !wait {
        let mut ready = [PollFd::new(&listener, PollFlags::IN)];
        if rustix::event::poll(&mut ready, Some(&Timespec::default()))? == 0 {
            return Ok(None);
        }
    }
    let (socket, from) = rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC)?;
    bound(&socket)?;
    let from = from.ok_or_else(|| io::Error::other("accept() told no address"))?;
    Ok(Some((socket, SocketAddr::try_from(from)?)))
}

pub(super) fn send(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let data = vec![b'x'; bytes];
    let mut left = &data[..];
    while !left.is_empty() {
        left = &left[rustix::net::send(socket, left, SendFlags::NOSIGNAL)?..];
    }
    Ok(())
}

pub(super) fn receive(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let mut data = vec![0; bytes];
    let mut got = 0;
    while got < bytes {
        match rustix::net::recv(socket, &mut data[got..], RecvFlags::empty())?.0 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => got += more,
        }
    }
    Ok(())
}

/// Waits for the peer's FIN.
pub(super) fn await_end(socket: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::net::recv(socket, &mut [0; 1][..], RecvFlags::empty())?.0 {
        0 => Ok(()),
        _ => Err(io::Error::other("data came where the end was expected")),
    }
}

/// Sends the ACK that is due, which else the timer of delayed ACKs would send some 40 ms later.
///
/// In that timer's interrupt, which may have come in the middle of anything, the kernel runs BPF
/// programs less surely (docs/metrics.md), and what the peer does for the ACK is what recipes are
/// about.
pub(super) fn acknowledge(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_tcp_quickack(socket, true)?)
}

/// Waits for the peer's reset.
pub(super) fn await_reset(socket: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::net::recv(socket, &mut [0; 1][..], RecvFlags::empty()) {
        Err(Errno::CONNRESET) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(io::Error::other("data or an end came where a reset was expected")),
    }
}

/// Closes with a reset: `SO_LINGER` with no time (`tcp(7)`, `__tcp_close()`).
pub(super) fn abort(socket: OwnedFd) -> io::Result<()> {
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    drop(socket);
    Ok(())
}

pub(super) fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?)
}

fn wait_for(socket: BorrowedFd<'_>, event: PollFlags) -> io::Result<()> {
    let limit = Timespec::try_from(LIMIT).map_err(io::Error::other)?;
    let mut ready = [PollFd::new(&socket, event)];
    match rustix::event::poll(&mut ready, Some(&limit))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn set_nonblocking(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(socket)?;
    flags.set(OFlags::NONBLOCK, on);
    Ok(rustix::fs::fcntl_setfl(socket, flags)?)
}
