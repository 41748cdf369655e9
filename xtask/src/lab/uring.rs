//! `connect()` by `io_uring`: the way that tools which watch system calls do not see.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, types};
use rustix::net::AddressFamily;

use super::interface::sockaddr_in;

/// One entry is enough: each connect is awaited.
const ENTRIES: u32 = 1;

/// A submission queue of a process of the lab.
pub(super) struct Ring(IoUring);

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        IoUring::new(ENTRIES).map(Self).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "io_uring is not to be had here ({error}): see sysctl kernel.io_uring_disabled"
                ),
            )
        })
    }

    /// Connects; the inner result is `connect()`'s, the outer one the ring's.
    pub(super) fn connect(
        &mut self,
        socket: BorrowedFd<'_>,
        to: SocketAddr,
    ) -> io::Result<io::Result<()>> {
        let outcome = match to {
            SocketAddr::V4(to) => self.submit(socket, &sockaddr_in(*to.ip(), to.port()))?,
            SocketAddr::V6(to) => {
                let address = libc::sockaddr_in6 {
                    sin6_family: AddressFamily::INET6.as_raw(),
                    sin6_port: to.port().to_be(),
                    sin6_flowinfo: to.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                    sin6_scope_id: to.scope_id(),
                };
                self.submit(socket, &address)?
            }
        };
        Ok(if outcome < 0 { Err(io::Error::from_raw_os_error(-outcome)) } else { Ok(()) })
    }

    /// Submits one connect to an address of the shape `A` and awaits its completion.
    fn submit<A>(&mut self, socket: BorrowedFd<'_>, address: &A) -> io::Result<i32> {
        let length = libc::socklen_t::try_from(size_of::<A>()).map_err(io::Error::other)?;
        let entry = opcode::Connect::new(
            types::Fd(socket.as_raw_fd()),
            std::ptr::from_ref(address).cast(),
            length,
        )
        .build();
        // SAFETY: the address and the socket outlive the entry: its completion is awaited below,
        // before this function returns.
        unsafe { self.0.submission().push(&entry) }.map_err(io::Error::other)?;
        loop {
            match self.0.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(completion) = self.0.completion().next() {
                return Ok(completion.result());
            }
        }
    }
}
