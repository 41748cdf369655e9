//! Which addresses and ports a lab uses: its own, whatever other labs run beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::recipe::Addresses;

/// The addresses of one lab, unlike those of any other that runs at the same time: the kernel's
/// tracepoint does not tell the namespace, so only the address tells two labs apart there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressPlan {
    /// 16 bits of the process, 6 of the lab's number in it.
    tag: u32,
}

impl AddressPlan {
    pub(super) fn new(pid: u32, lab: u32) -> Self {
        Self { tag: ((pid & 0xffff) << 6) | (lab & 0x3f) }
    }

    /// The server's address on the loopback interface of a single namespace.
    pub(super) fn server(self, addresses: Addresses) -> IpAddr {
        let [_, high, middle, low] = self.tag.to_be_bytes();
        let ipv4 = Ipv4Addr::new(127, 64 | high, middle, low);
        match addresses {
            Addresses::Ipv4 => ipv4.into(),
            Addresses::Ipv4Mapped => ipv4.to_ipv6_mapped().into(),
            Addresses::Ipv6 => self.ipv6(0, 1).into(),
        }
    }

    /// The source address that the kernel chooses for a `connect()` to [`Self::server`]: the
    /// preferred source of the local route 127.0.0.0/8, or with IPv6 (RFC 6724, rule 1) the
    /// destination itself.
    pub(super) fn client(self, addresses: Addresses) -> IpAddr {
        match addresses {
            Addresses::Ipv4 => Ipv4Addr::LOCALHOST.into(),
            Addresses::Ipv4Mapped => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
            Addresses::Ipv6 => self.server(addresses),
        }
    }

    /// The address on the wire at one end (0 or 1), as an interface gets it: not IPv4-mapped.
    /// The IPv4 ones come from 198.18.0.0/15, set aside for tests (RFC 2544).
    pub(super) fn wire(self, end: u16, addresses: Addresses) -> IpAddr {
        match addresses {
            Addresses::Ipv6 => self.ipv6(1, end + 1).into(),
            Addresses::Ipv4 | Addresses::Ipv4Mapped => {
                let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
                Ipv4Addr::from(base + ((self.tag & 0xffff) << 1) + u32::from(end & 1)).into()
            }
        }
    }

    /// The first port for servers: below any `ip_local_port_range` that the lab sets, so that no
    /// client holds it, and seldom the same in two labs, so that each can filter the tracepoint
    /// by it.
    pub(super) fn first_port(self) -> u16 {
        // Each recipe takes the next pair, so labs that follow each other begin far apart.
        let pair = self.tag.wrapping_mul(Self::STRIDE) % u32::from(Self::PORTS / 2);
        Self::FIRST_PORT + u16::try_from(pair).unwrap_or_default() * 2
    }

    /// The port after `port`, around the range that servers use.
    pub(super) fn port_after(port: u16) -> u16 {
        if port + 2 < Self::FIRST_PORT + Self::PORTS { port + 1 } else { Self::FIRST_PORT }
    }

    const FIRST_PORT: u16 = 200;
    const PORTS: u16 = 820;
    const STRIDE: u32 = 47;

    /// A unique local address (RFC 4193).
    fn ipv6(self, net: u16, host: u16) -> Ipv6Addr {
        let [high, low] =
            [self.tag >> 16, self.tag & 0xffff].map(|half| u16::try_from(half).unwrap_or_default());
        Ipv6Addr::new(0xfd74, 0x6370, high, low, net, 0, 0, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_labs_share_addresses() {
        let mut seen = std::collections::HashSet::new();
        for pid in [1, 2, 63, 64, 4242, 32768, 65535] {
            for lab in 0..64 {
                let plan = AddressPlan::new(pid, lab);
                for addresses in [Addresses::Ipv4, Addresses::Ipv6] {
                    assert!(plan.server(addresses).is_loopback() || addresses == Addresses::Ipv6);
                    assert!(seen.insert(plan.server(addresses)), "{pid} {lab}");
                }
            }
        }
    }

    #[test]
    fn ports_for_servers_come_in_pairs_and_stay_below_the_ranges_for_clients() {
        for lab in 0..5000 {
            let first = AddressPlan::new(4242, lab).first_port();
            let mut port = first;
            for _ in 0..AddressPlan::PORTS / 2 {
                assert!(
                    (AddressPlan::FIRST_PORT..1023).contains(&port) && port.is_multiple_of(2),
                    "{port}"
                );
                port = AddressPlan::port_after(port + 1);
            }
            assert_eq!(port, first);
        }
    }

    #[test]
    fn the_two_ends_of_a_wire_differ_in_the_last_bit_only() {
        let plan = AddressPlan::new(4242, 3);
        let ends = [0, 1].map(|end| match plan.wire(end, Addresses::Ipv4) {
            IpAddr::V4(ip) => u32::from(ip),
            IpAddr::V6(ip) => panic!("{ip}"),
        });
        assert_eq!(ends[0] ^ ends[1], 1);
        assert_eq!(ends[0] & 1, 0);
    }
}
