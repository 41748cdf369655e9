//! The capabilities of this process, as `/proc/self/status` shows them.

/// The capabilities that matter to tcpmon, with their numbers in
/// `include/uapi/linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Capability {
    DacReadSearch = 2,
    SysPtrace = 19,
    SysAdmin = 21,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    /// As in capabilities(7).
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

/// What this process may do, and what it could ever be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `CapEff`: one bit for each capability that it holds now.
    pub effective: u64,
    /// `CapBnd`: those that it, and all it starts, can be given at all.
    pub bounding: u64,
}

impl Capabilities {
    /// Reads `CapEff` and `CapBnd` of a `/proc/PID/status`; `None` if either is missing or not
    /// hexadecimal.
    pub fn parse(status: &str) -> Option<Self> {
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Self { effective: set("CapEff:")?, bounding: set("CapBnd:")? })
    }

    pub(super) fn holds(self, capability: Capability) -> bool {
        self.effective >> capability as u8 & 1 == 1
    }

    /// Whether it holds this one, or `CAP_SYS_ADMIN`, which the kernel takes for either of those
    /// that were split off it in 5.8: `bpf_capable()` and `perfmon_capable()` of
    /// `include/linux/capability.h`.
    pub(super) fn holds_or_admin(self, capability: Capability) -> bool {
        self.holds(capability) || self.holds(Capability::SysAdmin)
    }

    /// Whether it could get this one, or `CAP_SYS_ADMIN`, by becoming root.
    pub(super) fn can_get(self, capability: Capability) -> bool {
        Self { effective: self.bounding, ..self }.holds_or_admin(capability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\n\
                      CapEff:\t000000c000000004\nCapBnd:\t000001fffeffffff\nCapAmb:\t0\n";
        let sets = Capabilities::parse(status).expect("capabilities");
        assert_eq!(sets.effective, 0xc0_0000_0004);
        assert_eq!(sets.bounding, 0x1ff_feff_ffff);
        assert!(sets.holds(Capability::Bpf) && sets.holds(Capability::Perfmon));
        assert!(sets.holds(Capability::DacReadSearch) && !sets.holds(Capability::SysAdmin));
        for broken in ["", "CapEff:\t1\n", "CapBnd:\t1\n", "CapEff:\tx\nCapBnd:\t1\n"] {
            assert_eq!(Capabilities::parse(broken), None, "{broken:?}");
        }
        let long = "CapEff:\t11111111111111111\nCapBnd:\t0\n";
        assert_eq!(Capabilities::parse(long), None);
    }

    #[test]
    fn the_running_process_has_them() {
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        assert!(Capabilities::parse(&status).is_some());
    }

    #[test]
    fn admin_stands_for_both() {
        let admin = Capabilities { effective: 1 << 21, bounding: 0 };
        assert!(admin.holds_or_admin(Capability::Bpf) && admin.holds_or_admin(Capability::Perfmon));
        assert!(!admin.holds(Capability::Bpf) && !admin.can_get(Capability::Bpf));
        let none = Capabilities { effective: 0, bounding: 1 << 39 };
        assert!(none.can_get(Capability::Bpf) && !none.can_get(Capability::Perfmon));
    }
}
