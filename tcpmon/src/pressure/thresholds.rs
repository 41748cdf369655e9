//! When alerts begin and end.

use std::time::Duration;

/// Where an alert begins, and where it ends again: lower, so that it does not flap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// It begins at this.
    pub raise: f64,
    /// It ends below this.
    pub clear: f64,
}

impl Band {
    /// Whether it is so, where it was so before or not.
    #[must_use]
    pub fn holds(self, value: f64, was: bool) -> bool {
        value >= if was { self.clear } else { self.raise }
    }
}

/// What the alerts are raised and resolved by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Utilization ratio for the warning `TcpPortsNearlyExhausted`.
    pub ports_warning: Band,
    /// The same for the critical one.
    pub ports_critical: Band,
    /// Utilization ratio for `TcpPortSearchSlow`.
    pub search_slow: Band,
    /// Seconds to exhaustion for `TcpPortExhaustionPredicted`: it begins below `raise` and ends
    /// above `clear`.
    pub predicted_seconds: Band,
    /// Sockets in TIME_WAIT over `tcp_max_tw_buckets` for `TcpTimeWaitBucketsNearlyFull`.
    pub buckets: Band,
    /// Sockets in CLOSE_WAIT for more than 60 s, at least, for `TcpCloseWaitLeak`.
    pub close_wait: u64,
    /// How long something must hold to be raised; not for what has failed already.
    pub hold: Duration,
    /// How long it must not hold to be resolved.
    pub rest: Duration,
    /// How long after the last failure (a connect() refused, a socket that found the time-wait
    /// table full) the alert about it is resolved.
    pub failure: Duration,
    /// For how long CLOSE_WAIT must have grown.
    pub growth: Duration,
}

impl Thresholds {
    /// Unless they are told otherwise.
    pub const DEFAULT: Self = {
        Self {
            ports_warning: Band { raise: 0.80, clear: 0.75 },
            ports_critical: Band { raise: 0.95, clear: 0.90 },
            search_slow: Band { raise: 0.50, clear: 0.45 },
            predicted_seconds: Band { raise: 600.0, clear: 900.0 },
            buckets: Band { raise: 0.90, clear: 0.85 },
            close_wait: 5,
            hold: Duration::from_secs(3),
            rest: Duration::from_secs(10),
            failure: Duration::from_mins(1),
            growth: Duration::from_mins(2),
        }
    };
}

impl Default for Thresholds {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_holds_on_to_what_it_was() {
        let band = Band { raise: 0.8, clear: 0.75 };
        for (value, was, holds) in
            [(0.79, false, false), (0.8, false, true), (0.76, true, true), (0.74, true, false)]
        {
            assert_eq!(band.holds(value, was), holds, "{value} {was}");
        }
    }
}
