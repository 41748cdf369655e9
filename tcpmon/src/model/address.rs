//! IP addresses: from the kernel's bytes, and written fast.
//!
//! The standard library's `Display` for addresses goes through the formatting machinery, which
//! costs as much as the whole rest of an event's JSON.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tcpmon_common::{Address, Family};

/// Length of the longest text of an address: eight groups of four digits.
pub const MAX_TEXT: usize = 39;

/// The address in a record: the first four bytes for IPv4, all sixteen for IPv6.
///
/// An IPv4-mapped address of an `AF_INET6` socket stays an IPv6 address: that is what the socket
/// has.
#[must_use]
pub fn from_record(family: Family, bytes: &Address) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::Ipv6 => Ipv6Addr::from(*bytes).into(),
    }
}

/// The text of an address, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    bytes: [u8; MAX_TEXT],
    len: usize,
}

impl Text {
    /// The text of `address`, the same as its `Display` gives (RFC 5952 for IPv6).
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; MAX_TEXT], len: 0 };
        match address {
            IpAddr::V4(address) => text.ipv4(address),
            IpAddr::V6(address) => text.ipv6(address),
        }
        text
    }

    /// The text's bytes, all of them ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn ipv4(&mut self, address: Ipv4Addr) {
        for (index, octet) in address.octets().into_iter().enumerate() {
            if index > 0 {
                self.push(b'.');
            }
            if octet >= 100 {
                self.push(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.push(b'0' + octet / 10 % 10);
            }
            self.push(b'0' + octet % 10);
        }
    }

    fn ipv6(&mut self, address: Ipv6Addr) {
        if let Some(mapped) = address.to_ipv4_mapped() {
            for &byte in b"::ffff:" {
                self.push(byte);
            }
            return self.ipv4(mapped);
        }
        let segments = address.segments();
        let (start, len) = longest_zeroes(&segments);
        if len < 2 {
            return self.hextets(&segments);
        }
        self.hextets(&segments[..start]);
        self.push(b':');
        self.push(b':');
        self.hextets(&segments[start + len..]);
    }

    fn hextets(&mut self, segments: &[u16]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (index, &segment) in segments.iter().enumerate() {
            if index > 0 {
                self.push(b':');
            }
            let mut leading = true;
            for shift in [12, 8, 4, 0] {
                let digit = usize::from(segment >> shift & 0xf);
                leading &= digit == 0 && shift > 0;
                if !leading {
                    self.push(DIGITS[digit]);
                }
            }
        }
    }
}

/// Start and length of the longest run of zero segments, the first of the longest ones.
fn longest_zeroes(segments: &[u16; 8]) -> (usize, usize) {
    let mut longest = (0, 0);
    let mut current = (0, 0);
    for (index, &segment) in segments.iter().enumerate() {
        if segment == 0 {
            if current.1 == 0 {
                current.0 = index;
            }
            current.1 += 1;
            if current.1 > longest.1 {
                longest = current;
            }
        } else {
            current = (0, 0);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same_as_std(address: IpAddr) {
        assert_eq!(
            String::from_utf8_lossy(Text::new(address).as_bytes()),
            address.to_string(),
            "{address:?}"
        );
    }

    #[test]
    fn known_addresses_read_as_std_writes_them() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "10.20.30.40",
            "255.255.255.255",
            "::",
            "::1",
            "1::",
            "fe80::1",
            "2001:db8::1:0:0:1",
            "2001:db8:0:1:1:1:1:1",
            "1:0:0:2:0:0:0:3",
            "::ffff:1.2.3.4",
            "::1.2.3.4",
            "64:ff9b::1.2.3.4",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            same_as_std(text.parse().expect(text));
        }
    }

    #[test]
    fn addresses_keep_the_socket_s_family() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(from_record(Family::Ipv4, &bytes).to_string(), "10.0.0.1");
        let mapped = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped().octets();
        assert_eq!(from_record(Family::Ipv6, &mapped).to_string(), "::ffff:1.2.3.4");
    }

    proptest! {
        #[test]
        fn any_ipv4_address_reads_as_std_writes_it(bits: u32) {
            same_as_std(Ipv4Addr::from_bits(bits).into());
        }

        #[test]
        fn any_ipv6_address_reads_as_std_writes_it(
            segments in prop::array::uniform8(prop_oneof![Just(0u16), Just(0xffff), any::<u16>()]),
        ) {
            same_as_std(Ipv6Addr::from(segments).into());
        }
    }
}
