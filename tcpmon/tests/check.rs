//! `tcpmon check` as people run it, on machines that lack something. Each lack is made with what
//! util-linux brings, and needs no privileges.

use std::process::Command;

use serde_json::Value;

const TCPMON: &str = env!("CARGO_BIN_EXE_tcpmon");

/// Runs `tcpmon check --json` behind this command, and gives its exit code and answer.
fn check(before: &[&str]) -> (Option<i32>, Value) {
    let line: Vec<_> = before.iter().copied().chain([TCPMON, "check", "--json"]).collect();
    let output = Command::new(line[0]).args(&line[1..]).output().expect("util-linux is installed");
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{before:?}: {error}: {output:?}"));
    (output.status.code(), answer)
}

/// The check of this name.
fn named<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .find(|check| check["name"] == name)
        .expect(name)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn this_machine_is_judged_by_trying() {
    let (code, answer) = check(&["env"]);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    assert_eq!(answer["kernel_release"], release.trim_end());
    assert_eq!(named(&answer, "kernel")["status"], "ok");
    assert_eq!(named(&answer, "BTF")["status"], "ok");
    if is_root() {
        assert_eq!((code, &answer["ok"]), (Some(0), &Value::Bool(true)), "{answer:#}");
        for probe in ["probe tp_btf/inet_sock_set_state", "probe iter/task_file"] {
            assert_eq!(named(&answer, probe)["status"], "ok", "{answer:#}");
        }
    } else {
        assert_eq!((code, &answer["ok"]), (Some(1), &Value::Bool(false)), "{answer:#}");
        assert_eq!(named(&answer, "capabilities")["status"], "fail", "{answer:#}");
    }
}

#[test]
fn an_old_kernel_is_refused() {
    let (code, answer) = check(&["setarch", "--uname-2.6"]);
    assert_eq!(code, Some(1));
    let kernel = named(&answer, "kernel");
    assert_eq!(kernel["status"], "fail");
    assert!(
        kernel["detail"].as_str().expect("text").ends_with(" has no BPF ring buffer"),
        "{kernel}"
    );
    assert_eq!(kernel["mend"], "tcpmon needs 5.15 or later");
}

#[test]
fn a_kernel_without_btf_is_refused() {
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let mut before = vec!["unshare", "--mount"];
    if !is_root() {
        before.extend(["--user", "--map-root-user"]);
    }
    before.extend(["sh", "-c", script, "sh"]);
    let (code, answer) = check(&before);
    assert_eq!(code, Some(1));
    let btf = named(&answer, "BTF");
    assert_eq!(btf["status"], "fail");
    assert_eq!(btf["detail"], "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing)");
    assert!(
        answer["checks"]
            .as_array()
            .expect("checks")
            .iter()
            .all(|check| { !check["name"].as_str().expect("text").starts_with("probe ") })
    );
}

#[test]
fn a_user_namespace_is_refused() {
    let (code, answer) = check(&["unshare", "--user", "--map-root-user"]);
    assert_eq!(code, Some(1));
    assert_eq!(named(&answer, "user namespace")["status"], "fail");
}

#[test]
fn a_process_without_capabilities_is_refused() {
    // Only root has capabilities to lose.
    let before: &[&str] =
        if is_root() { &["setpriv", "--bounding-set=-all", "--inh-caps=-all"] } else { &["env"] };
    let (code, answer) = check(before);
    assert_eq!(code, Some(1));
    assert_eq!(named(&answer, "capabilities")["status"], "fail");
    let probes = named(&answer, "probes");
    assert_eq!(probes["status"], "unknown");
    assert_eq!(probes["detail"], "not tried: needs CAP_BPF and CAP_PERFMON (run as root)");
}
