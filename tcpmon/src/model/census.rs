//! The sockets of one network namespace at one moment, in groups.

use super::address;
use std::net::IpAddr;
use tcpmon_common::{Cell, CellKey, Family, ServiceKey, TcpState, kind};
use thiserror::Error;

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketKind {
    /// Its state. In the time-wait table: `FIN_WAIT2` as long as the peer's FIN is awaited, which
    /// the kernel's tracepoint never tells from `TIME_WAIT` proper.
    pub state: TcpState,
    /// It is in the time-wait table: no process has it, and a timer will end it.
    pub in_time_wait_table: bool,
    /// This end listens, or was accepted from a listener.
    pub passive: bool,
    /// Its local port was chosen by connect(); `None` where that was not seen.
    pub chosen: Option<bool>,
    /// The connection had TCP timestamps; `None` where that is not known, as of all sockets that
    /// are not in the time-wait table.
    pub timestamps: Option<bool>,
}

/// Sockets that have all this in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

/// Which place a group is counted in, as long as it is counted there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellId {
    /// The place: places are taken from the lowest on.
    pub number: u32,
    /// How many groups had the place before.
    pub turn: u32,
}

/// A group of sockets in the time-wait table, as the probes count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedGroup {
    /// Where it is counted.
    pub id: CellId,
    /// What they have in common; the state is `TIME_WAIT`, whatever the substate.
    pub group: SocketGroup,
    /// How many there are.
    pub sockets: u64,
    /// How many have entered since the group was first seen: never falls while it is there.
    pub entered: u64,
}

/// A record that no probe of this version can have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the probes count sockets of {member} {value}, which this program does not know; \
     the probes and the daemon are of different versions: restart the daemon"
)]
pub struct UnknownKind {
    member: &'static str,
    value: u8,
}

impl SocketGroup {
    /// The group that has that key.
    ///
    /// # Errors
    ///
    /// If its family or kind has a number that is not assigned.
    pub fn from_key(key: &CellKey) -> Result<Self, UnknownKind> {
        let family = Family::from_number(key.family)
            .ok_or(UnknownKind { member: "family", value: key.family })?;
        let state = TcpState::from_number(key.kind & kind::STATE)
            .ok_or(UnknownKind { member: "kind", value: key.kind })?;
        let passive = key.kind & kind::PASSIVE != 0;
        Ok(Self {
            family,
            src: address::from_record(family, &key.saddr),
            dst: address::from_record(family, &key.daddr),
            dport: (!passive).then_some(key.dport),
            kind: SocketKind {
                state,
                in_time_wait_table: true,
                passive,
                chosen: Some(!passive && key.kind & kind::BOUND == 0),
                timestamps: Some(key.kind & kind::TIMESTAMPS != 0),
            },
            owner: (key.service.known != 0).then_some(key.service),
        })
    }
}

impl CountedGroup {
    /// The group that is counted in a cell.
    ///
    /// # Errors
    ///
    /// As [`SocketGroup::from_key`].
    pub fn from_cell(id: CellId, cell: &Cell) -> Result<Self, UnknownKind> {
        // A socket that leaves may be counted by another CPU a moment before it is seen to enter.
        let sockets = u64::try_from(cell.sockets.cast_signed()).unwrap_or(0);
        Ok(Self { id, group: SocketGroup::from_key(&cell.key)?, sockets, entered: cell.entered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn key(family: u8, kind: u8, saddr: &str, daddr: &str) -> CellKey {
        CellKey {
            saddr: address(saddr),
            daddr: address(daddr),
            dport: 443,
            family,
            kind,
            ..CellKey::default()
        }
    }

    #[test]
    fn bits_are_read_as_the_probes_write_them() {
        for (bits, passive, chosen, timestamps) in [
            (0x06, false, true, false),
            (0x46, false, true, true),
            (0x86, false, false, false),
            (0xc6, false, false, true),
            (0x66, true, false, true),
        ] {
            let group = SocketGroup::from_key(&key(0, bits, "10.0.0.1", "10.0.0.2"));
            let kind = SocketKind {
                state: TcpState::TimeWait,
                in_time_wait_table: true,
                passive,
                chosen: Some(chosen),
                timestamps: Some(timestamps),
            };
            let group = group.expect("sound");
            assert_eq!(group.kind, kind, "{bits:#x}");
            assert_eq!(group.dport, (!passive).then_some(443));
        }
    }

    #[test]
    fn cells_are_groups() {
        for (family, saddr, daddr) in [
            (0, "10.0.0.1", "10.0.0.2"),
            (1, "fd00::1", "fd00::2"),
            (1, "::ffff:127.0.0.1", "::ffff:127.0.0.2"),
        ] {
            let mut key = key(family, 0x46, saddr, daddr);
            key.service = ServiceKey { cgroup_id: 9, known: 1, ..ServiceKey::default() };
            let id = CellId { number: 3, turn: 1 };
            let counted = CountedGroup::from_cell(id, &Cell { key, sockets: 7, entered: 9 });
            let CountedGroup { id: counted_in, group, sockets, entered } = counted.expect("sound");
            assert_eq!((counted_in, sockets, entered), (id, 7, 9));
            assert_eq!(
                (group.src.to_string(), group.dst.to_string()),
                (saddr.into(), daddr.into())
            );
            assert_eq!(group.owner, Some(key.service));
        }
        let early = Cell { key: key(0, 6, "::", "::"), sockets: u64::MAX, entered: 0 };
        let early = CountedGroup::from_cell(CellId::default(), &early);
        assert_eq!(early.expect("sound").sockets, 0);
    }

    #[test]
    fn what_is_not_assigned_is_refused() {
        for (family, kind, told) in [(2, 0x01, "family 2"), (0, 0x4f, "kind 79")] {
            let error = SocketGroup::from_key(&key(family, kind, "::", "::")).expect_err("odd");
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
