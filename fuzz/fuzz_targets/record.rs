//! `cargo +nightly fuzz run record` from the repository's root. What is looked for: `looks/record.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/model/mod.rs"]
#[expect(dead_code, reason = "it serves the daemon; not all of it is asked here")]
mod model;

#[path = "../looks/record.rs"]
mod look;

fuzz_target!(|data: &[u8]| look::look(data));
