//! What is known of each state, in words.
//!
//! Facts about Linux are those of `net/ipv4/tcp_input.c` (`tcp_rcv_state_process`), `tcp.c`
//! (`__tcp_close`), `tcp_minisocks.c` (`tcp_time_wait`), `tcp_timer.c` and
//! `Documentation/networking/ip-sysctl.rst`; those about the protocol RFC 9293's.

use tcpmon_common::TcpState;

/// Which side the common lists, ours too once, put a state on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Client,
    Server,
    Shared,
    /// Not in those lists.
    None,
}

/// What is known of one state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lore {
    pub(super) state: TcpState,
    /// RFC 9293's word, or what it is instead.
    pub(super) rfc: &'static str,
    /// What `ss` shows.
    pub(super) ss: &'static str,
    /// In one line.
    pub(super) about: &'static str,
    /// Who enters it.
    pub(super) who: &'static str,
    /// Which side the common lists put it on.
    pub(super) view: View,
    /// In what way that is loose; empty: in none.
    pub(super) loose: &'static str,
    /// How it is entered.
    pub(super) entered: &'static [&'static str],
    /// How it is left.
    pub(super) left: &'static [&'static str],
    /// How long it lasts.
    pub(super) lasts: &'static str,
    /// What many of them mean.
    pub(super) many: &'static str,
    /// What to do, and why.
    pub(super) mend: &'static [&'static str],
    /// What not to do.
    pub(super) avoid: &'static [&'static str],
    /// Commands, and what they show or do.
    pub(super) commands: &'static [(&'static str, &'static str)],
    /// Sysctls that matter, as `tcpmon_sysctl` names them.
    pub(super) sysctls: &'static [&'static str],
}

const EMPTY: Lore = Lore {
    state: TcpState::Close,
    rfc: "",
    ss: "",
    about: "",
    who: "",
    view: View::None,
    loose: "",
    entered: &[],
    left: &[],
    lasts: "",
    many: "",
    mend: &[],
    avoid: &[],
    commands: &[],
    sysctls: &[],
};

/// What is known of `state`.
pub(super) fn of(state: TcpState) -> &'static Lore {
    &ALL[usize::from(state.number()) - 1]
}

/// Every state, in the order of the kernel's numbers.
pub(super) static ALL: [Lore; 13] = [
    Lore {
        state: TcpState::Established,
        rfc: "ESTABLISHED",
        ss: "ESTAB",
        about: "Open: data flows both ways.",
        who: "both ends",
        view: View::Shared,
        entered: &[
            "The end that connects: when the SYN+ACK comes.",
            "The end that accepts: when the ACK of its SYN+ACK comes, whether the program has \
             called accept() yet or not.",
        ],
        left: &[
            "FIN_WAIT1 if this end closes first, CLOSE_WAIT if the other does, CLOSE on a reset.",
        ],
        lasts: "As long as both ends want. A peer that has vanished is noticed only when something \
                is sent, or by keepalive, which a program must ask for (SO_KEEPALIVE; first probe \
                after tcp_keepalive_time, 2 hours).",
        many: "Normal for a busy service. At the end that connects each one holds a local port \
               towards its destination, as a socket in TIME_WAIT does. Many idle ones are a pool \
               that is too large, or peers that vanished.",
        mend: &[
            "Bound the pools of connections, and let idle ones end.",
            "Turn on keepalive, or TCP_USER_TIMEOUT, where peers can vanish.",
        ],
        commands: &[
            ("ss -tanp state established", "all of them, with processes and queues"),
            ("ss -tno state established", "with the timers that run; none: no keepalive"),
        ],
        ..EMPTY
    },
    Lore {
        state: TcpState::SynSent,
        rfc: "SYN-SENT",
        ss: "SYN-SENT",
        about: "SYN sent, the answer is awaited.",
        who: "the end that connects (active opener)",
        view: View::Client,
        loose: "Right, but for two ends that connect to each other at once: both are in it.",
        entered: &["From CLOSE, by connect()."],
        left: &[
            "ESTABLISHED when the SYN+ACK comes.",
            "CLOSE when a reset comes (ECONNREFUSED), when time is up (ETIMEDOUT), or when there \
             is no free local port (EADDRNOTAVAIL).",
            "SYN_RECV when only a SYN comes: simultaneous open.",
        ],
        lasts: "One round trip. Without an answer a little over two minutes: the SYN is sent again \
                tcp_syn_retries times, 6 by default. Programs mostly give up sooner.",
        many: "Somebody does not answer: a host that is down, a firewall that drops without a \
               word, a listener whose queue is full. Each holds a local port.",
        mend: &[
            "Find the destination that they have in common, and see whether SYNs arrive there.",
            "Give connect() a time limit in the program, and a pause between attempts.",
        ],
        commands: &[
            ("ss -tanp state syn-sent", "where to, and from which process"),
            ("nstat -az TcpExtTCPSynRetrans TcpAttemptFails", "SYNs sent again, attempts failed"),
            ("sysctl net.ipv4.tcp_syn_retries", "how often a SYN is sent again"),
        ],
        sysctls: &["tcp_syn_retries"],
        ..EMPTY
    },
    Lore {
        state: TcpState::SynRecv,
        rfc: "SYN-RECEIVED",
        ss: "SYN-RECV",
        about: "SYN received and answered, the last ACK is awaited.",
        who: "the end that accepts (passive opener); both ends if both connect at once",
        view: View::Server,
        loose: "Right, but for simultaneous open, which brings both ends here.",
        entered: &[
            "On Linux by way of NEW_SYN_RECV: the full socket is made when the last ACK comes.",
            "By TCP Fast Open, where data comes with the SYN.",
            "From SYN_SENT, when a SYN comes in place of a SYN+ACK (simultaneous open).",
        ],
        left: &["ESTABLISHED when the ACK comes, FIN_WAIT1 on close(), CLOSE on a reset."],
        lasts: "An instant, but for Fast Open and simultaneous open. What ss shows as SYN-RECV is \
                mostly in NEW_SYN_RECV, and lasts up to 63 s.",
        many: "See NEW_SYN_RECV: `tcpmon explain new_syn_recv`.",
        commands: &[("ss -tan state syn-recv", "these and those in NEW_SYN_RECV")],
        ..EMPTY
    },
    Lore {
        state: TcpState::FinWait1,
        rfc: "FIN-WAIT-1",
        ss: "FIN-WAIT-1",
        about: "Closed by this end first; its FIN is not acknowledged yet.",
        who: "the end that closes first (active closer)",
        view: View::Client,
        loose: "It is the end that closes first, client or server; if both close at once, both.",
        entered: &["From ESTABLISHED, by close(), shutdown(SHUT_WR) or the end of the process."],
        left: &[
            "FIN_WAIT2 when the FIN is acknowledged.",
            "CLOSING when the peer's FIN comes and does not acknowledge ours.",
            "TIME_WAIT when the peer's FIN comes and acknowledges ours in the same segment.",
        ],
        lasts: "One round trip. The FIN goes out behind all data that is still unsent, so a peer \
                that does not read keeps the socket here. Without any answer, after close(), until \
                tcp_orphan_retries is used up (8 times, which is written as 0: some minutes).",
        many: "Peers vanish without a word, or do not read what was sent. Nobody owns these \
               sockets any more, but they keep their send buffers: memory.",
        mend: &[
            "See by Send-Q whether data is stuck (the peer does not read) or only the FIN (the \
             peer is gone).",
            "Lower net.ipv4.tcp_orphan_retries on servers whose clients vanish.",
        ],
        commands: &[
            ("ss -tano state fin-wait-1", "with Send-Q, and the timer of the next attempt"),
            ("sysctl net.ipv4.tcp_orphan_retries", "how often the FIN is sent again"),
            ("grep ^TCP: /proc/net/sockstat", "orphan: sockets that no process owns"),
        ],
        sysctls: &["tcp_orphan_retries", "tcp_max_orphans"],
        ..EMPTY
    },
    Lore {
        state: TcpState::FinWait2,
        rfc: "FIN-WAIT-2",
        ss: "FIN-WAIT-2",
        about: "Closed by this end, and acknowledged; the other end's FIN is awaited.",
        who: "the end that closes first (active closer)",
        view: View::Client,
        loose: "It is the end that closes first, client or server.",
        entered: &["From FIN_WAIT1, when the FIN is acknowledged."],
        left: &[
            "TIME_WAIT when the peer's FIN comes.",
            "CLOSE when tcp_fin_timeout is over, or on a reset.",
        ],
        lasts: "After shutdown() as long as the other end likes: it may still send, and this end \
                read. After close() at most tcp_fin_timeout, 60 s by default: Linux moves the \
                socket to the time-wait table at once, where it waits for the FIN under this name.",
        many: "The other ends do not close: there, the same connections are in CLOSE_WAIT, and a \
               program is at fault. Each holds its local port, and connect() may not take it over, \
               whatever tcp_tw_reuse says.",
        mend: &[
            "Mend the program at the other end: it must close() when read() returns 0.",
            "Lower net.ipv4.tcp_fin_timeout: that is what it is for. It does not shorten TIME_WAIT.",
        ],
        commands: &[
            ("ss -tano state fin-wait-2", "where to, with the time that is left"),
            ("sysctl -w net.ipv4.tcp_fin_timeout=20", "give up on such peers after 20 s"),
        ],
        sysctls: &["tcp_fin_timeout"],
        ..EMPTY
    },
    Lore {
        state: TcpState::TimeWait,
        rfc: "TIME-WAIT",
        ss: "TIME-WAIT",
        about: "Both ends have closed; late segments are waited out.",
        who: "the end that closed first (active closer); both ends if both closed at once",
        view: View::Client,
        loose: "It is the end that closes first, client or server: a server that ends idle \
                connections has it too.",
        entered: &[
            "From FIN_WAIT2, when the peer's FIN comes.",
            "From FIN_WAIT1, when the peer's FIN comes and acknowledges ours in the same segment.",
            "From CLOSING, when the ACK of our FIN comes.",
        ],
        left: &[
            "CLOSE when its time is over.",
            "A connect() takes the port over, where tcp_tw_reuse allows it.",
            "A SYN for a new connection from the same port, a reset, ss -K, the end of its network \
             namespace.",
        ],
        lasts: "60 s on Linux, fixed when the kernel is compiled (TCP_TIMEWAIT_LEN); the RFC says \
                twice the maximum segment lifetime (2MSL). It begins anew if the peer sends its \
                FIN again.",
        many: "Normal for the end that closes first: connections a second, times 60. At the end \
               that accepts they cost memory, some hundred bytes each, and no ephemeral ports. At \
               the end that connects each holds a local port towards one destination address and \
               port: of 28,232 by default, which bears 470 new connections a second. Beyond that \
               connect() fails with EADDRNOTAVAIL, and from half full on it searches 50 times \
               longer.",
        mend: &[
            "Keep connections: pools, HTTP keep-alive. One that is not opened costs nothing.",
            "Where the two ends can agree, let the end that accepted close first: there it costs \
             memory only.",
            "Offer more ports: net.ipv4.ip_local_port_range. Name the ports of services in that \
             range in ip_local_reserved_ports, and let its bounds be one even, one odd.",
            "Use more addresses, at either end, or more destination ports: each combination has \
             all the ports anew.",
            "net.ipv4.tcp_tw_reuse=1: connect() may take over ports that have been in TIME_WAIT \
             for a second, if both ends use TCP timestamps. The default, 2, does it on loopback \
             only. It has no effect at the end that accepts.",
        ],
        avoid: &[
            "tcp_tw_recycle: gone since Linux 4.12. It dropped connections of clients behind NAT.",
            "tcp_fin_timeout: it does not shorten TIME_WAIT, only FIN_WAIT2.",
            "A lower tcp_max_tw_buckets: takes away the protection and keeps the cause.",
            "SO_LINGER with 0: the reset loses data that is under way.",
        ],
        commands: &[
            ("tcpmon report", "who holds how many ports, towards what"),
            ("tcpmon tail --state time_wait", "who enters, live"),
            ("ss -tan state time-wait", "all of them; without owners, the kernel forgets them"),
            ("sysctl -w net.ipv4.ip_local_port_range=\"2048 65001\"", "62,954 ports"),
            ("sysctl -w net.ipv4.tcp_tw_reuse=1", "at the end that connects"),
        ],
        sysctls: &[
            "tcp_tw_reuse",
            "tcp_timestamps",
            "ip_local_port_range_min",
            "ip_local_port_range_max",
            "tcp_max_tw_buckets",
        ],
    },
    Lore {
        state: TcpState::Close,
        rfc: "CLOSED",
        ss: "UNCONN",
        about: "No connection.",
        who: "both ends, before and after",
        view: View::Shared,
        entered: &[
            "By socket().",
            "From LAST_ACK and TIME_WAIT when they are over; from any state on a reset.",
        ],
        left: &["LISTEN by listen(), SYN_SENT by connect()."],
        lasts: "For ever, as far as TCP is concerned: RFC 9293 calls it fictional, as there is no \
                connection. The program's descriptor stays until it is closed.",
        many: "ss does not list them. A process with many sockets that ss does not know has not \
               closed what peers have reset: a leak of descriptors.",
        mend: &["Close sockets on which a call has failed."],
        commands: &[
            ("grep ^TCP: /proc/net/sockstat", "alloc far above inuse and tw: such a leak"),
            ("ls -l /proc/PID/fd | grep -c socket:", "sockets that a process holds"),
        ],
        ..EMPTY
    },
    Lore {
        state: TcpState::CloseWait,
        rfc: "CLOSE-WAIT",
        ss: "CLOSE-WAIT",
        about: "The other end has closed; the program at this end has not yet.",
        who: "the end that does not close first (passive closer)",
        view: View::Server,
        loose: "It is the end that closes second, client or server.",
        entered: &["From ESTABLISHED, when the peer's FIN comes: read() returns 0."],
        left: &["LAST_ACK by close() or shutdown(SHUT_WR), CLOSE on a reset."],
        lasts: "Until the program closes: no timer, no limit, no sysctl.",
        many: "A few for a moment are normal. Many that grow older are a leak in the program: it \
               does not close() after read() has returned 0, or hangs before it does. It will run \
               out of descriptors (EMFILE).",
        mend: &[
            "Find the process, and mend it; until then a restart frees the sockets.",
            "Look for error paths without close(), and pools that never look at idle connections.",
        ],
        avoid: &["Sysctls: none has any effect on CLOSE_WAIT."],
        commands: &[
            ("ss -tanp state close-wait", "which process has them"),
            ("tcpmon tail --state close_wait", "live, with the time that each stayed"),
            ("ls /proc/PID/fd | wc -l", "against the limit in /proc/PID/limits"),
        ],
        ..EMPTY
    },
    Lore {
        state: TcpState::LastAck,
        rfc: "LAST-ACK",
        ss: "LAST-ACK",
        about: "Closed second; the ACK of this end's FIN is awaited.",
        who: "the end that does not close first (passive closer)",
        view: View::Server,
        loose: "It is the end that closes second, client or server.",
        entered: &["From CLOSE_WAIT, by close() or shutdown(SHUT_WR)."],
        left: &["CLOSE when the ACK comes, on a reset, or when tcp_orphan_retries is used up."],
        lasts: "One round trip. There is no TIME_WAIT after it: the other end has that.",
        many: "The last ACK does not come: peers vanish after their FIN, or a firewall forgets \
               connections as soon as it has seen one.",
        mend: &["See whether FINs are sent again, and where they are lost."],
        commands: &[
            ("ss -tano state last-ack", "with the timer of the next attempt"),
            ("sysctl net.ipv4.tcp_orphan_retries", "how often the FIN is sent again"),
        ],
        sysctls: &["tcp_orphan_retries"],
        ..EMPTY
    },
    Lore {
        state: TcpState::Listen,
        rfc: "LISTEN",
        ss: "LISTEN",
        about: "Waiting for connections.",
        who: "the end that accepts (passive opener)",
        view: View::Server,
        entered: &["From CLOSE, by listen(), mostly after bind()."],
        left: &["CLOSE, by close(). Connections are sockets of their own; this one stays."],
        lasts: "As long as the program wants.",
        many: "One for each address and port, or for each worker that shares it (SO_REUSEPORT). \
               What matters is the queue of those that wait for accept(): a full one drops SYNs \
               and last ACKs, and clients see slow or hanging connects.",
        mend: &[
            "Accept faster, or from more workers.",
            "Raise both the backlog of listen() and net.core.somaxconn (4096 since Linux 5.4): the \
             smaller counts.",
        ],
        commands: &[
            ("ss -tln", "Recv-Q: waiting for accept(); Send-Q: the most that may"),
            ("nstat -az TcpExtListenOverflows", "refused since boot"),
        ],
        ..EMPTY
    },
    Lore {
        state: TcpState::Closing,
        rfc: "CLOSING",
        ss: "CLOSING",
        about: "Both ends closed at once; the ACK of this end's FIN is awaited.",
        who: "both ends, when both close before either has seen the other's FIN",
        view: View::Client,
        loose: "Both ends go through it. Nor is a lost ACK the cause: the peer's FIN acknowledges \
                ours once more, and leads to TIME_WAIT. It takes a peer that sent its FIN before \
                ours had reached it.",
        entered: &["From FIN_WAIT1, when the peer's FIN comes and does not acknowledge ours."],
        left: &["TIME_WAIT when the ACK of our FIN comes, CLOSE on a reset or when time is up."],
        lasts: "One round trip at most, unless segments are lost.",
        many: "Rare. Many mean that both ends close by the same clock (equal idle time limits), \
               and that ACKs are lost or late.",
        mend: &["Let one end have the longer idle time limit: the one that accepted the shorter."],
        commands: &[("ss -tano state closing", "with the timer of the next attempt")],
        ..EMPTY
    },
    Lore {
        state: TcpState::NewSynRecv,
        rfc: "SYN-RECEIVED, before there is a full socket: Linux's own",
        ss: "SYN-RECV",
        about: "A request: SYN received and answered, kept as a small record.",
        who: "the end that accepts (passive opener)",
        view: View::None,
        entered: &["When a SYN comes for a listening socket: no process takes part in it."],
        left: &[
            "The last ACK comes: a full socket goes by SYN_RECV to ESTABLISHED.",
            "A reset comes, or time is up.",
        ],
        lasts: "One round trip. Without an ACK up to 63 s: the SYN+ACK is sent again \
                tcp_synack_retries times, 5 by default.",
        many: "A flood of SYNs from addresses that do not exist; a way back that is broken; or a \
               listener whose accept queue is full, so that last ACKs are dropped.",
        mend: &[
            "Look at the accept queue first: `tcpmon explain listen`.",
            "Leave net.ipv4.tcp_syncookies at 1: a full queue of requests then refuses nobody.",
        ],
        commands: &[
            ("ss -tan state syn-recv", "from where"),
            ("nstat -az TcpExtSyncookiesSent TcpExtListenOverflows", "which of the two it is"),
            ("sysctl net.ipv4.tcp_max_syn_backlog", "how many there may be"),
        ],
        ..EMPTY
    },
    Lore {
        state: TcpState::BoundInactive,
        rfc: "CLOSED, with a port of its own: a word of Linux's diagnostics",
        ss: "BOUND-INACTIVE",
        about: "Bound to a port, but neither listening nor connected.",
        who: "whoever calls bind() and has not gone on yet",
        view: View::None,
        entered: &["By bind(); the socket is in CLOSE. Diagnostics show it since Linux 6.8."],
        left: &["By listen(), connect() or close()."],
        lasts: "As long as the program wants; mostly an instant.",
        many: "Each takes its port for all destinations at once. Programs that bind() a source \
               address before connect() use up the range as a whole, not for each destination.",
        mend: &[
            "Set IP_BIND_ADDRESS_NO_PORT before such a bind(): connect() then chooses the port, \
             for its destination only.",
        ],
        commands: &[("ss -tanp state bound-inactive", "who has them; needs a recent ss")],
        ..EMPTY
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_what_belongs_to_it() {
        for state in TcpState::ALL {
            let lore = of(state);
            assert_eq!(lore.state, state);
            for text in [lore.rfc, lore.ss, lore.about, lore.who, lore.lasts, lore.many] {
                assert!(!text.is_empty(), "{state:?}");
            }
            assert!(!lore.entered.is_empty() && !lore.left.is_empty(), "{state:?}");
            assert!(!lore.commands.is_empty(), "{state:?}");
            for text in lore.mend.iter().chain(lore.entered).chain(lore.left).chain(lore.avoid) {
                assert!(text.ends_with('.'), "{state:?}: {text}");
                assert!(!text.contains("  "), "{state:?}: {text}");
            }
        }
    }
}
