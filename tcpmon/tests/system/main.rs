//! The real `tcpmon` on real sockets, as root: what issue after issue promises, held against
//! traffic whose every transition is known (`xtask::lab`).
//!
//! Each test has a daemon of its own, all on this one machine, so all of them see all traffic:
//! streams are filtered by the lab's namespaces, and counters, which know no namespace, are
//! compared by [`support::measure`] only.

mod alerts;
mod census;
mod counters;
mod ending;
mod exhaustion;
mod faults;
mod hostile;
mod http;
mod latency;
mod limits;
mod metrics;
mod onlookers;
mod owners;
mod ports;
mod refusals;
mod report;
mod soak;
mod streams;
mod subscribers;
mod support;
mod tail;
mod time_wait;
mod times;
mod top;
