//! The daemon: the pipeline from the probes to the subscribers, and the life around it.

pub mod alerting;
pub mod clock;
pub mod departures;
pub mod door;
pub mod facts;
pub mod heart;
pub mod held;
pub mod hub;
pub mod names;
pub mod once;
pub mod pipeline;
pub mod pushing;
pub mod reader;
pub mod report;
pub mod run;
mod runtime;
pub mod sampler;
pub mod settings;
pub mod socket;
pub mod subscriber;
pub mod survey;
mod systemd;
pub mod watch;
