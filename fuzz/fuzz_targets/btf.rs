//! `cargo +nightly fuzz run btf` from the repository's root. What is looked for: `looks/btf.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/kernel/btf/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it serves the daemon; not all of it is asked here")]
mod btf;

#[path = "../looks/btf.rs"]
mod look;

fuzz_target!(|data: &[u8]| look::look(data));
