//! What the probes on timers count of time-wait sockets.
//!
//! Every socket in the time-wait table lives by its `tw_timer`: it is there from the timer's start
//! until the timer is cancelled, and the kernel reports both
//! (`inet_twsk_schedule()` and `inet_twsk_deschedule_put()` in net/ipv4/inet_timewait_sock.c).

use crate::{maps::ServiceKey, socket::Socket};

/// Per-CPU counts of one network namespace, by the inode number of which they are kept.
///
/// A timer that is set anew reports a cancellation and a start; those are counted apart, so that
/// `started - rearmed` sockets have entered the table and `cancelled - rearmed` have left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TimeWaits {
    /// Which namespace of that number they are of: its cookie, not used again until reboot
    /// (`net_cookie` of `struct net`); 0 where nothing was counted.
    pub net_cookie: u64,
    /// Starts of a timer, those that set it anew included.
    pub started: u64,
    /// Cancellations, those that set it anew and those by expiry included.
    pub cancelled: u64,
    /// Timers set anew: each is one of `started` and one of `cancelled`.
    pub rearmed: u64,
    /// Timers that expired.
    pub expired: u64,
    /// Sockets that a connect() took over.
    pub reused: u64,
    /// Sockets that left in any other way: reset, taken over by a SYN, destroyed by `ss -K` or with
    /// their namespace. Counted when the next time-wait socket of the same CPU shows that nothing
    /// else became of them: see [`Departure`].
    pub killed: u64,
    /// Of those that entered, the ones for whose owner there was no room: see [`EnteredKey`].
    pub nameless: u64,
}

impl TimeWaits {
    /// Sockets that entered the time-wait table.
    #[must_use]
    pub const fn entered(&self) -> u64 {
        self.started.saturating_sub(self.rearmed)
    }

    /// Sockets that entered since the counting began less those that left: negative where more of
    /// the older ones left than new ones came.
    #[must_use]
    pub const fn balance(&self) -> i64 {
        self.started.wrapping_sub(self.cancelled).cast_signed()
    }

    /// Adds what another CPU counted of the same namespace.
    pub const fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.cancelled += other.cancelled;
        self.rearmed += other.rearmed;
        self.expired += other.expired;
        self.reused += other.reused;
        self.killed += other.killed;
        self.nameless += other.nameless;
    }
}

/// Key of the map that counts who puts sockets into the time-wait table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct EnteredKey {
    /// Whose sockets they are.
    pub service: ServiceKey,
    /// Cookie of the network namespace.
    pub net_cookie: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Zero.
    pub reserved: u32,
}

/// The time-wait socket whose timer was cancelled last on a CPU: the next event there says what
/// became of it. Until then it is in no count; if nothing has come for a moment, it was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Departure {
    /// Its address; 0: none, or what became of it has been counted. Compared, never followed.
    pub address: u64,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub ts_ns: u64,
    /// Its cookie.
    pub cookie: u64,
    /// Cookie of its network namespace.
    pub net_cookie: u64,
    /// Address of the socket that a connect() took over last: its timer may expire meanwhile.
    pub reused: u64,
    /// How long it was there, in nanoseconds, or [`crate::DURATION_UNKNOWN`].
    pub duration_ns: u64,
    /// What was kept of it; meaningless unless `kept` is set.
    pub socket: Socket,
    /// Inode of its network namespace.
    pub netns: u32,
    /// [`crate::Family`] as a number.
    pub family: u8,
    /// 1: the table of sockets had it.
    pub kept: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl Departure {
    /// Whether it is in no count yet.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.address != 0
    }
}

/// What the daemon asks of the probe that learns a timer's function, and the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Learnt {
    /// Cookie of the socket whose timer is to be learnt from.
    pub cookie: u64,
    /// Address of the function that its timer calls; 0: not learnt yet.
    pub function: u64,
}

/// Ways out of the time-wait table, as bits of a record `time_wait -> close`
/// ([`crate::flags::ENDING`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// The timer was cancelled. What comes next on the same CPU says whether it expired or was set
    /// anew; if neither, the socket was killed.
    Cancelled = 0,
    /// The timer that was cancelled just now has expired.
    Expired = 1,
    /// A connect() took the port over; nothing follows.
    Reused = 2,
    /// The timer that was cancelled just now was set anew: the socket is still there.
    Rearmed = 3,
}

impl Ending {
    /// From a record's flags.
    #[must_use]
    pub const fn from_flags(flags: u8) -> Self {
        match flags >> crate::flags::ENDING_SHIFT {
            0 => Self::Cancelled,
            1 => Self::Expired,
            2 => Self::Reused,
            _ => Self::Rearmed,
        }
    }

    /// As bits of a record's flags.
    #[must_use]
    pub const fn flags(self) -> u8 {
        (self as u8) << crate::flags::ENDING_SHIFT
    }
}

const _: () = {
    assert!(size_of::<TimeWaits>() == 64);
    assert!(size_of::<EnteredKey>() == 48);
    assert!(core::mem::offset_of!(EnteredKey, netns) == 40);
    assert!(size_of::<Learnt>() == 16);
    assert!(size_of::<Departure>() == 112);
    assert!(core::mem::offset_of!(Departure, netns) == 104);
};

#[cfg(feature = "user")]
crate::pod!(TimeWaits, Learnt, EnteredKey, Departure);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_set_anew_is_neither_an_entry_nor_an_exit() {
        let counts = TimeWaits { started: 12, cancelled: 9, rearmed: 2, ..TimeWaits::default() };
        assert_eq!((counts.entered(), counts.balance()), (10, 3));
        let older = TimeWaits { cancelled: 5, expired: 5, ..TimeWaits::default() };
        assert_eq!((older.entered(), older.balance()), (0, -5));
    }

    #[test]
    fn endings_fit_beside_the_other_flags() {
        for ending in [Ending::Cancelled, Ending::Expired, Ending::Reused, Ending::Rearmed] {
            let others = !crate::flags::ENDING;
            assert_eq!(ending.flags() & others, 0);
            assert_eq!(Ending::from_flags(ending.flags() | others), ending);
        }
    }
}
