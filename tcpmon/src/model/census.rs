//! The sockets of one network namespace at one moment, in groups.

use std::net::IpAddr;

use tcpmon_common::{CensusCell, Family, KINDS, ServiceKey, TcpState, kind};
use thiserror::Error;

use super::address;

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKind {
    /// Its state. In the time-wait table: `FIN_WAIT2` as long as the peer's FIN is awaited, which
    /// the kernel's tracepoint never tells from `TIME_WAIT` proper.
    pub state: TcpState,
    /// It is in the time-wait table: no process has it, and a timer will end it.
    pub in_time_wait_table: bool,
    /// This end listens, or was accepted from a listener.
    pub passive: bool,
}

/// Sockets that have all this in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketGroup {
    /// Address family; that of the addresses. An IPv4-mapped address is IPv6.
    pub family: Family,
    /// Local address.
    pub src: IpAddr,
    /// Remote address; the unspecified one for listeners.
    pub dst: IpAddr,
    /// Remote port; `None`, any, for passive ends, where each client has another.
    pub dport: Option<u16>,
    /// What they are.
    pub kind: SocketKind,
    /// Whose they are; `None` where that is unknown.
    pub owner: Option<ServiceKey>,
    /// How many; not 0.
    pub sockets: u64,
}

/// Sockets of one family and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindCount {
    /// Address family.
    pub family: Family,
    /// What they are.
    pub kind: SocketKind,
    /// How many; not 0.
    pub sockets: u64,
}

/// A record that no probe of this version can have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the census has sockets of {member} {value}, which this program does not know; \
     the probes and the daemon are of different versions: restart the daemon"
)]
pub struct UnknownKind {
    member: &'static str,
    value: u8,
}

impl SocketKind {
    /// What the bits of [`kind`] say.
    ///
    /// # Errors
    ///
    /// If the state's number is not assigned, or another bit is set.
    pub fn from_bits(bits: u8) -> Result<Self, UnknownKind> {
        let unknown = UnknownKind { member: "kind", value: bits };
        if bits & !(kind::STATE | kind::TIME_WAIT_TABLE | kind::PASSIVE) != 0 {
            return Err(unknown);
        }
        Ok(Self {
            state: TcpState::from_number(bits & kind::STATE).ok_or(unknown)?,
            in_time_wait_table: bits & kind::TIME_WAIT_TABLE != 0,
            passive: bits & kind::PASSIVE != 0,
        })
    }
}

impl SocketGroup {
    /// The group in a cell of the probes'.
    ///
    /// # Errors
    ///
    /// If the cell's family or kind has a number that is not assigned.
    pub fn from_cell(cell: &CensusCell) -> Result<Self, UnknownKind> {
        let key = &cell.key;
        let family = Family::from_number(key.family)
            .ok_or(UnknownKind { member: "family", value: key.family })?;
        let kind = SocketKind::from_bits(key.kind)?;
        Ok(Self {
            family,
            src: address::from_record(family, &key.saddr),
            dst: address::from_record(family, &key.daddr),
            dport: (!kind.passive).then_some(key.dport),
            kind,
            owner: (key.service.known != 0).then_some(key.service),
            sockets: cell.sockets,
        })
    }
}

/// The counts that are not 0 in a table of the probes', by family and kind.
///
/// # Errors
///
/// If there are sockets of a kind that is not assigned.
pub fn kinds(table: &[[u64; KINDS]; 2]) -> Result<Vec<KindCount>, UnknownKind> {
    let mut counts = Vec::new();
    for (family, of_family) in Family::ALL.into_iter().zip(table) {
        for (bits, &sockets) in (0..).zip(of_family) {
            if sockets > 0 {
                counts.push(KindCount { family, kind: SocketKind::from_bits(bits)?, sockets });
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpmon_common::CensusKey;

    fn of(state: TcpState, in_time_wait_table: bool, passive: bool) -> SocketKind {
        SocketKind { state, in_time_wait_table, passive }
    }

    #[test]
    fn bits_are_read_as_the_probes_write_them() {
        for (bits, kind) in [
            (0x01, of(TcpState::Established, false, false)),
            (0x21, of(TcpState::Established, false, true)),
            (0x05, of(TcpState::FinWait2, false, false)),
            (0x15, of(TcpState::FinWait2, true, false)),
            (0x16, of(TcpState::TimeWait, true, false)),
            (0x36, of(TcpState::TimeWait, true, true)),
            (0x2a, of(TcpState::Listen, false, true)),
            (0x2c, of(TcpState::NewSynRecv, false, true)),
        ] {
            assert_eq!(SocketKind::from_bits(bits), Ok(kind), "{bits:#x}");
        }
        for bits in [0x00, 0x0e, 0x0f, 0x10, 0x41, 0x56, 0x81] {
            assert!(SocketKind::from_bits(bits).is_err(), "{bits:#x}");
        }
    }

    fn address(text: &str) -> [u8; 16] {
        match text.parse().expect("an address") {
            IpAddr::V4(ip) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ip.octets());
                bytes
            }
            IpAddr::V6(ip) => ip.octets(),
        }
    }

    fn cell(family: u8, kind: u8, saddr: &str, daddr: &str) -> CensusCell {
        CensusCell {
            key: CensusKey {
                saddr: address(saddr),
                daddr: address(daddr),
                dport: 443,
                family,
                kind,
                ..CensusKey::default()
            },
            sockets: 7,
        }
    }

    #[test]
    fn cells_are_groups() {
        let group = SocketGroup::from_cell(&cell(0, 0x16, "10.0.0.1", "10.0.0.2")).expect("sound");
        assert_eq!(
            group,
            SocketGroup {
                family: Family::Ipv4,
                src: "10.0.0.1".parse().expect("an address"),
                dst: "10.0.0.2".parse().expect("an address"),
                dport: Some(443),
                kind: of(TcpState::TimeWait, true, false),
                owner: None,
                sockets: 7,
            }
        );
        for (saddr, daddr) in [("fd00::1", "fd00::2"), ("::ffff:127.0.0.1", "::ffff:127.0.0.2")] {
            let mut cell = cell(1, 0x21, saddr, daddr);
            cell.key.service = ServiceKey { cgroup_id: 9, known: 1, ..ServiceKey::default() };
            let group = SocketGroup::from_cell(&cell).expect("sound");
            assert_eq!(
                (group.src.to_string(), group.dst.to_string()),
                (saddr.into(), daddr.into())
            );
            assert_eq!((group.family, group.dport), (Family::Ipv6, None));
            assert_eq!(group.owner, Some(cell.key.service));
        }
    }

    #[test]
    fn what_is_not_assigned_is_refused() {
        for (family, kind, told) in [(2, 0x01, "family 2"), (0, 0x4f, "kind 79")] {
            let error = SocketGroup::from_cell(&cell(family, kind, "::", "::")).expect_err("odd");
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn only_kinds_that_there_are_are_told() {
        let mut table = [[0; KINDS]; 2];
        assert_eq!(kinds(&table), Ok(vec![]));
        table[0][0x16] = 3;
        table[1][0x2a] = 4;
        let waiting = KindCount {
            family: Family::Ipv4,
            kind: of(TcpState::TimeWait, true, false),
            sockets: 3,
        };
        let listening =
            KindCount { family: Family::Ipv6, kind: of(TcpState::Listen, false, true), sockets: 4 };
        assert_eq!(kinds(&table), Ok(vec![waiting, listening]));
        table[1][0x7f] = 1;
        assert!(kinds(&table).is_err());
    }
}
