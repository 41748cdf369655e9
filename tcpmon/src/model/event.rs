//! One transition as people and programs are shown it, and the gaps in the stream of them.

use std::net::IpAddr;
use std::sync::Arc;

use tcpmon_common::{DURATION_UNKNOWN, Family, TcpState, Transition, flags};
use thiserror::Error;

use super::address;
use super::comm::Comm;
use super::time_wait::Passage;

/// Which side of a connection an end is (RFC 9293, 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// This end opened the connection (active OPEN).
    Active,
    /// This end listens, or was accepted from a listener (passive OPEN).
    Passive,
}

impl Role {
    /// Name in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Passive].into_iter().find(|role| role.name() == name)
    }
}

/// The cookies of sockets are below this; what is above is an address, of a socket that has none.
const COOKIES: u64 = 1 << 63;

/// One TCP state transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When: nanoseconds since 1970-01-01T00:00:00Z.
    pub ts_ns: u64,
    /// The socket's cookie: not used again until reboot. 0: it is older than the daemon, and nobody
    /// ever asked for one.
    pub cookie: u64,
    /// Whole microseconds spent in the old state; `None` where its start was not seen.
    pub duration_us: Option<u64>,
    /// The owner a person would name; `None` where the owner is unknown.
    pub service: Option<Arc<str>>,
    /// Local address. Its kind is the socket's family: an IPv4-mapped address is IPv6.
    pub saddr: IpAddr,
    /// Remote address, of the same kind.
    pub daddr: IpAddr,
    /// Name of the owner's process; `None` where the owner is unknown.
    pub comm: Option<Comm>,
    /// Process id of the owner; `None` where the owner is unknown.
    pub pid: Option<u32>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Local port; 0 when the socket has none (yet).
    pub sport: u16,
    /// Remote port; 0 when there is no peer (yet).
    pub dport: u16,
    /// The state left.
    pub old: TcpState,
    /// The state entered.
    pub new: TcpState,
    /// Which side this end is; `None` where its beginning was not seen.
    pub role: Option<Role>,
    /// This is a `connect()` that found no free local port.
    pub port_exhausted: bool,
    /// How it entered or left the time-wait table; `None` for all other transitions.
    pub passage: Option<Passage>,
}

/// A record that no probe of this version can have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "record from the probes has {member} {value}, which this program does not know; \
     the probes and the daemon are of different versions: restart the daemon"
)]
pub struct RecordError {
    member: &'static str,
    value: u8,
}

impl Event {
    /// The event that a record tells of.
    ///
    /// `utc_offset_ns` is what to add to `CLOCK_MONOTONIC` to get UTC; `service` the name of the
    /// record's owner, if known.
    ///
    /// # Errors
    /// The record's family or one of its states has a number that is not assigned.
    pub fn from_record(
        record: &Transition,
        utc_offset_ns: i64,
        service: Option<Arc<str>>,
    ) -> Result<Self, RecordError> {
        let state =
            |member, value| TcpState::from_number(value).ok_or(RecordError { member, value });
        let family = Family::from_number(record.family)
            .ok_or(RecordError { member: "family", value: record.family })?;
        let set = |flag| record.flags & flag != 0;
        let owned = set(flags::OWNER_KNOWN);
        let comm = Comm::from_padded(&record.comm);
        Ok(Self {
            ts_ns: record.ts_ns.saturating_add_signed(utc_offset_ns),
            cookie: if record.cookie < COOKIES { record.cookie } else { 0 },
            duration_us: (record.duration_ns != DURATION_UNKNOWN)
                .then_some(record.duration_ns / 1_000),
            service: service.filter(|_| owned),
            saddr: address::from_record(family, &record.saddr),
            daddr: address::from_record(family, &record.daddr),
            comm: (owned && !comm.is_empty()).then_some(comm),
            pid: owned.then_some(record.pid),
            netns: record.netns,
            sport: record.sport,
            dport: record.dport,
            old: state("old state", record.old)?,
            new: state("new state", record.new)?,
            role: if set(flags::ACTIVE) {
                Some(Role::Active)
            } else if set(flags::PASSIVE) {
                Some(Role::Passive)
            } else {
                None
            },
            port_exhausted: set(flags::PORT_EXHAUSTED),
            passage: Passage::from_record(record),
        })
    }

    /// The socket's address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        if self.saddr.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

/// Where events were lost on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossPlace {
    /// A ring between the kernel and the daemon was full.
    Ring,
    /// The queue of this one subscriber was full: it reads too slowly.
    Subscriber,
}

impl LossPlace {
    /// Name in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Subscriber => "subscriber",
        }
    }

    /// The place of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ring, Self::Subscriber].into_iter().find(|place| place.name() == name)
    }
}

/// A hole in the stream: that many events are missing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub lost: u64,
    /// Where.
    pub place: LossPlace,
}

/// What a stream of events is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A transition.
    Event(Event),
    /// A hole.
    Gap(Gap),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::time_wait::Substate;

    /// The example of the documentation, but for its state.
    pub(crate) fn example() -> Event {
        Event {
            ts_ns: 1_795_334_400_123_456_000,
            cookie: 812,
            duration_us: Some(812),
            service: Some("api.service".into()),
            saddr: IpAddr::from([10, 0, 0, 1]),
            daddr: IpAddr::from([10, 0, 0, 2]),
            comm: Some(Comm::truncated(b"worker")),
            pid: Some(4242),
            netns: 4_026_531_833,
            sport: 40_000,
            dport: 5432,
            old: TcpState::FinWait2,
            new: TcpState::TimeWait,
            role: Some(Role::Active),
            port_exhausted: false,
            passage: Some(Passage::Entered(Substate::TimeWait)),
        }
    }

    /// A record of that transition, with these flags.
    pub(crate) fn record_of(old: TcpState, new: TcpState, flags: u8) -> Transition {
        Transition { old: old.number(), new: new.number(), flags, ..record() }
    }

    fn record() -> Transition {
        let mut record = Transition {
            ts_ns: 5_000_000_123,
            cookie: 7,
            duration_ns: 1_999,
            cgroup_id: 1,
            birth_ns: 1,
            saddr: [0; 16],
            daddr: [0; 16],
            comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
            netns: 4_026_531_840,
            pid: 42,
            sport: 0,
            dport: 80,
            family: 0,
            old: 7,
            new: 2,
            flags: flags::OWNER_KNOWN | flags::ACTIVE,
        };
        record.saddr[..4].copy_from_slice(&[10, 0, 0, 1]);
        record.daddr[..4].copy_from_slice(&[10, 0, 0, 2]);
        record
    }

    #[test]
    fn a_record_becomes_an_event() {
        let event =
            Event::from_record(&record(), 1_000, Some("api.service".into())).expect("event");
        assert_eq!(
            event,
            Event {
                ts_ns: 5_000_001_123,
                cookie: 7,
                duration_us: Some(1),
                service: Some("api.service".into()),
                saddr: IpAddr::from([10, 0, 0, 1]),
                daddr: IpAddr::from([10, 0, 0, 2]),
                comm: Some(Comm::truncated(b"worker")),
                pid: Some(42),
                netns: 4_026_531_840,
                sport: 0,
                dport: 80,
                old: TcpState::Close,
                new: TcpState::SynSent,
                role: Some(Role::Active),
                port_exhausted: false,
                passage: None,
            }
        );
        assert_eq!(event.family(), Family::Ipv4);
    }

    #[test]
    fn what_is_not_known_is_none() {
        let record = Transition {
            flags: flags::PORT_EXHAUSTED,
            duration_ns: DURATION_UNKNOWN,
            family: 1,
            ..record()
        };
        let event = Event::from_record(&record, i64::MIN, Some("x".into())).expect("event");
        assert_eq!(
            (event.ts_ns, event.pid, event.comm, event.service.clone(), event.duration_us),
            (0, None, None, None, None)
        );
        assert_eq!((event.role, event.family(), event.port_exhausted), (None, Family::Ipv6, true));
        let passive = Transition { flags: flags::PASSIVE, ..record };
        let event = Event::from_record(&passive, 0, None).expect("event");
        assert_eq!(event.role, Some(Role::Passive));
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_member() {
        for (record, member) in [
            (Transition { family: 2, ..record() }, "family 2"),
            (Transition { old: 0, ..record() }, "old state 0"),
            (Transition { new: 99, ..record() }, "new state 99"),
        ] {
            let error = Event::from_record(&record, 0, None).expect_err(member);
            assert!(error.to_string().contains(member), "{error}");
        }
    }
}
