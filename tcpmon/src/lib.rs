//! tcpmon: every TCP state transition, whose it is, and who runs out of ports.
//!
//! The folders are the stages of the data's way: `kernel` loads the probes and reads what they
//! count, `model` has the plain types and rules, `export` what leaves the daemon, `daemon` the
//! pipeline, `cli` the commands. docs/ARCHITECTURE.md has the map.

pub mod cli;
pub mod daemon;
pub mod export;
#[cfg(test)]
mod fuzz;
pub mod kernel;
pub mod model;
pub mod pressure;
