//! Letting go of capabilities as soon as the probes are loaded.
//!
//! Capabilities belong to threads (capset(2)), so each thread of the daemon lets go of them itself,
//! as the first thing it does; the one that loads the probes does so afterwards. What is kept is
//! what the thread's work takes, and never more than it was given:
//!
//! | thread | keeps | for |
//! |---|---|---|
//! | survey, of all namespaces | `CAP_SYS_ADMIN` | setns(2) into network namespaces |
//! | all, where all namespaces are watched | `CAP_SYS_PTRACE` | which network namespace a process is in, `/proc/PID/ns/net` |
//! | all | `CAP_DAC_READ_SEARCH` | names of cgroups whose folders are closed; TLS keys at a reload |
//! | all, before Linux 5.19 | `CAP_BPF` | reading maps where `kernel.unprivileged_bpf_disabled` is set |

use rustix::thread::{CapabilitySet, CapabilitySets};
use std::sync::OnceLock;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Goes from namespace to namespace.
    Survey,
    /// Everything else, but for loading the probes.
    Other,
}

/// What is let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    all_namespaces: bool,
    /// The kernel asks for `CAP_BPF` with every bpf(2).
    bpf_for_all: bool,
}

/// Set by the daemon; a program that has none keeps what it was given.
static PLAN: OnceLock<Plan> = OnceLock::new();

/// From here on every thread that calls [`shed`] keeps only what its role takes. Also forbids that
/// a program started from here gets more than its parent has.
///
/// # Errors
///
/// The system forbids it, which none known does.
pub fn plan(all_namespaces: bool) -> rustix::io::Result<()> {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let _ = PLAN.set(Plan { all_namespaces, bpf_for_all: asks_for_bpf(&release) });
    rustix::thread::set_no_new_privs(true)
}

/// Whether bpf(2) of that kernel asks for `CAP_BPF` whatever is to be done: until 5.19
/// (`__sys_bpf()` in kernel/bpf/syscall.c). An unknown release is taken for an old one.
fn asks_for_bpf(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 19),
        _ => true,
    }
}

impl Plan {
    fn keeps(self, role: Role) -> CapabilitySet {
        let mut kept = CapabilitySet::DAC_READ_SEARCH;
        kept.set(CapabilitySet::SYS_PTRACE, self.all_namespaces);
        kept.set(CapabilitySet::SYS_ADMIN, self.all_namespaces && role == Role::Survey);
        kept.set(CapabilitySet::BPF, self.bpf_for_all);
        kept
    }
}

/// Lets go of what the calling thread does not need, for good. Nothing happens without a [`plan`].
pub fn shed(role: Role) {
    let Some(plan) = PLAN.get() else { return };
    if let Err(error) = shed_all_but(plan.keeps(role)) {
        // To go on with more than is needed is no worse than it was before.
        log::warn!("cannot drop capabilities: {error}; the daemon keeps what it was given");
    }
}

fn shed_all_but(kept: CapabilitySet) -> rustix::io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    let sets = CapabilitySets {
        effective: held.effective & kept,
        permitted: held.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    // The ambient set goes with these two.
    rustix::thread::set_capabilities(None, sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told_from_new_ones() {
        for (release, expected) in [
            ("5.15.0-91-generic", true),
            ("5.18.19", true),
            ("5.19.0", false),
            ("6.1.0-13-amd64", false),
            ("6.18", false),
            ("5", true),
            ("", true),
            ("x.y", true),
        ] {
            assert_eq!(asks_for_bpf(release), expected, "{release}");
        }
    }

    #[test]
    fn the_survey_alone_may_change_namespaces() {
        let all = Plan { all_namespaces: true, bpf_for_all: false };
        let host = Plan { all_namespaces: false, bpf_for_all: false };
        assert_eq!(all.keeps(Role::Survey) - all.keeps(Role::Other), CapabilitySet::SYS_ADMIN);
        for role in [Role::Survey, Role::Other] {
            assert_eq!(host.keeps(role), CapabilitySet::DAC_READ_SEARCH);
            assert!(!all.keeps(role).contains(CapabilitySet::BPF));
            assert!(Plan { bpf_for_all: true, ..all }.keeps(role).contains(CapabilitySet::BPF));
        }
    }

    #[test]
    fn a_thread_lets_go_of_its_own_and_of_no_other_s() {
        let before = rustix::thread::capabilities(None).expect("capabilities");
        let after = std::thread::spawn(|| {
            shed_all_but(CapabilitySet::SYS_PTRACE).expect("less is always allowed");
            rustix::thread::capabilities(None).expect("capabilities")
        });
        let after = after.join().expect("a thread");
        assert!((after.permitted - CapabilitySet::SYS_PTRACE).is_empty(), "{after:?}");
        assert!((after.effective - CapabilitySet::SYS_PTRACE).is_empty(), "{after:?}");
        assert!(after.inheritable.is_empty());
        assert_eq!(rustix::thread::capabilities(None), Ok(before));
    }
}
