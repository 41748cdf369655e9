//! How a socket enters the time-wait table, and how it leaves it.

use tcpmon_common::{Ending, TcpState, Transition, flags};

/// In which substate a socket entered the time-wait table (`tw_substate`, include/net/inet_timewait_sock.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Substate {
    /// The peer's FIN had not come yet: FIN-WAIT-2, which `ss` shows as such. TIME-WAIT follows
    /// when it comes.
    FinWait2,
    /// The peer's FIN had come: TIME-WAIT.
    TimeWait,
}

impl Substate {
    /// Name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FinWait2 => TcpState::FinWait2.name(),
            Self::TimeWait => TcpState::TimeWait.name(),
        }
    }

    /// The substate of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::FinWait2, Self::TimeWait].into_iter().find(|substate| substate.name() == name)
    }
}

/// Why a socket left the time-wait table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Its time was over.
    Expired,
    /// A connect() took its port over (`tcp_tw_reuse`; the kernel counts `TWRecycled`).
    Reused,
    /// Neither: a reset, a SYN for a new incarnation, `ss -K`, the end of its namespace.
    Killed,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Reused, Self::Killed];

    /// Name in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Reused => "reused",
            Self::Killed => "killed",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What a transition to or from TIME-WAIT has to tell beyond its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passage {
    /// `... -> time_wait`.
    Entered(Substate),
    /// `time_wait -> close`.
    Left(Reason),
}

impl Passage {
    /// What a record tells; `None` for all other transitions.
    ///
    /// A cancelled timer of which nothing else was told is a socket that was killed.
    #[must_use]
    pub const fn from_record(record: &Transition) -> Option<Self> {
        if record.new == TcpState::TimeWait.number() {
            let early = record.flags & flags::SUBSTATE_FIN_WAIT2 != 0;
            return Some(Self::Entered(if early {
                Substate::FinWait2
            } else {
                Substate::TimeWait
            }));
        }
        if !is_exit(record) {
            return None;
        }
        Some(Self::Left(match Ending::from_flags(record.flags) {
            Ending::Expired => Reason::Expired,
            Ending::Reused => Reason::Reused,
            Ending::Cancelled | Ending::Rearmed => Reason::Killed,
        }))
    }

    /// The substate, where a socket entered.
    #[must_use]
    pub const fn substate(self) -> Option<Substate> {
        match self {
            Self::Entered(substate) => Some(substate),
            Self::Left(_) => None,
        }
    }

    /// The reason, where a socket left.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Left(reason) => Some(reason),
            Self::Entered(_) => None,
        }
    }
}

/// Whether a record is about the end of a time-wait socket.
#[must_use]
pub const fn is_exit(record: &Transition) -> bool {
    record.old == TcpState::TimeWait.number()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(old: TcpState, new: TcpState, flags: u8) -> Option<Passage> {
        Passage::from_record(&crate::model::event::tests::record_of(old, new, flags))
    }

    #[test]
    fn flags_mean_something_on_the_edges_of_time_wait_alone() {
        use TcpState::{Close, FinWait1, FinWait2, TimeWait};
        let early = flags::SUBSTATE_FIN_WAIT2;
        let entered = |substate| Some(Passage::Entered(substate));
        let left = |reason| Some(Passage::Left(reason));
        for (old, new, bits, expected) in [
            (FinWait2, TimeWait, early, entered(Substate::FinWait2)),
            (FinWait2, TimeWait, flags::ACTIVE, entered(Substate::TimeWait)),
            (TimeWait, Close, Ending::Expired.flags(), left(Reason::Expired)),
            (TimeWait, Close, Ending::Reused.flags() | flags::ACTIVE, left(Reason::Reused)),
            (TimeWait, Close, Ending::Cancelled.flags(), left(Reason::Killed)),
            (FinWait1, FinWait2, 0, None),
            (FinWait2, Close, early, None),
        ] {
            assert_eq!(passage(old, new, bits), expected, "{old:?} {new:?} {bits}");
        }
    }

    #[test]
    fn names_round_trip() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
        for substate in [Substate::FinWait2, Substate::TimeWait] {
            assert_eq!(Substate::from_name(substate.name()), Some(substate));
        }
        assert_eq!((Reason::from_name("lost"), Substate::from_name("close")), (None, None));
    }
}
