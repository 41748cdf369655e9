//! `cargo +nightly fuzz run net_counters` from the repository's root. What is looked for: `looks/net_counters.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/model/mod.rs"]
#[expect(dead_code, reason = "it serves the daemon; not all of it is asked here")]
mod model;

#[path = "../looks/net_counters.rs"]
mod look;

fuzz_target!(|data: &[u8]| look::look(data));
