//! Can tcpmon run here? One list of requirements for `tcpmon check`, which tells all of them, and
//! for the daemon, which refuses to start with the first that is not met.
//!
//! [`Facts`] are gathered first and judged afterwards by pure functions, so that every verdict is
//! tested without a machine that deserves it.

mod capabilities;
mod facts;
mod release;

#[cfg(test)]
mod tests;

use serde::Serialize;
use thiserror::Error;

pub use capabilities::Capabilities;
use capabilities::Capability;
pub use facts::{BtfState, Depth, Facts, Lockdown, UserNamespace};

use crate::kernel::btf::VMLINUX;
use crate::kernel::offsets::OffsetsError;

/// How the attempt to load one probe went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCheck {
    /// The probe, by the name that its metrics bear.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub purpose: &'static str,
    /// What is missing where the daemon goes on without it; `None`: it does not.
    pub without: Option<&'static str>,
    /// In one line, why the kernel would not take it.
    pub result: Result<(), String>,
}

/// Why tcpmon cannot run here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{cause}; {mend}")]
pub struct Refusal {
    /// What is not as it must be.
    pub cause: String,
    /// What to do about it.
    pub mend: String,
}

impl From<OffsetsError> for Refusal {
    fn from(error: OffsetsError) -> Self {
        let cause = error.to_string();
        first_refusal(&[judge_btf(&error.into())])
            .unwrap_or(Self { cause, mend: "see `tcpmon check`".into() })
    }
}

/// How a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is met.
    Ok,
    /// It is not, and the daemon would start and do without.
    Limited,
    /// It is not, and the daemon would not start.
    Fail,
    /// This cannot be told beforehand; the daemon would try.
    Unknown,
}

/// One requirement, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: String,
    /// The verdict.
    pub status: Status,
    /// What was found, in one line.
    pub detail: String,
    /// What to do; set for every failure.
    pub mend: Option<String>,
}

/// The answer of `tcpmon check`, in the shape of its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the daemon would start.
    pub ok: bool,
    /// `uname -r`.
    pub kernel_release: String,
    /// Every requirement, in the order in which the daemon meets them.
    pub checks: Vec<Check>,
}

/// Refuses where the daemon could not run, before anything is loaded. Costs well under a
/// millisecond; whether the kernel takes the probes is left to the attempt.
///
/// # Errors
///
/// With the first requirement that is not met.
pub fn refuse() -> Result<(), Refusal> {
    first_refusal(&judge(&Facts::gather(Depth::Quick))).map_or(Ok(()), Err)
}

/// Everything that [`refuse`] looks at and more: whether the BTF has all fields, and, if nothing
/// else stands against it, whether each probe loads.
pub fn report(facts: &Facts, probes: impl FnOnce() -> Vec<ProbeCheck>) -> Report {
    let mut checks = judge(facts);
    match checks.iter().find(|check| check.status == Status::Fail) {
        None => checks.extend(probes().into_iter().map(|probe| judge_probe(probe, facts))),
        Some(failed) => {
            let detail = if failed.name == CAPABILITIES {
                "not tried: needs CAP_BPF and CAP_PERFMON (run as root)".to_owned()
            } else {
                format!("not tried: see {}", failed.name)
            };
            let name = "probes".to_owned();
            checks.push(Check { name, status: Status::Unknown, detail, mend: None });
        }
    }
    Report { ok: first_refusal(&checks).is_none(), kernel_release: facts.release.clone(), checks }
}

/// The first failure, as the daemon words it.
pub fn first_refusal(checks: &[Check]) -> Option<Refusal> {
    let failed = checks.iter().find(|check| check.status == Status::Fail)?;
    let mend = failed.mend.clone().unwrap_or_else(|| "see `tcpmon check`".into());
    Some(Refusal { cause: failed.detail.clone(), mend })
}

const CAPABILITIES: &str = "capabilities";

/// Judges everything but the probes.
pub fn judge(facts: &Facts) -> Vec<Check> {
    vec![
        judge_kernel(&facts.release),
        judge_btf(&facts.btf),
        judge_user_namespace(facts.user_namespace),
        judge_capabilities(facts.capabilities.as_ref()),
        judge_lockdown(&facts.lockdown),
    ]
}

fn judge_kernel(release: &str) -> Check {
    let (major, minor) = release::OLDEST;
    let name = "kernel";
    match release::version(release).map(release::lacks) {
        Some(None) => ok(name, format!("{release}, at least {major}.{minor}")),
        Some(Some(lack)) => fail(
            name,
            format!("kernel {release} {lack}"),
            format!("tcpmon needs {major}.{minor} or later"),
        ),
        None => unknown(name, format!("no version can be read out of its release {release:?}")),
    }
}

fn judge_btf(btf: &BtfState) -> Check {
    let name = "BTF";
    match btf {
        BtfState::Present => ok(name, format!("{VMLINUX} can be read")),
        BtfState::Usable => ok(name, format!("{VMLINUX} has every field that the probes read")),
        BtfState::NoSysfs => fail(
            name,
            format!("{VMLINUX} cannot be looked for: sysfs is not mounted"),
            "mount it (mount -t sysfs sysfs /sys), or give the container the host's /sys".into(),
        ),
        BtfState::Missing => fail(
            name,
            format!("this kernel has no BTF ({VMLINUX} is missing)"),
            "it was built without CONFIG_DEBUG_INFO_BTF: boot one with it, as all large \
             distributions' are; if it has it, something is mounted over /sys"
                .into(),
        ),
        BtfState::Unreadable(why) => fail(
            name,
            format!("{VMLINUX} cannot be read: {why}"),
            "let this process read it (a sandbox or security module forbids it)".into(),
        ),
        BtfState::Unusable(why) => fail(
            name,
            why.clone(),
            "look for a tcpmon that is newer than this kernel, or report this line".into(),
        ),
    }
}

fn judge_user_namespace(namespace: UserNamespace) -> Check {
    let name = "user namespace";
    match namespace {
        UserNamespace::Initial => ok(name, "the initial one".into()),
        UserNamespace::Unknown => unknown(name, "/proc/self/ns/user cannot be read".into()),
        // bpf_capable() of include/linux/capability.h asks for the initial namespace.
        UserNamespace::Nested => fail(
            name,
            "this is not the initial user namespace, and only there may probes be loaded".into(),
            "run tcpmon on the host, or in a container without a user namespace of its own".into(),
        ),
    }
}

/// Capabilities that the daemon starts without, and what is then missing.
const USEFUL: [(Capability, &str); 3] = [
    // BPF_ENABLE_STATS in kernel/bpf/syscall.c.
    (Capability::SysAdmin, "the probes' cost is not measured"),
    // proc_ns_readlink() and proc_ns_get_link() in fs/proc/namespaces.c ask ptrace_may_access()
    // of process 1, which tells the host's namespace.
    (Capability::SysPtrace, "tcpmon's own network namespace passes for the host's"),
    // The walk through the cgroups for their names.
    (Capability::DacReadSearch, "cgroups whose folders are closed to others have no service name"),
];

fn judge_capabilities(capabilities: Result<&Capabilities, &String>) -> Check {
    let name = CAPABILITIES;
    let held = match capabilities {
        Ok(held) => held,
        Err(why) => return unknown(name, why.clone()),
    };
    // Tracing programs ask for both (bpf_prog_load() in kernel/bpf/syscall.c), for no
    // CAP_NET_ADMIN, and since 5.11 their memory is not counted against RLIMIT_MEMLOCK, which
    // took CAP_SYS_RESOURCE to raise.
    let needed = [Capability::Bpf, Capability::Perfmon];
    let lacking: Vec<_> = needed.into_iter().filter(|&cap| !held.holds_or_admin(cap)).collect();
    if lacking.is_empty() {
        let mut detail = String::from(if needed.into_iter().all(|cap| held.holds(cap)) {
            "CAP_BPF and CAP_PERFMON are held"
        } else {
            "CAP_SYS_ADMIN is held and stands for CAP_BPF and CAP_PERFMON"
        });
        for (capability, loss) in USEFUL {
            if !held.holds(capability) {
                detail.push_str("; without ");
                detail.push_str(capability.name());
                detail.push(' ');
                detail.push_str(loss);
            }
        }
        return ok(name, detail);
    }
    let lacking = match lacking[..] {
        [one] => format!("{} is not held", one.name()),
        _ => "they are not held".to_owned(),
    };
    let detail = format!("loading probes needs CAP_BPF and CAP_PERFMON, and {lacking}");
    let mend = if needed.into_iter().all(|cap| held.can_get(cap)) {
        "run as root, or give them to the program: setcap cap_bpf,cap_perfmon=ep /path/to/tcpmon"
    } else {
        "even root has not got them here: give them to the container (--cap-add BPF --cap-add \
         PERFMON) or to the unit (CapabilityBoundingSet=CAP_BPF CAP_PERFMON)"
    };
    fail(name, detail, mend.into())
}

fn judge_lockdown(lockdown: &Lockdown) -> Check {
    let name = "lockdown";
    match lockdown {
        Lockdown::Absent => ok(name, "this kernel has none".into()),
        Lockdown::Mode(mode) if mode == "none" => ok(name, "none".into()),
        Lockdown::Mode(mode) if mode == "integrity" => {
            ok(name, "integrity, which allows all that the probes do".into())
        }
        // LOCKDOWN_BPF_READ_KERNEL takes bpf_probe_read_kernel() and its like away, in
        // bpf_tracing_func_proto() and bpf_base_func_proto(). Loads through typed pointers, which
        // the verifier checks, pass no such question in the sources known to us.
        Lockdown::Mode(mode) => unknown(
            name,
            format!(
                "{mode}: the kernel refuses bpf_probe_read_kernel(), which only the probes \
                 on timers call; whether it takes the others shows only when they are loaded"
            ),
        ),
        Lockdown::Unknown(why) => unknown(name, why.clone()),
    }
}

fn judge_probe(probe: ProbeCheck, facts: &Facts) -> Check {
    let name = format!("probe {}", probe.name);
    match probe.result {
        Ok(()) => ok(&name, format!("loads: {}", probe.purpose)),
        Err(reason) => {
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            let mend = match &facts.lockdown {
                Lockdown::Mode(mode) if mode == "confidentiality" => {
                    "boot with lockdown=integrity, which lets probes read kernel memory"
                }
                _ if reason.contains("not permitted") || reason.contains("denied") => {
                    "let tcpmon use bpf(2): a seccomp filter or security module forbids it"
                }
                _ => "report this line, with the kernel's release",
            };
            let detail = format!("{name} ({}) does not load: {reason}", probe.purpose);
            let Some(without) = probe.without else { return fail(&name, detail, mend.into()) };
            let detail = format!("{detail}; without it {without}");
            Check { name, status: Status::Limited, detail, mend: Some(mend.into()) }
        }
    }
}

fn ok(name: &str, detail: String) -> Check {
    Check { name: name.into(), status: Status::Ok, detail, mend: None }
}

fn fail(name: &str, detail: String, mend: String) -> Check {
    Check { name: name.into(), status: Status::Fail, detail, mend: Some(mend) }
}

fn unknown(name: &str, detail: String) -> Check {
    Check { name: name.into(), status: Status::Unknown, detail, mend: None }
}
