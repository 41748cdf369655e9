//! `cargo +nightly fuzz run answer` from the repository's root. What is looked for: `looks/answer.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/export/alertmanager/words.rs"]
mod words;

#[path = "../looks/answer.rs"]
mod look;

fuzz_target!(|data: &[u8]| look::look(data));
