//! Feeds the readers of the kernel's counters and sysctls anything.
//!
//! `cargo +nightly fuzz run net_counters` from the repository's root. The kernel is no enemy, but
//! its texts differ from version to version. It looks for panics, for sums that overflow, and for
//! sets of ports that do not survive being written.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/model/mod.rs"]
#[expect(dead_code, reason = "it serves the daemon; not all of it is asked here")]
mod model;

use model::{net_counters::NetCounters, ports::PortSet, sysctls::Sysctls};

fuzz_target!(|text: &str| {
    let counters = NetCounters::from_texts(text, text, text, text);
    assert_eq!(counters.entered().is_none(), {
        counters.entered_long.is_none() || counters.entered_short.is_none()
    });

    if let Ok(set) = PortSet::from_sysctl(text) {
        assert!(set.len() <= 65_536);
        assert_eq!(PortSet::from_sysctl(&set.to_string()).as_ref(), Ok(&set));
    }

    // Each line is another sysctl.
    let mut lines = text.lines().map(str::to_owned);
    let values = Sysctls::from_texts(|_| lines.next());
    assert!(values.ephemeral_ports().is_none_or(|ports| ports <= 65_536));
    assert!(values.numbers().count() <= Sysctls::NAMES.len());
});
