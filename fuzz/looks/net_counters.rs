//! The readers of the kernel's counters and sysctls. The kernel is no enemy, but its texts differ
//! from version to version: no panics, no sums that overflow, and no sets of ports that do not
//! survive being written.

use super::model::{net_counters::NetCounters, ports::PortSet, sysctls::Sysctls};

/// Feeds them anything.
pub(super) fn look(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let counters = NetCounters::from_texts(text, text, text, text);
    assert_eq!(
        counters.entered().is_none(),
        counters.entered_long.is_none() || counters.entered_short.is_none()
    );

    if let Ok(set) = PortSet::from_sysctl(text) {
        assert!(set.len() <= 65_536);
        assert_eq!(PortSet::from_sysctl(&set.to_string()).as_ref(), Ok(&set));
    }

    // Each line is another sysctl.
    let mut lines = text.lines().map(str::to_owned);
    let values = Sysctls::from_texts(|_| lines.next());
    assert!(values.ephemeral_ports().is_none_or(|ports| ports <= 65_536));
    assert!(values.numbers().count() <= Sysctls::NAMES.len());
}
