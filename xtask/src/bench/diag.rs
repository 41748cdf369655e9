//! The least that a program can do to count sockets by way of netlink: it asks for a dump of
//! `inet_diag` and counts the messages, without looking into one.
//!
//! Only IPv4, which is what the load is made of: a tool that wants both families asks twice.

use std::io::{self, Write as _};

use anyhow::Context as _;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// What the kernel puts into one datagram at most (`netlink_recvmsg()`, net/netlink/af_netlink.c).
const BUFFER: usize = 32 << 10;

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (include/uapi/linux).
#[repr(C)]
#[derive(Default)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    /// `struct inet_diag_sockid`: all zero.
    id: [u32; 12],
}

const _: () = assert!(size_of::<Request>() == 16 + 56);

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const DUMP_REQUEST: u16 = 0x301;
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Counts them and says how many they are, which is all that the hidden task does.
pub fn print_count() -> anyhow::Result<()> {
    let sockets = count_sockets().context("cannot dump sockets by netlink (sock_diag(7))")?;
    writeln!(io::stdout(), "{sockets}").context("cannot write to standard output")
}

/// Counts the TCP sockets over IPv4 of the calling thread's network namespace.
pub fn count_sockets() -> io::Result<u64> {
    let flags = SocketFlags::CLOEXEC;
    let netlink =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    let request = Request {
        length: u32::try_from(size_of::<Request>()).map_err(io::Error::other)?,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: DUMP_REQUEST,
        family: u8::try_from(AddressFamily::INET.as_raw()).map_err(io::Error::other)?,
        protocol: 6,
        states: u32::MAX,
        ..Request::default()
    };
    // SAFETY: `repr(C)` with integer members only and, by its size, without padding.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const request).cast::<u8>(), size_of::<Request>())
    };
    send(&netlink, bytes, SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut sockets = 0;
    loop {
        let (length, _) = recv(&netlink, &mut *buffer, RecvFlags::empty())?;
        if !count_messages(&buffer[..length], &mut sockets)? {
            return Ok(sockets);
        }
    }
}

/// Adds the messages of a datagram; false after the last one of the dump.
///
/// Without the means of slices and iterators: this is a yardstick, and must not be slow where this
/// program is built without optimisation.
fn count_messages(datagram: &[u8], sockets: &mut u64) -> io::Result<bool> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let end = datagram.len();
    let mut at = 0;
    while at < end {
        if end - at < HEADER {
            return Err(malformed());
        }
        let length = [datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]];
        match u16::from_ne_bytes([datagram[at + 4], datagram[at + 5]]) {
            DONE => return Ok(false),
            ERROR => {
                let errno = datagram.get(at + HEADER..at + HEADER + 4).ok_or_else(malformed)?;
                let errno = i32::from_ne_bytes(errno.try_into().map_err(|_| malformed())?);
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            _ => *sockets += 1,
        }
        let length = u32::from_ne_bytes(length) as usize;
        if length < HEADER {
            return Err(malformed());
        }
        at += (length + 3) & !3;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).expect("short");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_are_counted_to_the_end_of_the_dump() {
        let mut sockets = 0;
        let two = [message(20, &[1; 72]), message(20, &[1; 73])].concat();
        assert!(count_messages(&two, &mut sockets).expect("sound"));
        let last = [message(20, &[]), message(DONE, &[0; 4]), message(20, &[])].concat();
        assert!(!count_messages(&last, &mut sockets).expect("sound"));
        assert_eq!(sockets, 3);
    }

    #[test]
    fn errors_and_nonsense_are_errors() {
        let refused = message(ERROR, &(-1i32).to_ne_bytes());
        let error = count_messages(&refused, &mut 0).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(1));
        assert!(count_messages(&[0; 15], &mut 0).is_err());
        assert!(count_messages(&[0; 16], &mut 0).is_err());
        assert!(count_messages(&message(ERROR, &[]), &mut 0).is_err());
    }

    #[test]
    fn a_listener_is_counted() {
        let _listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        assert!(count_sockets().expect("a dump") > 0);
    }
}
