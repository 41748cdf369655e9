//! What the kernel itself counts of TCP in one network namespace: the yardstick that the ledger
//! of TIME_WAIT is held against.
//!
//! From four files under /proc/PID/net. `sockstat` and `sockstat6` have lines such as
//! `TCP: inuse 3 orphan 0 tw 50` (`sockstat_seq_show`, net/ipv4/proc.c); `netstat` and `snmp`
//! have pairs of lines, names and values, behind one prefix (`netstat_seq_show` and
//! `snmp_seq_show_tcp_udp` in the same file). Names are looked up, never places: kernels add
//! counters in the middle.

/// Counters and levels of one network namespace; `None` where the kernel did not tell.
///
/// Counters run from the making of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Sockets in the time-wait table now, of both families, those in its substate FIN_WAIT2
    /// included (`sockstat`: `TCP: tw`).
    pub time_wait: Option<u64>,
    /// TCP sockets of IPv4 now, without those in TIME_WAIT (`sockstat`: `TCP: inuse`).
    pub in_use: Option<u64>,
    /// The same of IPv6 (`sockstat6`: `TCP6: inuse`).
    pub in_use6: Option<u64>,
    /// Sockets that no process holds any more, **of the whole host** (`TCP: orphan`).
    pub host_orphans: Option<u64>,
    /// TCP sockets, **of the whole host** (`TCP: alloc`).
    pub host_allocated: Option<u64>,
    /// Pages of buffers of TCP sockets, **of the whole host** (`TCP: mem`).
    pub host_memory_pages: Option<u64>,
    /// Entries to the time-wait table for more than four seconds (`TW`, counted as the timer is
    /// first set: `__inet_twsk_schedule`, net/ipv4/inet_timewait_sock.c).
    pub entered_long: Option<u64>,
    /// Entries for four seconds or less, as a small `tcp_fin_timeout` makes them (`TWKilled`,
    /// counted in the same place: despite its name it is no end).
    pub entered_short: Option<u64>,
    /// Time-wait sockets whose port connect() took over (`TWRecycled`).
    pub recycled: Option<u64>,
    /// Sockets that were closed at once, as `tcp_max_tw_buckets` was reached
    /// (`TCPTimeWaitOverflow`).
    pub overflow: Option<u64>,
    /// connect() calls that sent a SYN (`ActiveOpens`).
    pub active_opens: Option<u64>,
    /// Connections that came in (`PassiveOpens`).
    pub passive_opens: Option<u64>,
    /// Connections that failed while being opened (`AttemptFails`).
    pub attempt_fails: Option<u64>,
    /// Established connections that were reset (`EstabResets`).
    pub estab_resets: Option<u64>,
    /// Connections in ESTABLISHED or CLOSE_WAIT now (`CurrEstab`).
    pub curr_estab: Option<u64>,
}

impl NetCounters {
    /// The counters of a namespace that was made just now.
    #[must_use]
    pub const fn zeros() -> Self {
        let zero = Some(0);
        Self {
            time_wait: zero,
            in_use: zero,
            in_use6: zero,
            host_orphans: None,
            host_allocated: None,
            host_memory_pages: None,
            entered_long: zero,
            entered_short: zero,
            recycled: zero,
            overflow: zero,
            active_opens: zero,
            passive_opens: zero,
            attempt_fails: zero,
            estab_resets: zero,
            curr_estab: zero,
        }
    }

    /// Reads the texts of the four files; an empty one leaves what it would tell unknown.
    #[must_use]
    pub fn from_texts(sockstat: &str, sockstat6: &str, netstat: &str, snmp: &str) -> Self {
        let mut counters = Self::default();
        for (name, value) in fields(sockstat, "TCP:") {
            let slot = match name {
                "tw" => &mut counters.time_wait,
                "inuse" => &mut counters.in_use,
                "orphan" => &mut counters.host_orphans,
                "alloc" => &mut counters.host_allocated,
                "mem" => &mut counters.host_memory_pages,
                _ => continue,
            };
            *slot = value;
        }
        counters.in_use6 =
            fields(sockstat6, "TCP6:").find(|(name, _)| *name == "inuse").and_then(|(_, it)| it);
        for (name, value) in columns(netstat, "TcpExt:") {
            let slot = match name {
                "TW" => &mut counters.entered_long,
                "TWKilled" => &mut counters.entered_short,
                "TWRecycled" => &mut counters.recycled,
                "TCPTimeWaitOverflow" => &mut counters.overflow,
                _ => continue,
            };
            *slot = value;
        }
        for (name, value) in columns(snmp, "Tcp:") {
            let slot = match name {
                "ActiveOpens" => &mut counters.active_opens,
                "PassiveOpens" => &mut counters.passive_opens,
                "AttemptFails" => &mut counters.attempt_fails,
                "EstabResets" => &mut counters.estab_resets,
                "CurrEstab" => &mut counters.curr_estab,
                _ => continue,
            };
            *slot = value;
        }
        counters
    }

    /// Sockets that have entered TIME_WAIT since the namespace was made; `None` where either half
    /// is not known.
    #[must_use]
    pub fn entered(&self) -> Option<u64> {
        Some(self.entered_long?.wrapping_add(self.entered_short?))
    }
}

/// The names and values on the line `prefix name value name value ...`.
fn fields<'a>(text: &'a str, prefix: &str) -> impl Iterator<Item = (&'a str, Option<u64>)> {
    let line = text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    std::iter::from_fn(move || Some((words.next()?, number(words.next()?))))
}

/// The names on the first line with the prefix, each with its value on the second.
fn columns<'a>(text: &'a str, prefix: &str) -> impl Iterator<Item = (&'a str, Option<u64>)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let (names, values) = (names.split_ascii_whitespace(), values.split_ascii_whitespace());
    names.zip(values.map(number))
}

/// `None` for what is no count: `MaxConn` is -1.
fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOCKSTAT: &str = "sockets: used 28\n\
        TCP: inuse 3 orphan 1 tw 50 alloc 4 mem 114\n\
        UDP: inuse 9 mem 9\n";
    const SOCKSTAT6: &str = "TCP6: inuse 7\nUDP6: inuse 9\n";
    const NETSTAT: &str = "TcpExt: SyncookiesSent TW TWRecycled TWKilled TCPTimeWaitOverflow\n\
        TcpExt: 9 64 5 6 7\n\
        IpExt: TW InOctets\n\
        IpExt: 1 2\n";
    const SNMP: &str = "Ip: Forwarding DefaultTTL\n\
        Ip: 1 64\n\
        Tcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InErrs\n\
        Tcp: 1 -1 85 54 2 18 12 9\n\
        Udp: InDatagrams ActiveOpens\n\
        Udp: 9 9\n";

    const ALL: NetCounters = NetCounters {
        time_wait: Some(50),
        in_use: Some(3),
        in_use6: Some(7),
        host_orphans: Some(1),
        host_allocated: Some(4),
        host_memory_pages: Some(114),
        entered_long: Some(64),
        entered_short: Some(6),
        recycled: Some(5),
        overflow: Some(7),
        active_opens: Some(85),
        passive_opens: Some(54),
        attempt_fails: Some(2),
        estab_resets: Some(18),
        curr_estab: Some(12),
    };

    #[test]
    fn a_kernel_s_texts() {
        let counters = NetCounters::from_texts(SOCKSTAT, SOCKSTAT6, NETSTAT, SNMP);
        assert_eq!(counters, ALL);
        assert_eq!(counters.entered(), Some(70));
    }

    #[test]
    fn what_is_missing_is_not_known() {
        assert_eq!(NetCounters::from_texts("", "", "", ""), NetCounters::default());
        assert_eq!(NetCounters::default().entered(), None);

        // IPv6 switched off.
        let counters = NetCounters::from_texts(SOCKSTAT, "", NETSTAT, SNMP);
        assert_eq!(counters, NetCounters { in_use6: None, ..ALL });

        // A name without a value, a value that is none, and names without their values.
        let counters = NetCounters::from_texts(
            "TCP: tw 50 inuse\n",
            "TCP6: inuse many\n",
            "TcpExt: TW TWRecycled TWKilled\nTcpExt: 64 -1\n",
            "Tcp: ActiveOpens\n",
        );
        let known =
            NetCounters { time_wait: Some(50), entered_long: Some(64), ..NetCounters::default() };
        assert_eq!(counters, known);
        assert_eq!(counters.entered(), None, "half of it is not the whole");
    }

    proptest! {
        #[test]
        fn any_order_and_any_other_names(
            mut names in proptest::sample::subsequence(
                vec!["TW", "TWKilled", "TWRecycled", "TCPTimeWaitOverflow", "Other", "TWx"], 0..=6,
            ).prop_shuffle(),
            values: [u64; 6],
        ) {
            names.push("Last");
            let values: Vec<String> = values.iter().map(u64::to_string).take(names.len()).collect();
            let text = format!("TcpExt: {}\nTcpExt: {}\n", names.join(" "), values.join(" "));
            let counters = NetCounters::from_texts("", "", &text, "");
            let of = |name| {
                let place = names.iter().position(|other| *other == name)?;
                values.get(place)?.parse().ok()
            };
            prop_assert_eq!(counters.entered_long, of("TW"));
            prop_assert_eq!(counters.entered_short, of("TWKilled"));
            prop_assert_eq!(counters.recycled, of("TWRecycled"));
            prop_assert_eq!(counters.overflow, of("TCPTimeWaitOverflow"));
        }

        #[test]
        fn no_text_panics(text in "((TCP6?|TcpExt|Tcp): |tw|TW|inuse|[0-9 ]|.|\n){0,60}") {
            let _ = NetCounters::from_texts(&text, &text, &text, &text).entered();
        }
    }
}
