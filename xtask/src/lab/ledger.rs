//! The kernel's own account of the time-wait sockets of a namespace: what a recipe changes can be
//! held against it at every step.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use tcpmon_common::TcpState;

use super::error::{LabError, Result};
use super::expectation::Namespace;
use super::netns;
use super::table::{entries, field};

/// What the kernel counts in one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Sockets in the time-wait table now, the substate `FIN_WAIT2` included (`tw` in
    /// /proc/net/sockstat).
    pub level: u64,
    /// Sockets that entered for more than 4 s (`TW` in /proc/net/netstat; `__inet_twsk_schedule()`,
    /// net/ipv4/inet_timewait_sock.c).
    pub entered_long: u64,
    /// Sockets that entered for 4 s or less (`TWKilled`; the same function).
    pub entered_short: u64,
    /// Sockets whose port a `connect()` took over (`TWRecycled`; `__inet_check_established()`,
    /// net/ipv4/inet_hashtables.c).
    pub recycled: u64,
    /// Sockets that found the table full (`TCPTimeWaitOverflow`; `tcp_time_wait()`,
    /// net/ipv4/tcp_minisocks.c).
    pub overflowed: u64,
}

impl Ledger {
    /// Reads it.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let name = &namespace.name;
        netns::inside(name, || {
            // The text of one file is not of one moment: what matters is read at rest.
            let [sockstat, netstat] = ["sockstat", "netstat"].map(file);
            Ok(Self::parse(&sockstat?, &netstat?))
        })
        .map_err(LabError::io(format!("read the kernel's counters in {name}")))
    }

    /// All that entered.
    pub fn entered(&self) -> u64 {
        self.entered_long + self.entered_short
    }

    fn parse(sockstat: &str, netstat: &str) -> Self {
        let counter = |name| counter(netstat, name).unwrap_or(0);
        Self {
            level: field(sockstat, "TCP:", "tw").unwrap_or(0),
            entered_long: counter("TW"),
            entered_short: counter("TWKilled"),
            recycled: counter("TWRecycled"),
            overflowed: counter("TCPTimeWaitOverflow"),
        }
    }
}

/// The states in which the kernel lists the sockets of one namespace that time-wait is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Sockets in true `TIME_WAIT`, as `ss state time-wait` lists them (/proc/net/tcp, tcp6).
    pub time_wait: u64,
    /// Sockets in `FIN_WAIT2`, full ones and those in the time-wait table, as
    /// `ss state fin-wait-2` lists them.
    pub fin_wait2: u64,
}

impl Listing {
    /// Reads every line of the kernel's tables, which takes milliseconds however empty they are.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let name = &namespace.name;
        // No such file without IPv6.
        netns::inside(name, || Ok((file("tcp")?, file("tcp6").unwrap_or_default())))
            .map(|(tcp, tcp6)| Self::parse(&tcp, &tcp6))
            .map_err(LabError::io(format!("read the kernel's table of sockets in {name}")))
    }

    fn parse(tcp: &str, tcp6: &str) -> Self {
        let all: Vec<_> = entries(tcp).into_iter().chain(entries(tcp6)).collect();
        let count = |state| all.iter().filter(|entry| entry.state == state).count();
        let [time_wait, fin_wait2] = [TcpState::TimeWait, TcpState::FinWait2]
            .map(|state| u64::try_from(count(state)).unwrap_or(u64::MAX));
        Self { time_wait, fin_wait2 }
    }
}

/// A moment of a recipe at which nothing happens, and the ledgers of its namespaces then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What has been done.
    pub what: String,
    /// One for each namespace of the recipe.
    pub ledgers: Vec<(Namespace, Ledger)>,
}

impl Checkpoint {
    /// Reads the ledgers of `namespaces`.
    pub(super) fn of(what: &str, namespaces: &[Namespace]) -> Result<Self> {
        let ledger = |netns: &Namespace| Ok((netns.clone(), Ledger::of(netns)?));
        let ledgers = namespaces.iter().map(ledger).collect::<Result<_>>()?;
        Ok(Self { what: what.to_owned(), ledgers })
    }
}

/// A file of the calling thread's namespace: `/proc/net` is that of the process.
fn file(name: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/thread-self/net/{name}"))
}

/// A counter of /proc/net/netstat: lines come in pairs, names and values (`netstat_seq_show()`,
/// net/ipv4/proc.c).
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = netstat.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let place = pair[0].split_whitespace().position(|word| word == name)?;
        pair[1].split_whitespace().nth(place)?.parse().ok()
    })
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const SOCKSTAT: &str = "sockets: used 5\nTCP: inuse 2 orphan 0 tw 41 alloc 3 mem 1\n";
    const NETSTAT: &str = "TcpExt: SyncookiesSent TW TWRecycled TWKilled TCPTimeWaitOverflow\n\
                           TcpExt: 0 7 3 5 2\nIpExt: InNoRoutes TW\nIpExt: 0 99\n";
    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n\
        0: 0100007F:D431 0100007F:4E20 05 00000000:00000000 03:00001766 00000000 0 0 0 3 0\n\
        1: 0100007F:D432 0100007F:4E20 06 00000000:00000000 03:00001766 00000000 0 0 0 3 0\n\
        2: 0100007F:D433 0100007F:4E20 05 00000000:00000000 02:00001766 00000000 0 0 0 3 0\n\
        3: 0100007F:D434 0100007F:4E20 01 00000000:00000000 00:00000000 00000000 0 0 0 3 0\n";

    #[test]
    fn the_kernels_texts_are_read() {
        let told = Ledger::parse(SOCKSTAT, NETSTAT);
        let wanted =
            Ledger { level: 41, entered_long: 7, entered_short: 5, recycled: 3, overflowed: 2 };
        assert_eq!(told, wanted);
        assert_eq!(told.entered(), 12);
        assert_eq!(Listing::parse(TCP, ""), Listing { time_wait: 1, fin_wait2: 2 });
    }

    #[test]
    fn what_is_not_there_is_nought() {
        assert_eq!(Ledger::parse("", ""), Ledger::default());
        assert_eq!(counter("TcpExt: TW\nTcpExt:\n", "TW"), None);
    }
}
