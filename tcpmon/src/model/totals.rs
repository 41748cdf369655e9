//! What the probes counted on all CPUs together.

use tcpmon_common::{
    ACTIVITY, Counters, DURATION_BUCKETS, DURATION_UNKNOWN, EDGES, Family, Losses, MIX, SHORT,
    STATE_COUNT, TcpState, duration_bucket, edge_index,
};

/// Sums of every CPU's counters, but for the marks of activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// By [`edge_index`], of IPv4 and of IPv6.
    transitions: [[u64; 2]; EDGES],
    durations: [Durations; STATE_COUNT],
    /// connect() calls that found no free port.
    pub port_failures: u64,
    /// What was lost.
    pub losses: Losses,
    activity: [u64; ACTIVITY],
}

/// Time that sockets spent in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations {
    /// Sum of the observed durations, in nanoseconds.
    pub sum_ns: u64,
    /// Observations by bucket, not cumulated.
    pub buckets: [u64; DURATION_BUCKETS],
}

impl Totals {
    /// Nothing counted yet.
    pub const NONE: Self = Self {
        transitions: [[0; 2]; EDGES],
        durations: [Durations { sum_ns: 0, buckets: [0; DURATION_BUCKETS] }; STATE_COUNT],
        port_failures: 0,
        losses: Counters::NONE.losses,
        activity: [0; ACTIVITY],
    };

    /// Adds what one CPU counted.
    pub fn add(&mut self, counters: &Counters) {
        for old in TcpState::ALL {
            for new in TcpState::ALL {
                let index = edge_index(old.number(), new.number());
                let edge = &counters.edges[index];
                add(&mut self.transitions[index], &edge.transitions);
                let durations = &mut self.durations[usize::from(old.number())];
                durations.sum_ns += edge.sum_ns;
                add(&mut durations.buckets[..SHORT], &edge.short);
            }
        }
        for (state, long) in TcpState::ALL.into_iter().zip(&counters.long) {
            add(&mut self.durations[usize::from(state.number())].buckets[SHORT..], long);
        }
        for (all, one) in self.activity.iter_mut().zip(&counters.activity) {
            // Not their sum, but so that one CPU's mark is told from another's: changes on two could
            // cancel each other out.
            *all = all.wrapping_mul(MIX).wrapping_add((*one).into());
        }
        self.port_failures += counters.port_failures;
        let (sum, one) = (&mut self.losses, &counters.losses);
        add(&mut sum.services, &one.services);
        sum.sockets += one.sockets;
        sum.listeners += one.listeners;
        sum.failures += one.failures;
        sum.time_waits += one.time_waits;
        sum.entered += one.entered;
        sum.namespaces += one.namespaces;
    }

    /// Counts one `time_wait -> close` of a family, by its number, and how long it took.
    pub fn end_time_wait(&mut self, family: u8, duration_ns: u64) {
        let (from, to) = (TcpState::TimeWait.number(), TcpState::Close.number());
        self.transitions[edge_index(from, to)][usize::from(family & 1)] += 1;
        if duration_ns != DURATION_UNKNOWN {
            let durations = &mut self.durations[usize::from(from)];
            durations.buckets[duration_bucket(duration_ns)] += 1;
            durations.sum_ns += duration_ns;
        }
    }

    /// How many sockets of a family went from one state to another.
    #[must_use]
    pub fn transitions(&self, family: Family, old: TcpState, new: TcpState) -> u64 {
        self.transitions[edge_index(old.number(), new.number())][family as usize]
    }

    /// How many transitions there were.
    #[must_use]
    pub fn all_transitions(&self) -> u64 {
        self.transitions.iter().flatten().sum()
    }

    /// How long sockets were in that state, observed as they left it.
    #[must_use]
    pub const fn durations(&self, state: TcpState) -> &Durations {
        &self.durations[state.number() as usize]
    }

    /// A number that changes whenever a socket of that network namespace, by its inode number, makes
    /// a transition; it may change with others' too.
    #[must_use]
    pub const fn activity(&self, netns: u32) -> u64 {
        self.activity[netns as usize % ACTIVITY]
    }
}

/// Adds numbers to numbers.
fn add(sums: &mut [u64], numbers: &[u64]) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum += number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpmon_common::{Edge, LONG};

    #[test]
    fn every_member_is_summed() {
        let mut counters = Counters::NONE;
        let (old, new) = (TcpState::SynSent, TcpState::Established);
        let edge = Edge { transitions: [1, 2], sum_ns: 3, short: [4, 0, 0, 0, 5] };
        counters.edges[edge_index(old.number(), new.number())] = edge;
        let other = Edge { transitions: [6, 0], sum_ns: 7, short: [8, 0, 0, 0, 0] };
        counters.edges[edge_index(old.number(), TcpState::Close.number())] = other;
        counters.long[usize::from(old.number()) - 1][LONG - 1] = 9;
        counters.port_failures = 10;
        counters.losses = Losses {
            sockets: 11,
            listeners: 12,
            services: [13, 14],
            failures: 15,
            time_waits: 16,
            entered: 17,
            namespaces: 18,
        };
        counters.activity[ACTIVITY - 1] = 19;
        let mut total = Totals::NONE;
        total.add(&counters);
        let netns = u32::try_from(3 * ACTIVITY - 1).expect("small");
        assert_eq!(total.activity(netns), 19);
        assert_eq!(total.losses, counters.losses);
        total.add(&counters);
        assert_eq!(total.transitions(Family::Ipv4, old, new), 2);
        assert_eq!(total.transitions(Family::Ipv6, old, new), 4);
        assert_eq!(total.transitions(Family::Ipv6, old, TcpState::Close), 0);
        assert_eq!(total.all_transitions(), 18);
        let durations = total.durations(old);
        assert_eq!(durations.sum_ns, 20);
        assert_eq!(durations.buckets[..SHORT], [24, 0, 0, 0, 10]);
        assert_eq!(durations.buckets[DURATION_BUCKETS - 1], 18);
        assert_eq!(durations.buckets.iter().sum::<u64>(), 52);
        assert_eq!(total.durations(new).sum_ns, 0);
        assert_eq!(total.port_failures, 20);
        assert_ne!(total.activity(netns), 38, "no sum");
        assert_eq!((total.losses.services, total.losses.namespaces), ([26, 28], 36));
    }
}
