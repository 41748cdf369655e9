//! The kernel's own table of TCP sockets (`/proc/PID/net/tcp` and `tcp6`): what a recipe waits on
//! before its next step.
//!
//! Only the kernel knows when a FIN's ACK has come, and it tells no event for it that an outsider
//! could wait for: so this is polled, within a bound.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use tcpmon_common::TcpState;

use super::error::{LabError, Result};
use super::puppet::STEP;
use super::socket::Substate;

/// Between two looks: far shorter than any timer of TCP.
const PAUSE: Duration = Duration::from_micros(200);

/// The unit of the column `tm->when`: `USER_HZ` is 100 on every architecture but Alpha and Itanium
/// (`include/asm-generic/param.h`).
const TICK: Duration = Duration::from_millis(10);
/// How long a time-wait socket stays (`TCP_TIMEWAIT_LEN`, `include/net/tcp.h`).
const TIME_WAIT_LENGTH: Duration = Duration::from_mins(1);
/// How long until `connect()` may take its port over: a second (`tcp_tw_reuse_delay`; before it
/// came in Linux 6.14, the next second of the clock). With a margin for the ticks of the timer.
const REUSABLE_AFTER: Duration = Duration::from_millis(1100);
/// The column `tr` of a time-wait socket (`get_timewait4_sock()`, `net/ipv4/tcp_ipv4.c`).
const TIME_WAIT_TIMER: u8 = 3;
/// The column `tr` of a full socket whose keepalive timer runs (`get_tcp4_sock()`).
const KEEPALIVE_TIMER: u8 = 2;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// For a time-wait socket: its substate.
    pub(super) state: TcpState,
    /// Which timer runs: the column `tr`.
    pub(super) timer: u8,
    /// When it fires: the column `tm->when`.
    pub(super) remaining: Duration,
}

impl Entry {
    pub(super) fn is_time_wait(&self) -> bool {
        self.timer == TIME_WAIT_TIMER
    }
}

/// The table of the namespace that the process `pid` is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pid: u32,
}

impl Table {
    pub(super) fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// Waits until the socket is a full one in `state`.
    pub(super) fn await_state(
        self,
        local: SocketAddr,
        remote: SocketAddr,
        state: TcpState,
    ) -> Result<()> {
        self.wait(local, remote, &format!("in {}", state.name()), |entry| {
            entry.filter(|entry| !entry.is_time_wait() && entry.state == state).map(|_| ())
        })
    }

    /// Waits until a socket that was closed first has the ACK of its FIN, and returns how it goes,
    /// or will go, into the time-wait table.
    ///
    /// Mostly it is there now, as `FIN_WAIT2`. But when the ACK comes between the last look of
    /// `__tcp_close()` at the backlog and `release_sock()` (on another CPU, say), then
    /// `tcp_rcv_state_process()` leaves the full socket in `FIN_WAIT2` under its keepalive timer,
    /// and it goes into the table with the peer's FIN.
    pub(super) fn await_closed_first(
        self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Substate> {
        self.wait(local, remote, "in FIN_WAIT2, closed", |entry| entry.and_then(closed_first))
    }

    /// As [`Self::await_closed_first`]; `None` if nothing is left of it, because the time-wait
    /// table was full.
    pub(super) fn await_closed_first_or_gone(
        self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<Substate>> {
        self.wait(local, remote, "in FIN_WAIT2, closed, or gone", |entry| match entry {
            None => Some(None),
            Some(entry) => closed_first(entry).map(Some),
        })
    }

    /// Waits until there is a time-wait socket in its place, promoted to `TIME_WAIT`.
    pub(super) fn await_time_wait(self, local: SocketAddr, remote: SocketAddr) -> Result<()> {
        self.wait(local, remote, "in TIME_WAIT", |entry| {
            let waits = |entry: &&Entry| entry.is_time_wait() && entry.state == TcpState::TimeWait;
            entry.filter(waits).map(|_| ())
        })
    }

    /// Waits until the socket is in `TIME_WAIT`, or gone; tells whether it is in `TIME_WAIT`.
    pub(super) fn await_time_wait_or_gone(
        self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<bool> {
        self.wait(local, remote, "in TIME_WAIT or gone", |entry| match entry {
            None => Some(false),
            Some(entry) if entry.is_time_wait() && entry.state == TcpState::TimeWait => Some(true),
            Some(_) => None,
        })
    }

    /// Waits until the socket, which is in `TIME_WAIT`, is so old that `connect()` may take its
    /// port over. The kernel tells how long it has still to live.
    pub(super) fn await_reusable(self, local: SocketAddr, remote: SocketAddr) -> Result<()> {
        loop {
            let remaining = self.wait(local, remote, "in TIME_WAIT", |entry| {
                entry.filter(|entry| entry.is_time_wait()).map(|entry| entry.remaining)
            })?;
            let young = (remaining + REUSABLE_AFTER).saturating_sub(TIME_WAIT_LENGTH);
            if young.is_zero() {
                return Ok(());
            }
            thread::sleep(young);
        }
    }

    /// Waits until nothing is left of the socket.
    pub(super) fn await_gone(self, local: SocketAddr, remote: SocketAddr) -> Result<()> {
        self.wait(local, remote, "gone", |entry| entry.is_none().then_some(()))
    }

    /// Looks until `reached` finds what it looks for.
    fn wait<T>(
        self,
        local: SocketAddr,
        remote: SocketAddr,
        what: &str,
        reached: impl Fn(Option<&Entry>) -> Option<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            let entries = self.read(local.is_ipv6())?;
            let entry = entries.iter().find(|entry| entry.local == local && entry.remote == remote);
            if let Some(found) = reached(entry) {
                return Ok(found);
            }
            if begun.elapsed() > STEP {
                return Err(LabError::Timeout {
                    what: format!("the socket {local} -> {remote} to be {what}"),
                    waited: STEP,
                    seen: match entry {
                        Some(entry) => format!("it is {entry:?}"),
                        None => "it is not in the kernel's table".into(),
                    },
                });
            }
            thread::sleep(PAUSE);
        }
    }

    fn read(self, ipv6: bool) -> Result<Vec<Entry>> {
        Ok(entries(&self.file(if ipv6 { "tcp6" } else { "tcp" })?))
    }

    fn file(self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/net/{name}", self.pid);
        fs::read_to_string(&path).map_err(LabError::io(format!("read {path}")))
    }

    /// Waits until no full TCP socket is left in the namespace, and returns how many time-wait
    /// sockets there are then.
    pub(super) fn await_only_time_wait(self) -> Result<u64> {
        let begun = Instant::now();
        loop {
            let sockstat = self.file("sockstat")?;
            // No such file without IPv6.
            let sockstat6 = self.file("sockstat6").unwrap_or_default();
            let live = field(&sockstat, "TCP:", "inuse").unwrap_or(0)
                + field(&sockstat6, "TCP6:", "inuse").unwrap_or(0);
            if live == 0 {
                return Ok(field(&sockstat, "TCP:", "tw").unwrap_or(0));
            }
            if begun.elapsed() > STEP {
                return Err(LabError::Timeout {
                    what: "the last socket of the load to close".into(),
                    waited: STEP,
                    seen: format!("{live} are in use"),
                });
            }
            thread::sleep(PAUSE);
        }
    }
}

/// How a socket that was closed first goes into the time-wait table; `None` while its FIN has no
/// ACK.
fn closed_first(entry: &Entry) -> Option<Substate> {
    match (entry.state, entry.timer) {
        (TcpState::FinWait2, TIME_WAIT_TIMER) => Some(Substate::FinWait2),
        (TcpState::FinWait2, KEEPALIVE_TIMER) => Some(Substate::TimeWait),
        _ => None,
    }
}

/// The sockets in the text of such a table.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

/// The number after `name` in the line that begins with `line`.
pub(super) fn field(text: &str, line: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|candidate| candidate.starts_with(line))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when ...`; `None` for the heading.
fn parse_line(line: &str) -> Option<Entry> {
    let mut columns = line.split_whitespace().skip(1);
    let local = parse_address(columns.next()?)?;
    let remote = parse_address(columns.next()?)?;
    let state = TcpState::from_number(u8::from_str_radix(columns.next()?, 16).ok()?)?;
    let (timer, when) = columns.nth(1)?.split_once(':')?;
    let timer = u8::from_str_radix(timer, 16).ok()?;
    // A time that has passed may be told as a negative one, of 64 bits.
    let ticks = u64::from_str_radix(when, 16).ok().and_then(|ticks| u32::try_from(ticks).ok());
    let remaining = TICK.saturating_mul(ticks.unwrap_or(0));
    Some(Entry { local, remote, state, timer, remaining })
}

/// Addresses are 32-bit words in the machine's byte order, in hexadecimal digits.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    let words = address.len() / 8;
    for (place, word) in bytes.chunks_exact_mut(4).zip(0..words) {
        let digits = address.get(word * 8..word * 8 + 8)?;
        place.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match (words, address.len() % 8) {
        (1, 0) => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        (4, 0) => Ipv6Addr::from(bytes).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_families_and_of_time_wait_sockets() {
        let live = "   1: 0100007F:4E20 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 31245 1 0000000000000000 20 4 30 10 -1";
        let entry = parse_line(live).expect("a line");
        assert_eq!(entry.local, "127.0.0.1:20000".parse().expect("address"));
        assert_eq!(entry.remote, "127.0.0.1:54321".parse().expect("address"));
        assert_eq!((entry.state, entry.timer), (TcpState::Established, 0));

        let waiting = "   2: 0100007F:D431 0100007F:4E20 05 00000000:00000000 03:00001766 00000000     0        0 0 3 0000000000000000";
        let entry = parse_line(waiting).expect("a line");
        assert_eq!((entry.state, entry.is_time_wait()), (TcpState::FinWait2, true));
        assert_eq!(entry.remaining, Duration::from_millis(59_900));

        let six = "   0: 0000000000000000FFFF00000100007F:0050 00000000000000000000000001000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0";
        let entry = parse_line(six).expect("a line");
        assert_eq!(entry.local, "[::ffff:127.0.0.1]:80".parse().expect("address"));
        assert_eq!(entry.remote, "[::1]:0".parse().expect("address"));
        assert_eq!(entry.state, TcpState::Listen);
    }

    #[test]
    fn what_is_no_socket_is_none() {
        for line in [
            "",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid",
            "0: 0100007F:4E20",
            "0: 0100007:4E20 0100007F:D431 01 0:0 00:0",
            "0: 0100007F:4E20 0100007F:D431 63 0:0 00:0",
        ] {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }

    #[test]
    fn fields_of_sockstat() {
        let text = "sockets: used 5\nTCP: inuse 2 orphan 0 tw 41 alloc 3 mem 1\nUDP: inuse 7\n";
        assert_eq!(field(text, "TCP:", "inuse"), Some(2));
        assert_eq!(field(text, "TCP:", "tw"), Some(41));
        assert_eq!(field(text, "TCP6:", "inuse"), None);
        assert_eq!(field(text, "UDP:", "tw"), None);
    }
}
