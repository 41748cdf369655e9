//! Ending a socket from outside, as `ss -K` does: one request of `sock_diag(7)`.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `SOCK_DESTROY` (`include/uapi/linux/sock_diag.h`).
const SOCK_DESTROY: u16 = 21;
/// `NLM_F_REQUEST | NLM_F_ACK` (`include/uapi/linux/netlink.h`).
const REQUEST_ACK: u16 = 0x01 | 0x04;
/// `NLMSG_ERROR` (the same file).
const NLMSG_ERROR: u16 = 2;
/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2` (`include/uapi/linux/inet_diag.h`).
const REQUEST: usize = 56;
/// All states: the kernel looks by addresses.
const ANY_STATE: u32 = u32::MAX;
/// `INET_DIAG_NOCOOKIE`: whatever its cookie.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Destroys the TCP socket with these ends in the namespace of the calling thread.
///
/// `EOPNOTSUPP`: this kernel destroys no such socket (it is built without `INET_DIAG_DESTROY`, or
/// is of a time when `tcp_abort()` knew no time-wait sockets); `ENOENT`: there is none, or this
/// kernel has no module `tcp_diag`.
pub(super) fn destroy(local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(netlink::SOCK_DIAG),
    )?;
    rustix::net::send(&socket, &message(local, remote), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (_, length) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    match outcome(answer.get(..length).unwrap_or_default()) {
        Some(0) => Ok(()),
        Some(error) => Err(Errno::from_raw_os_error(-error).into()),
        None => Err(io::Error::other("sock_diag gave an answer that is none")),
    }
}

/// The request.
fn message(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let length = u32::try_from(HEADER + REQUEST).unwrap_or_default();
    let mut text = Vec::with_capacity(HEADER + REQUEST);
    text.extend(length.to_ne_bytes());
    text.extend(SOCK_DESTROY.to_ne_bytes());
    text.extend(REQUEST_ACK.to_ne_bytes());
    text.extend([0; 8]);
    let family = family.as_raw().to_ne_bytes();
    let protocol = libc::IPPROTO_TCP.to_ne_bytes();
    // Both are below 256; in `struct inet_diag_req_v2` each is a byte, then come two of nothing.
    let byte = |bytes: &[u8]| bytes.iter().copied().find(|byte| *byte != 0).unwrap_or(0);
    text.extend([byte(&family), byte(&protocol), 0, 0]);
    text.extend(ANY_STATE.to_ne_bytes());
    text.extend(local.port().to_be_bytes());
    text.extend(remote.port().to_be_bytes());
    for end in [local, remote] {
        let mut place = [0; 16];
        match end.ip() {
            IpAddr::V4(ip) => place[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => place = ip.octets(),
        }
        text.extend(place);
    }
    // Any interface.
    text.extend([0; 4]);
    text.extend(NO_COOKIE);
    text
}

/// The error number, negative or 0, in an acknowledgement; `None` if it is none.
fn outcome(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_parts_where_the_kernel_looks_for_them() {
        let local = "[fd74::1]:40000".parse().expect("an address");
        let remote = "[fd74::2]:300".parse().expect("an address");
        let text = message(local, remote);
        assert_eq!(text.len(), HEADER + REQUEST);
        assert_eq!(text[HEADER..HEADER + 4], [10, 6, 0, 0]);
        assert_eq!(text[24..28], [0x9c, 0x40, 0x01, 0x2c]);
        assert_eq!((text[28], text[43], text[44], text[59]), (0xfd, 1, 0xfd, 2));
        assert_eq!(text[64..], NO_COOKIE);
        let four = message(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 2], 2).into());
        assert_eq!((four.len(), four[HEADER]), (HEADER + REQUEST, 2));
        assert_eq!(four[28..32], [127, 0, 0, 1]);
    }

    #[test]
    fn an_acknowledgement_tells_the_error() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert_eq!(outcome(&answer), Some(0));
        answer[16..20].copy_from_slice(&(-95_i32).to_ne_bytes());
        assert_eq!(outcome(&answer), Some(-95));
        answer[4..6].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(outcome(&answer), None);
        assert_eq!(outcome(&answer[..10]), None);
    }
}
