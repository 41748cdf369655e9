//! What tcpmon knows, as plain types and rules: events, filters, names of services.
//!
//! Nothing here reads a clock, the kernel or the network: times and facts are passed in, so that
//! every rule can be tested with a table.

pub mod address;
pub mod budget;
pub mod census;
pub mod comm;
pub mod event;
pub mod fast;
pub mod filter;
pub mod json;
pub mod ledger;
pub mod levels;
pub mod net_counters;
pub mod pod;
pub mod ports;
pub mod probe;
pub mod query;
pub mod rates;
pub mod report;
pub mod service;
pub mod sysctls;
pub mod time_wait;
pub mod totals;
pub mod values;
