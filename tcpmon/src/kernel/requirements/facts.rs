//! Gathers what there is to know about this machine before anything is loaded.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use super::Capabilities;
use crate::kernel::btf::VMLINUX;
use crate::kernel::offsets::{self, OffsetsError};

/// Inode of the initial user namespace: `PROC_USER_INIT_INO` of `include/linux/proc_ns.h`.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// What decides whether tcpmon can run here.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// Whether the kernel describes its types.
    pub btf: BtfState,
    /// Of this process; in words why they are not known.
    pub capabilities: Result<Capabilities, String>,
    /// Whether those capabilities count.
    pub user_namespace: UserNamespace,
    /// Whether the kernel is locked down, `kernel_lockdown(7)`.
    pub lockdown: Lockdown,
}

/// The kernel's BTF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BtfState {
    /// There is no `/sys/kernel` to look in.
    NoSysfs,
    /// The file is not there.
    Missing,
    /// It is there but cannot be read; why.
    Unreadable(String),
    /// It can be opened; it was not looked into.
    Present,
    /// It was read, and the probes cannot work with it; why.
    Unusable(String),
    /// It was read, and every field that the probes need was found.
    Usable,
}

/// The user namespace of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    /// The one that the machine booted with.
    Initial,
    /// Another one, whose capabilities bpf(2) does not honour.
    Nested,
    /// `/proc` does not tell.
    Unknown,
}

/// What `/sys/kernel/security/lockdown` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// The kernel has no such security module, or it is switched off.
    Absent,
    /// The mode in force: `none`, `integrity` or `confidentiality`.
    Mode(String),
    /// It does not say; why.
    Unknown(String),
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Only what costs next to nothing: the BTF is not read.
    Quick,
    /// Everything.
    Full,
}

impl Facts {
    /// Looks at this machine and this process.
    pub fn gather(depth: Depth) -> Self {
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            btf: btf(depth),
            capabilities: fs::read_to_string("/proc/self/status")
                .map_err(|error| format!("cannot read /proc/self/status: {error}"))
                .and_then(|status| {
                    Capabilities::parse(&status)
                        .ok_or_else(|| "/proc/self/status does not show capabilities".to_owned())
                }),
            user_namespace: match fs::read_link("/proc/self/ns/user") {
                Ok(link) if link == Path::new(INITIAL_USER_NAMESPACE) => UserNamespace::Initial,
                Ok(_) => UserNamespace::Nested,
                // A kernel without CONFIG_USER_NS has only the initial one, and no such file.
                Err(error)
                    if error.kind() == ErrorKind::NotFound
                        && Path::new("/proc/self/ns/mnt").exists() =>
                {
                    UserNamespace::Initial
                }
                Err(_) => UserNamespace::Unknown,
            },
            lockdown: lockdown(),
        }
    }
}

fn btf(depth: Depth) -> BtfState {
    match depth {
        Depth::Quick => match File::open(VMLINUX) {
            Ok(_) => BtfState::Present,
            Err(error) => OffsetsError::Read(error).into(),
        },
        Depth::Full => match offsets::of_running_kernel() {
            Ok(_) => BtfState::Usable,
            Err(error) => error.into(),
        },
    }
}

impl From<OffsetsError> for BtfState {
    fn from(error: OffsetsError) -> Self {
        match error {
            OffsetsError::Read(error) if error.kind() != ErrorKind::NotFound => {
                Self::Unreadable(error.to_string())
            }
            OffsetsError::Read(_) if Path::new("/sys/kernel").exists() => Self::Missing,
            OffsetsError::Read(_) => Self::NoSysfs,
            error => Self::Unusable(error.to_string()),
        }
    }
}

fn lockdown() -> Lockdown {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(modes) => lockdown_mode(&modes)
            .map_or_else(|| Lockdown::Unknown(format!("no mode in {modes:?}")), Lockdown::Mode),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Every securityfs has this file.
            if Path::new("/sys/kernel/security/lsm").exists() {
                Lockdown::Absent
            } else {
                Lockdown::Unknown("securityfs is not mounted on /sys/kernel/security".into())
            }
        }
        Err(error) => {
            Lockdown::Unknown(format!("cannot read /sys/kernel/security/lockdown: {error}"))
        }
    }
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown_mode(modes: &str) -> Option<String> {
    modes
        .split_whitespace()
        .find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_brackets_is_in_force() {
        for (modes, expected) in [
            ("[none] integrity confidentiality\n", Some("none")),
            ("none [integrity] confidentiality\n", Some("integrity")),
            ("none integrity [confidentiality]\n", Some("confidentiality")),
            ("none integrity\n", None),
            ("[none", None),
            ("", None),
        ] {
            assert_eq!(lockdown_mode(modes).as_deref(), expected, "{modes:?}");
        }
    }

    #[test]
    fn this_machine_is_described() {
        let facts = Facts::gather(Depth::Full);
        assert_eq!(
            facts.release,
            fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs").trim_end()
        );
        assert_eq!(facts.btf, BtfState::Usable);
        assert!(facts.capabilities.is_ok());
        assert_eq!(Facts::gather(Depth::Quick).btf, BtfState::Present);
        // The initial user namespace is the one that maps every id to itself.
        let map = fs::read_to_string("/proc/self/uid_map").expect("procfs");
        let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
        let expected = if whole { UserNamespace::Initial } else { UserNamespace::Nested };
        assert_eq!(facts.user_namespace, expected);
    }
}
