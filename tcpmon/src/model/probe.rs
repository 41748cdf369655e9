//! What a probe costs.

use std::time::Duration;

/// The kernel's account of one probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeStats {
    /// Time spent in it, while the kernel was told to measure (`kernel.bpf_stats_enabled`).
    pub run_time: Duration,
    /// Runs that were measured.
    pub runs: u64,
    /// Times that it was not run, because it would have interrupted itself on its CPU.
    pub recursion_misses: u64,
}
