//! Network interfaces: up, addresses, and TUN devices, by the ioctls of `netdevice(7)`.
//!
//! Every function works on the namespace of the calling thread.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketType};

/// `IFA_F_TENTATIVE` (`include/uapi/linux/if_addr.h`).
const TENTATIVE: u32 = 0x40;
/// How long an address may be tentative.
const LIMIT: Duration = Duration::from_secs(5);

/// `struct ifreq` as the requests on flags see it: 40 bytes on 64-bit machines.
#[repr(C)]
struct FlagsRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// `struct ifreq` as the requests on IPv4 addresses see it.
#[repr(C)]
struct AddressRequest {
    name: [u8; libc::IFNAMSIZ],
    address: libc::sockaddr_in,
    rest: [u8; 8],
}

const _: () = assert!(size_of::<FlagsRequest>() == size_of::<libc::ifreq>());
const _: () = assert!(size_of::<AddressRequest>() == size_of::<libc::ifreq>());

/// Brings the interface `name` up.
pub(super) fn up(name: &str) -> io::Result<()> {
    let socket = any_socket(AddressFamily::INET)?;
    let mut request = FlagsRequest { name: padded(name)?, flags: 0, rest: [0; 22] };
    // SAFETY: SIOCGIFFLAGS reads and writes one `struct ifreq`, whose layout the request has.
    unsafe { ioctl(&socket, libc::SIOCGIFFLAGS, &mut request) }?;
    request.flags |= libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: SIOCSIFFLAGS reads one `struct ifreq`, whose layout the request has.
    unsafe { ioctl(&socket, libc::SIOCSIFFLAGS, &mut request) }
}

/// Waits until the kernel lets sockets bind to `ip`. A new address is tentative until duplicate
/// address detection is done, and a worker of the kernel does that, even where there is nothing to
/// detect (`addrconf_dad_work()`, `net/ipv6/addrconf.c`).
fn await_usable(ip: Ipv6Addr) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?;
        match flags_of(&addresses, ip) {
            Some(flags) if flags & TENTATIVE == 0 => return Ok(()),
            _ if begun.elapsed() > LIMIT => return Err(io::ErrorKind::TimedOut.into()),
            _ => thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// The flags of `ip` in `/proc/net/if_inet6`: address, index, prefix, scope, flags and name of
/// the interface, in hexadecimal digits without prefix.
fn flags_of(addresses: &str, ip: Ipv6Addr) -> Option<u32> {
    let digits = format!("{:032x}", u128::from(ip));
    let line = addresses.lines().find(|line| line.starts_with(&digits))?;
    u32::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()
}

/// Gives the interface `name` one more IPv6 address, or its IPv4 address, with a prefix of
/// `prefix` bits.
pub(super) fn add_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            let socket = any_socket(AddressFamily::INET)?;
            let mut request = address_request(name, ip)?;
            // SAFETY: SIOCSIFADDR reads one `struct ifreq`, whose layout the request has.
            unsafe { ioctl(&socket, libc::SIOCSIFADDR, &mut request) }?;
            let mut request = address_request(name, Ipv4Addr::from(mask))?;
            // SAFETY: SIOCSIFNETMASK reads one `struct ifreq`, whose layout the request has.
            unsafe { ioctl(&socket, libc::SIOCSIFNETMASK, &mut request) }
        }
        IpAddr::V6(ip) => {
            let socket = any_socket(AddressFamily::INET6)?;
            let index = rustix::net::netdevice::name_to_index(&socket, name)?;
            let mut request = libc::in6_ifreq {
                ifr6_addr: libc::in6_addr { s6_addr: ip.octets() },
                ifr6_prefixlen: prefix.into(),
                ifr6_ifindex: i32::try_from(index).map_err(io::Error::other)?,
            };
            // SAFETY: on an AF_INET6 socket SIOCSIFADDR reads one `struct in6_ifreq`.
            unsafe { ioctl(&socket, libc::SIOCSIFADDR, &mut request) }?;
            await_usable(ip)
        }
    }
}

/// Opens a TUN device called `name`: what the kernel sends there can be read, one packet a
/// read, and what is written arrives from there. It lives as long as the file.
pub(super) fn open_tun(name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let kind =
        libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
    let mut request = FlagsRequest { name: padded(name)?, flags: kind, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose layout the request has.
    unsafe { ioctl(&device, libc::TUNSETIFF, &mut request) }?;
    Ok(File::from(device))
}

fn address_request(name: &str, ip: Ipv4Addr) -> io::Result<AddressRequest> {
    Ok(AddressRequest { name: padded(name)?, address: sockaddr_in(ip, 0), rest: [0; 8] })
}

/// An IPv4 socket address as the kernel takes it.
pub(super) fn sockaddr_in(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: AddressFamily::INET.as_raw(),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    }
}

/// The name of an interface, ended by a zero byte.
fn padded(name: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    let mut padded = [0; libc::IFNAMSIZ];
    match padded.get_mut(..name.len()) {
        Some(place) if name.len() < libc::IFNAMSIZ => place.copy_from_slice(name.as_bytes()),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "name too long")),
    }
    Ok(padded)
}

/// The ioctls on interfaces take any socket of the family.
fn any_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket(family, SocketType::DGRAM, None)?)
}

/// # Safety
///
/// `request` must read and write memory of the shape of `T` only.
unsafe fn ioctl<T>(file: &OwnedFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: the argument is a live, exclusive reference to what the caller vouches for.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_an_address_among_others() {
        let table = "fd746370001775840001000000000002 02 7e 00 c0     wire\n\
                     00000000000000000000000000000001 01 80 10 80       lo\n";
        let wire = "fd74:6370:17:7584:1::2".parse().expect("address");
        assert_eq!(flags_of(table, wire).map(|flags| flags & TENTATIVE), Some(TENTATIVE));
        assert_eq!(flags_of(table, Ipv6Addr::LOCALHOST), Some(0x80));
        assert_eq!(flags_of(table, Ipv6Addr::UNSPECIFIED), None);
    }

    #[test]
    fn a_name_has_room_for_its_end() {
        assert!(padded("fifteen-letters").is_ok_and(|name| name[15] == 0));
        assert!(padded("sixteen--letters").is_err());
    }
}
