//! The kernel's TCP states.

/// Length of a table with one place for each state number, the unused 0 included.
///
/// Sixteen rather than thirteen, so that masking a number with `STATE_COUNT - 1` proves to the
/// BPF verifier that it stays inside such a table.
pub const STATE_COUNT: usize = 16;

/// A TCP state, numbered as the kernel numbers it (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Data flows both ways (RFC 9293, ESTABLISHED).
    Established = 1,
    /// SYN sent, answer awaited (SYN-SENT).
    SynSent = 2,
    /// SYN received and answered, its ACK awaited (SYN-RECEIVED).
    SynRecv = 3,
    /// We closed first, our FIN is not acknowledged yet (FIN-WAIT-1).
    FinWait1 = 4,
    /// Our FIN is acknowledged, the peer's FIN is awaited (FIN-WAIT-2).
    FinWait2 = 5,
    /// Both FINs are done, late segments are waited out (TIME-WAIT).
    TimeWait = 6,
    /// No connection (CLOSED).
    Close = 7,
    /// The peer closed, our application has not (CLOSE-WAIT).
    CloseWait = 8,
    /// The peer closed first, our FIN awaits its ACK (LAST-ACK).
    LastAck = 9,
    /// Waiting for connections (LISTEN).
    Listen = 10,
    /// Both closed at once, our FIN is not acknowledged yet (CLOSING).
    Closing = 11,
    /// A request socket in SYN-RECEIVED, before the full socket exists.
    NewSynRecv = 12,
    /// Bound but neither listening nor connected; a pseudo-state of diagnostics since Linux 6.8.
    BoundInactive = 13,
}

impl TcpState {
    /// Every state, in the order of the kernel's numbers.
    pub const ALL: [Self; 13] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::NewSynRecv,
        Self::BoundInactive,
    ];

    /// The state with the kernel's number `number`; `None` outside 1 to 13.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if number == 0 || number as usize > Self::ALL.len() {
            return None;
        }
        Some(Self::ALL[number as usize - 1])
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Lower-case name, as in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::NewSynRecv => "new_syn_recv",
            Self::BoundInactive => "bound_inactive",
        }
    }

    /// The state of that lower-case name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_round_trip() {
        for number in 0..=u8::MAX {
            match TcpState::from_number(number) {
                Some(state) => {
                    assert_eq!(state.number(), number);
                    assert_eq!(TcpState::from_name(state.name()), Some(state));
                }
                None => assert!(number == 0 || number > 13),
            }
        }
    }
}
