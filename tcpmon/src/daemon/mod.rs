//! The daemon: the pipeline from the probes to the subscribers, and the life around it.

pub mod clock;
pub mod departures;
pub mod held;
pub mod hub;
pub mod names;
pub mod pipeline;
pub mod reader;
pub mod run;
pub mod sampler;
pub mod socket;
pub mod subscriber;
pub mod survey;
