//! `cargo +nightly fuzz run sock_diag` from the repository's root. What is looked for: `looks/sock_diag.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/kernel/sock_diag.rs"]
#[expect(dead_code, reason = "it serves the daemon; not all of it is asked here")]
mod sock_diag;

#[path = "../looks/sock_diag.rs"]
mod look;

fuzz_target!(|data: &[u8]| look::look(data));
