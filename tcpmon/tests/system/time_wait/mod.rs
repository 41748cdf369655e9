//! The TIME_WAIT ledger: what enters, whose it is, how it ends, against the kernel's own counters.

mod churn;
mod human;
mod lives;
mod namespaces;
mod recipes;
mod restart;
mod sampled;
mod services;
