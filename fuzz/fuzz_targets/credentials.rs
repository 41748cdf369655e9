//! `cargo +nightly fuzz run credentials` from the repository's root. What is looked for: `looks/credentials.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/export/web/credentials.rs"]
mod credentials;

#[path = "../looks/credentials.rs"]
mod look;

fuzz_target!(|data: &[u8]| look::look(data));
