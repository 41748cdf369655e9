//! The recipes: what can be made to happen, under names for the command line and for tests.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A course of events that the lab can bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// The client closes first; its port goes to `TIME_WAIT`.
    ClientFirst,
    /// The server closes first; its side goes to `TIME_WAIT`.
    ServerFirst,
    /// Both ends close at once, their FINs cross: CLOSING on both sides.
    SimultaneousClose,
    /// Both ends connect to each other at once, their SYNs cross; nobody listens.
    SimultaneousOpen,
    /// The client shuts down its sending half, receives more data, and only then is closed.
    HalfClose,
    /// The client aborts with a reset (`SO_LINGER` 0).
    ResetByClient,
    /// The server aborts with a reset (`SO_LINGER` 0).
    ResetByServer,
    /// The server closes with unread data, which the kernel answers with a reset.
    ResetUnread,
    /// The client connects to a port where nobody listens.
    Refused,
    /// `connect()` fails for want of a local port (EADDRNOTAVAIL).
    Exhausted,
    /// A non-blocking `connect()` fails for want of a local port.
    ExhaustedNonblocking,
    /// An `io_uring` connect fails for want of a local port.
    ExhaustedIoUring,
    /// One listener inherited by three forked workers, each of which accepts.
    Prefork,
    /// Three processes share one port, each with a listener of its own (`SO_REUSEPORT`).
    Reuseport,
    /// `tcp_tw_reuse` 0: `connect()` takes over no time-wait port, however old, and finds none.
    ReuseOff,
    /// `tcp_tw_reuse` 1: `connect()` takes over time-wait ports older than a second.
    ReuseOn,
    /// The same between two namespaces.
    ReuseOnWire,
    /// `tcp_tw_reuse` 2, the default: `connect()` takes over the time-wait ports of loopback.
    ReuseLoopback,
    /// The same between two namespaces: it takes over none, and finds none.
    ReuseLoopbackOnWire,
    /// The server closes first, and the same client port connects again: its SYN ends the server's
    /// `TIME_WAIT`.
    NewIncarnation,
    /// `tcp_fin_timeout` 1: the peer's FIN does not come, and the socket is gone after a second.
    FinTimeoutShort,
    /// `tcp_fin_timeout` 60, the default: the peer's FIN comes late, but in time.
    FinTimeoutLong,
    /// `tcp_max_tw_buckets` 100: who finds the time-wait table full is closed at once.
    TableFull,
    /// A duplicate reaches a socket in `TIME_WAIT`, whose answer is met with a reset: it is ended
    /// (TIME-WAIT assassination, RFC 1337).
    ResetInTimeWait,
    /// The client has closed, and the server still sends: the client resets, and has no
    /// `TIME_WAIT` any more.
    DataAfterClose,
    /// The client has closed, the server's host forgets the connection and connects back: the
    /// client's side is reset.
    SynAfterClose,
    /// Sockets in the time-wait table are destroyed from outside, as `ss -K` does.
    Destroyed,
    /// A namespace that holds time-wait sockets is removed.
    NamespaceRemoved,
    /// Load: connect, accept, close, close, as fast as one thread can.
    Churn,
    /// Load: many `TIME_WAIT` sockets of one process, which remain until they expire.
    TimeWait,
    /// Load: three services leave N, 2 N and 3 N `TIME_WAIT` sockets: one that exits, one in
    /// another namespace, one a server that closes first.
    ThreeServices,
}

impl Recipe {
    /// All recipes, in the order of the list that `cargo xtask lab` prints.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// One sentence: what happens.
    pub fn about(self) -> String {
        let value = self.to_possible_value();
        let help = value.and_then(|value| value.get_help().map(ToString::to_string));
        // The documentation's marks mean nothing on a terminal.
        help.unwrap_or_default().replace('`', "")
    }

    /// What `--connections` means where it is not given.
    pub fn default_connections(self) -> u64 {
        match self {
            Self::Exhausted | Self::ExhaustedNonblocking | Self::ExhaustedIoUring => 10,
            Self::Prefork | Self::Reuseport => 6,
            Self::Churn => 150_000,
            Self::TimeWait | Self::ThreeServices => 10_000,
            Self::TableFull => 120,
            Self::ReuseOff
            | Self::ReuseOn
            | Self::ReuseOnWire
            | Self::ReuseLoopback
            | Self::ReuseLoopbackOnWire
            | Self::FinTimeoutShort
            | Self::FinTimeoutLong
            | Self::Destroyed
            | Self::NamespaceRemoved => 4,
            _ => 1,
        }
    }

    /// A load, told by totals alone; the other recipes tell every socket.
    pub fn is_load(self) -> bool {
        matches!(self, Self::Churn | Self::TimeWait | Self::ThreeServices)
    }

    /// Client and server sit in namespaces of their own, with a wire between them that can hold
    /// packets back.
    pub fn needs_wire(self) -> bool {
        matches!(
            self,
            Self::SimultaneousClose
                | Self::SimultaneousOpen
                | Self::ReuseOnWire
                | Self::ReuseLoopbackOnWire
                | Self::ResetInTimeWait
                | Self::SynAfterClose
        )
    }

    /// It uses fixed ports, which wait a minute afterwards: once in a lab is all.
    pub fn is_once_only(self) -> bool {
        matches!(self, Self::SimultaneousOpen)
    }
}

/// The addresses that the sockets of a recipe use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addresses {
    /// `AF_INET`.
    #[default]
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
    /// `AF_INET6` sockets with IPv4-mapped addresses: IPv4 on the wire.
    Ipv4Mapped,
}

impl Addresses {
    /// The family of the sockets: `AF_INET6` ones with IPv4-mapped addresses are IPv6 sockets.
    pub fn family(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 | Self::Ipv4Mapped => "ipv6",
        }
    }
}

/// How a connect is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectBy {
    /// `connect()` on a blocking socket.
    #[default]
    Blocking,
    /// `connect()` on a non-blocking socket, then `poll()`.
    Nonblocking,
    /// `IORING_OP_CONNECT`.
    IoUring,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_has_a_name_and_a_description() {
        for recipe in Recipe::all() {
            assert!(!recipe.name().is_empty());
            assert!(!recipe.about().is_empty(), "{recipe:?}");
            assert_eq!(Recipe::from_str(&recipe.name(), false), Ok(*recipe));
        }
    }
}
