//! `cargo +nightly fuzz run web_config` from the repository's root. What is looked for: `looks/web_config.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/export/web/config.rs"]
#[expect(dead_code, reason = "it serves the daemon; not all of it is asked here")]
mod config;

use config::Web as WebConfig;

#[path = "../looks/web_config.rs"]
mod look;

fuzz_target!(|data: &[u8]| look::look(data));
