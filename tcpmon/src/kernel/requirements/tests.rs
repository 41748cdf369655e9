//! Every verdict, from made-up facts.

use super::*;
use crate::kernel::btf::BtfError;

const ALL: u64 = u64::MAX;
const NONE: u64 = 0;
const BOTH: u64 = 1 << 38 | 1 << 39;

/// A machine on which nothing is wrong.
fn sound() -> Facts {
    Facts {
        release: "6.12.9-amd64".into(),
        btf: BtfState::Usable,
        capabilities: Ok(Capabilities { effective: ALL, bounding: ALL }),
        user_namespace: UserNamespace::Initial,
        lockdown: Lockdown::Mode("none".into()),
    }
}

fn holding(effective: u64, bounding: u64) -> Facts {
    Facts { capabilities: Ok(Capabilities { effective, bounding }), ..sound() }
}

fn on(release: &str) -> Facts {
    Facts { release: release.into(), ..sound() }
}

fn with_btf(btf: BtfState) -> Facts {
    Facts { btf, ..sound() }
}

fn locked(lockdown: Lockdown) -> Facts {
    Facts { lockdown, ..sound() }
}

fn mode(mode: &str) -> Facts {
    locked(Lockdown::Mode(mode.into()))
}

#[test]
fn each_fact_is_judged() {
    use Status::{Fail, Ok as Fine, Unknown};
    let nested = Facts { user_namespace: UserNamespace::Nested, ..sound() };
    let hidden = Facts { user_namespace: UserNamespace::Unknown, ..sound() };
    let no_proc = Facts { capabilities: Err("cannot read it".into()), ..sound() };
    for (facts, name, status, detail, mend) in [
        (sound(), "kernel", Fine, "6.12.9-amd64, at least 5.15", ""),
        (on("5.15.0-1034-azure"), "kernel", Fine, "5.15.0-1034-azure, at least", ""),
        (on("5.4.0-42"), "kernel", Fail, "kernel 5.4.0-42 has no BPF ring buffer", "5.15 or later"),
        (on("5.14.21"), "kernel", Fail, "5.14.21 is older than any", "tcpmon needs 5.15"),
        (on("house blend"), "kernel", Unknown, "\"house blend\"", ""),
        (sound(), "BTF", Fine, "has every field", ""),
        (with_btf(BtfState::Present), "BTF", Fine, "can be read", ""),
        (with_btf(BtfState::NoSysfs), "BTF", Fail, "sysfs is not mounted", "mount -t sysfs"),
        (
            with_btf(BtfState::Missing),
            "BTF",
            Fail,
            "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing)",
            "it was built without CONFIG_DEBUG_INFO_BTF",
        ),
        (
            with_btf(BtfState::Unreadable("Permission denied".into())),
            "BTF",
            Fail,
            "cannot be read: Permission denied",
            "let this process read it",
        ),
        (with_btf(BtfState::Unusable("no m".into())), "BTF", Fail, "no m", "newer than this"),
        (sound(), "user namespace", Fine, "the initial one", ""),
        (hidden, "user namespace", Unknown, "/proc/self/ns/user", ""),
        (nested, "user namespace", Fail, "not the initial user namespace", "on the host"),
        (sound(), "capabilities", Fine, "CAP_BPF and CAP_PERFMON are held", ""),
        (holding(1 << 21, ALL), "capabilities", Fine, "CAP_SYS_ADMIN is held and stands", ""),
        (holding(BOTH, ALL), "capabilities", Fine, "without CAP_SYS_PTRACE tcpmon's own", ""),
        (
            holding(NONE, ALL),
            "capabilities",
            Fail,
            "loading probes needs CAP_BPF and CAP_PERFMON, and they are not held",
            "run as root",
        ),
        (holding(1 << 39, ALL), "capabilities", Fail, "CAP_PERFMON is not held", "run as root"),
        (holding(1 << 38, ALL), "capabilities", Fail, "CAP_BPF is not held", "setcap"),
        (holding(NONE, 1 << 39), "capabilities", Fail, "they are not held", "even root has not"),
        (holding(NONE, BOTH), "capabilities", Fail, "they are not held", "run as root"),
        (holding(NONE, 1 << 21), "capabilities", Fail, "they are not held", "run as root"),
        (no_proc, "capabilities", Unknown, "cannot read it", ""),
        (sound(), "lockdown", Fine, "none", ""),
        (mode("integrity"), "lockdown", Fine, "integrity", ""),
        (mode("confidentiality"), "lockdown", Unknown, "refuses bpf_probe_read_kernel()", ""),
        (locked(Lockdown::Absent), "lockdown", Fine, "this kernel has none", ""),
        (locked(Lockdown::Unknown("not mounted".into())), "lockdown", Unknown, "not mounted", ""),
    ] {
        let checks = judge(&facts);
        let check = checks.iter().find(|check| check.name == name).expect(name);
        assert_eq!(check.status, status, "{check:?}");
        assert!(check.detail.contains(detail), "{check:?}");
        assert_eq!(check.mend.is_some(), status == Fail, "{check:?}");
        assert!(check.mend.as_deref().unwrap_or_default().contains(mend), "{check:?}");
        assert!(!check.detail.contains('\n'), "{check:?}");
        let refused = first_refusal(&checks);
        assert_eq!(refused.is_some(), status == Fail, "{check:?}");
    }
}

#[test]
fn the_first_failure_is_the_refusal() {
    let facts = Facts { btf: BtfState::Missing, ..on("5.4.0") };
    let refusal = first_refusal(&judge(&facts)).expect("a refusal");
    assert_eq!(
        refusal.to_string(),
        "kernel 5.4.0 has no BPF ring buffer; tcpmon needs 5.15 or later"
    );
    assert_eq!(first_refusal(&judge(&sound())), None);
}

fn probe(result: Result<(), String>) -> ProbeCheck {
    ProbeCheck { name: "iter/task_file", purpose: "owners of older sockets", without: None, result }
}

#[test]
fn probes_are_tried_only_where_nothing_else_stands_against_it() {
    for (facts, detail) in [
        (holding(NONE, ALL), "not tried: needs CAP_BPF and CAP_PERFMON (run as root)"),
        (on("5.4"), "not tried: see kernel"),
        (with_btf(BtfState::Missing), "not tried: see BTF"),
    ] {
        let report = report(&facts, || unreachable!("probes must not be tried"));
        assert!(!report.ok);
        let last = report.checks.last().expect("checks");
        assert_eq!((last.name.as_str(), last.status), ("probes", Status::Unknown));
        assert_eq!(last.detail, detail);
    }
    let good = report(&mode("confidentiality"), || vec![probe(Ok(()))]);
    assert!(good.ok);
    assert_eq!(good.checks.last().expect("checks").detail, "loads: owners of older sockets");
    assert_eq!(good.kernel_release, "6.12.9-amd64");
}

#[test]
fn a_probe_that_does_not_load_is_told_with_a_mend() {
    for (facts, reason, mend) in [
        (sound(), "Operation not permitted (os error 1)", "let tcpmon use bpf(2)"),
        (sound(), "unknown\n   func", "report this line"),
        (mode("confidentiality"), "Operation not permitted (os error 1)", "lockdown=integrity"),
    ] {
        let report = report(&facts, || vec![probe(Ok(())), probe(Err(reason.into()))]);
        assert!(!report.ok);
        let check = report.checks.last().expect("checks");
        assert_eq!(check.name, "probe iter/task_file");
        assert_eq!(check.status, Status::Fail);
        assert!(!check.detail.contains('\n'), "{check:?}");
        assert!(check.detail.contains("(owners of older sockets) does not load: "), "{check:?}");
        assert!(check.mend.as_deref().expect("a mend").contains(mend), "{check:?}");
    }
}

#[test]
fn a_probe_that_can_be_done_without_is_told_and_the_daemon_would_start() {
    let without = Some("older sockets have no owner");
    let lacking = ProbeCheck { without, ..probe(Err("unknown func".into())) };
    let report = report(&sound(), || vec![lacking]);
    assert!(report.ok, "{report:?}");
    let check = report.checks.last().expect("checks");
    assert_eq!(check.status, Status::Limited);
    assert!(check.detail.ends_with("unknown func; without it older sockets have no owner"));
    assert!(check.mend.is_some());
}

#[test]
fn the_daemon_words_unusable_btf_as_check_does() {
    let absent = BtfError::NoStruct { name: "tcp_sock".into() };
    let refusal = Refusal::from(OffsetsError::Unusable(vec![absent.to_string()]));
    assert_eq!(
        refusal.to_string(),
        "this kernel's structures are not those that the probes read: there is no struct tcp_sock \
         in this kernel's BTF; look for a tcpmon that is newer than this kernel, or report this \
         line"
    );
    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    let refusal = Refusal::from(OffsetsError::Read(missing)).to_string();
    assert!(refusal.starts_with("this kernel has no BTF (/sys/kernel/btf/vmlinux is missing); it"));
}
