//! The kernel's own list of TCP sockets, by netlink: sock_diag(7).
//!
//! Not by `iter/tcp`: the iterator takes a reference to each socket of a bucket without asking
//! whether it still has one (`bpf_iter_tcp_established_batch()` in net/ipv4/tcp_ipv4.c), and a
//! request socket stands in the table for a moment before it does
//! (`reqsk_queue_hash_req()` in net/ipv4/inet_connection_sock.c). Beside live traffic that was seen
//! to end in use after free. `inet_diag` asks first (`inet_diag_dump_icsk()`).

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};
use tcpmon_common::{Family, TcpState};

/// What the kernel puts into one datagram at most (`netlink_recvmsg()`, net/netlink/af_netlink.c).
const BUFFER: usize = 32 << 10;

/// `TCPDIAG_GETSOCK` of include/uapi/linux/inet_diag.h: the one request that both families answer
/// in one walk over the table (`inet_diag_dump_compat()` in net/ipv4/inet_diag.c); by
/// `SOCK_DIAG_BY_FAMILY` it would be walked twice.
const GETSOCK: u16 = 18;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP_REQUEST: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// A set of states, as a dump asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// All states. From Linux 6.8 on `TCP_BOUND_INACTIVE` (include/net/tcp_states.h) is among them;
    /// asked for of older kernels, it is nothing.
    pub const ALL: Self = Self(u32::MAX);
    /// All but the substate TIME_WAIT of the time-wait table.
    pub const BUT_TIME_WAIT: Self = Self(!(1 << TcpState::TimeWait.number()));
}

/// A socket, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its address family.
    pub family: Family,
    /// Its state; of one in the time-wait table the substate. A request for a connection is in
    /// `SYN_RECV`.
    pub state: TcpState,
    /// It is in the time-wait table.
    pub in_time_wait_table: bool,
    /// Local address.
    pub src: IpAddr,
    /// Local port.
    pub sport: u16,
    /// Remote address.
    pub dst: IpAddr,
    /// Remote port.
    pub dport: u16,
    /// Its cookie, which the kernel gives it for the list if it had none.
    pub cookie: u64,
    /// It has an open file.
    pub has_inode: bool,
}

/// Calls `each` with every TCP socket of the calling thread's network namespace that is in one of
/// `states`: first those that listen. Sockets that come or go meanwhile may or may not be among
/// them; none is told twice but for one that moves to another state on the way.
///
/// # Errors
///
/// If the kernel has no `tcp_diag` (`CONFIG_INET_TCP_DIAG`), or says something that is not its own
/// format.
pub fn list(states: States, mut each: impl FnMut(Listed)) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let netlink =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    ask(&netlink, states)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (length, _) = match recv(&netlink, &mut *buffer, RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        if !messages(buffer.get(..length).unwrap_or_default(), &mut each)? {
            return Ok(());
        }
    }
}

/// Sends the request: `struct nlmsghdr` and `struct inet_diag_req`.
fn ask(netlink: &OwnedFd, states: States) -> io::Result<()> {
    const REQUEST: usize = HEADER + 60;
    let mut request = [0u8; REQUEST];
    request[..4].copy_from_slice(&76u32.to_ne_bytes());
    request[4..6].copy_from_slice(&GETSOCK.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP_REQUEST.to_ne_bytes());
    request[HEADER + 52..HEADER + 56].copy_from_slice(&states.0.to_ne_bytes());
    send(netlink, &request, SendFlags::empty())?;
    Ok(())
}

/// Reads the messages of a datagram; false after the last one of the list.
pub(crate) fn messages(mut datagram: &[u8], each: &mut impl FnMut(Listed)) -> io::Result<bool> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a malformed netlink message");
    while !datagram.is_empty() {
        let (header, _) = datagram.split_first_chunk::<HEADER>().ok_or_else(malformed)?;
        let [a, b, c, d, kind @ ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let body = datagram.get(HEADER..length).ok_or_else(malformed)?;
        match u16::from_ne_bytes([kind[0], kind[1]]) {
            DONE => return Ok(false),
            ERROR => {
                let errno = body.first_chunk::<4>().ok_or_else(malformed)?;
                let errno = i32::from_ne_bytes(*errno).saturating_neg();
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ => {
                let message = body.first_chunk::<MESSAGE>().ok_or_else(malformed)?;
                if let Some(listed) = listed(message) {
                    each(listed);
                }
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// `struct inet_diag_msg` of include/uapi/linux/inet_diag.h; `None` for a family or a state that
/// is not known.
fn listed(message: &[u8; MESSAGE]) -> Option<Listed> {
    let word = |at: usize| {
        u32::from_ne_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
    };
    let port = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let family = match u16::from(message[0]) {
        family if family == AddressFamily::INET.as_raw() => Family::Ipv4,
        family if family == AddressFamily::INET6.as_raw() => Family::Ipv6,
        _ => return None,
    };
    let address = |at: usize| match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(
            message[at],
            message[at + 1],
            message[at + 2],
            message[at + 3],
        )),
        Family::Ipv6 => {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&message[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
    };
    Some(Listed {
        family,
        state: TcpState::from_number(message[1])?,
        // `inet_twsk_diag_fill()` in net/ipv4/inet_diag.c: timers of other sockets are 0, 1, 2 or 4.
        in_time_wait_table: message[2] == 3,
        sport: port(4),
        dport: port(6),
        src: address(8),
        dst: address(24),
        cookie: u64::from(word(44)) | u64::from(word(48)) << 32,
        has_inode: word(68) != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sockets_of_this_program_are_listed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let at = listener.local_addr().expect("an address");
        let client = TcpStream::connect(at).expect("a connection");
        let from = client.local_addr().expect("an address");
        let _server = listener.accept().expect("a connection");
        let mut all = Vec::new();
        list(States::ALL, |socket| all.push(socket)).expect("a list");
        let find = |sport: u16, state| {
            let found = all.iter().filter(|it| it.sport == sport && it.state == state);
            found.copied().collect::<Vec<_>>()
        };
        let listening = find(at.port(), TcpState::Listen);
        assert_eq!(listening.len(), 1, "{listening:?}");
        let connected = find(from.port(), TcpState::Established);
        let [one] = connected[..] else { panic!("{connected:?}") };
        assert_eq!((one.src, one.dst, one.dport), (from.ip(), at.ip(), at.port()));
        assert!(one.cookie != 0 && one.has_inode && !one.in_time_wait_table, "{one:?}");
        let mut others = 0;
        list(States(1 << TcpState::Closing.number()), |_| others += 1).expect("a list");
        assert!(others <= all.len());
    }

    proptest! {
        #[test]
        fn no_datagram_panics(bytes in vec(any::<u8>(), 0..200), length in 0u32..120, kind in 0u16..30) {
            let mut sockets = 0;
            let _ = messages(&bytes, &mut |_| sockets += 1);
            let mut likely = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
            likely.extend(bytes);
            let _ = messages(&likely, &mut |_| sockets += 1);
            prop_assert!(sockets <= 24);
        }
    }
}
