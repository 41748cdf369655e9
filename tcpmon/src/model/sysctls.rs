//! The sysctls that decide how long a port stays taken, and how many there are to take.
//!
//! Each network namespace has values of its own, and a kernel may lack one (`tcp_tw_reuse_delay`
//! came late), so each is known or not: what a text did not tell is never a default.

use super::ports::{PortRange, PortSet};

/// What the sysctls of one network namespace say; `None` where that is not known.
///
/// What they mean: Documentation/networking/ip-sysctl.rst of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// connect() may take over a port in TIME_WAIT: 0 never, 1 always, 2 on loopback only.
    pub tcp_tw_reuse: Option<u8>,
    /// How old a socket in TIME_WAIT must be for that, in milliseconds; 1,000 on kernels that do
    /// not have the sysctl.
    pub tcp_tw_reuse_delay: Option<u32>,
    /// Sockets in TIME_WAIT beyond which no more are kept; the kernel takes any int.
    pub tcp_max_tw_buckets: Option<i32>,
    /// Where local ports are taken from.
    pub ip_local_port_range: Option<PortRange>,
    /// Which of them are not.
    pub ip_local_reserved_ports: Option<PortSet>,
    /// TCP timestamps: 0 off, 1 with a random offset, 2 without.
    pub tcp_timestamps: Option<u8>,
    /// Seconds in FIN_WAIT2 after close(), which is what it shortens; not TIME_WAIT.
    pub tcp_fin_timeout: Option<u32>,
    /// 1: a reset does not end TIME_WAIT (RFC 1337).
    pub tcp_rfc1337: Option<u8>,
}

impl Sysctls {
    /// The names of what [`Self::from_texts`] reads, as under /proc/sys/net/ipv4.
    pub const NAMES: [&str; 8] = [
        "tcp_tw_reuse",
        "tcp_tw_reuse_delay",
        "tcp_max_tw_buckets",
        "ip_local_port_range",
        "ip_local_reserved_ports",
        "tcp_timestamps",
        "tcp_fin_timeout",
        "tcp_rfc1337",
    ];

    /// Reads the sysctls' texts: `text` is asked for each of [`Self::NAMES`] once, and answers
    /// with what the file of that name holds, or `None` where that cannot be had.
    pub fn from_texts(mut text: impl FnMut(&'static str) -> Option<String>) -> Self {
        let mut values = Self::default();
        for name in Self::NAMES {
            if let Some(text) = text(name) {
                values.set(name, text.trim_ascii());
            }
        }
        values
    }

    fn set(&mut self, name: &str, text: &str) {
        match name {
            "tcp_tw_reuse" => self.tcp_tw_reuse = text.parse().ok(),
            "tcp_tw_reuse_delay" => self.tcp_tw_reuse_delay = text.parse().ok(),
            "tcp_max_tw_buckets" => self.tcp_max_tw_buckets = text.parse().ok(),
            "ip_local_port_range" => self.ip_local_port_range = PortRange::from_sysctl(text),
            "ip_local_reserved_ports" => {
                self.ip_local_reserved_ports = PortSet::from_sysctl(text).ok();
            }
            "tcp_timestamps" => self.tcp_timestamps = text.parse().ok(),
            "tcp_fin_timeout" => self.tcp_fin_timeout = text.parse().ok(),
            "tcp_rfc1337" => self.tcp_rfc1337 = text.parse().ok(),
            _ => {}
        }
    }

    /// How many ports the range offers to connect(), less the reserved ones; `None` where either
    /// is not known. Ports that a bind() owns are still in it: who owns them is no sysctl.
    #[must_use]
    pub fn ephemeral_ports(&self) -> Option<u32> {
        let (range, reserved) = (self.ip_local_port_range?, self.ip_local_reserved_ports.as_ref()?);
        Some(range.len() - reserved.count_within(range))
    }

    /// The known values with their names, for the metric `tcpmon_sysctl`: numbers in the sysctl's
    /// own unit. The range is two, `ip_local_port_range_min` and `ip_local_port_range_max`; the
    /// reserved ports are no number and are not among them.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let range = self.ip_local_port_range;
        [
            ("tcp_tw_reuse", self.tcp_tw_reuse.map(i64::from)),
            ("tcp_tw_reuse_delay", self.tcp_tw_reuse_delay.map(i64::from)),
            ("tcp_max_tw_buckets", self.tcp_max_tw_buckets.map(i64::from)),
            ("ip_local_port_range_min", range.map(|range| range.first().into())),
            ("ip_local_port_range_max", range.map(|range| range.last().into())),
            ("tcp_timestamps", self.tcp_timestamps.map(i64::from)),
            ("tcp_fin_timeout", self.tcp_fin_timeout.map(i64::from)),
            ("tcp_rfc1337", self.tcp_rfc1337.map(i64::from)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with<'a>(texts: &'a [(&str, &str)]) -> impl FnMut(&'static str) -> Option<String> + 'a {
        |name| texts.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned())
    }

    #[test]
    fn a_kernel_s_texts() {
        let values = Sysctls::from_texts(with(&[
            ("tcp_tw_reuse", "2\n"),
            ("tcp_tw_reuse_delay", "1000\n"),
            ("tcp_max_tw_buckets", "131072\n"),
            ("ip_local_port_range", "32768\t60999\n"),
            ("ip_local_reserved_ports", "8080,40000-40009\n"),
            ("tcp_timestamps", "1\n"),
            ("tcp_fin_timeout", "60\n"),
            ("tcp_rfc1337", "0\n"),
        ]));
        assert_eq!(values.ephemeral_ports(), Some(28_222));
        assert_eq!(
            values.numbers().collect::<Vec<_>>(),
            [
                ("tcp_tw_reuse", 2),
                ("tcp_tw_reuse_delay", 1_000),
                ("tcp_max_tw_buckets", 131_072),
                ("ip_local_port_range_min", 32_768),
                ("ip_local_port_range_max", 60_999),
                ("tcp_timestamps", 1),
                ("tcp_fin_timeout", 60),
                ("tcp_rfc1337", 0),
            ]
        );
    }

    #[test]
    fn what_is_not_there_or_not_a_value_is_not_known() {
        let nothing = Sysctls::from_texts(|_| None);
        assert_eq!(nothing, Sysctls::default());
        assert_eq!((nothing.ephemeral_ports(), nothing.numbers().count()), (None, 0));

        let odd = Sysctls::from_texts(with(&[
            ("tcp_tw_reuse", "many\n"),
            ("tcp_max_tw_buckets", "-1\n"),
            ("ip_local_port_range", "1000\t2000\n"),
            ("tcp_fin_timeout", "-1\n"),
            ("tcp_rfc1337", "256\n"),
        ]));
        let known = Sysctls {
            tcp_max_tw_buckets: Some(-1),
            ip_local_port_range: PortRange::new(1_000, 2_000),
            ..Sysctls::default()
        };
        assert_eq!(odd, known);
        assert_eq!(odd.ephemeral_ports(), None, "what is reserved is not known");
    }

    #[test]
    fn reserved_ports_count_only_where_the_range_has_them() {
        for (reserved, expected) in
            [("\n", 101), ("1-99,300", 101), ("90-110", 90), ("200", 100), ("1-65535", 0)]
        {
            let values = Sysctls::from_texts(with(&[
                ("ip_local_port_range", "100\t200\n"),
                ("ip_local_reserved_ports", reserved),
            ]));
            assert_eq!(values.ephemeral_ports(), Some(expected), "{reserved:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([0-9,\\- \t\n]|.){0,30}") {
            let values = Sysctls::from_texts(|_| Some(text.clone()));
            let _ = values.ephemeral_ports();
            prop_assert!(values.numbers().count() <= 8);
        }
    }
}
