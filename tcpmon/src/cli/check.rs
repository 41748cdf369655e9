//! `tcpmon check`: can it run here, and if not, what is to be done.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use super::{DEFAULT_CONFIG, config::ConfigError, daemon::DaemonArgs};
use crate::{
    export::web::Web,
    kernel::{
        probes::TimeWaitMode,
        requirements::{Check, Depth, Facts, ProbeCheck, Report, Status, first_refusal, report},
    },
};

/// Can tcpmon run here: kernel, BTF, capabilities, lockdown, each probe, the configuration.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CheckArgs {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Prints what was found, and gives 0 if the daemon would start here, else 1.
///
/// `probes` loads each probe and lets go of it again; it is called only if nothing else stands
/// against it.
///
/// # Errors
///
/// If standard output cannot be written. That its reader has gone is none: the exit code still
/// answers.
pub fn run(args: CheckArgs, probes: impl FnOnce() -> Vec<ProbeCheck>) -> anyhow::Result<ExitCode> {
    let mut report = report(&Facts::gather(Depth::Full), probes);
    let configured = super::daemon_args_of(["tcpmon", "daemon"].map(Into::into).to_vec())
        .and_then(|args| Ok(args.alerts.check().map(|()| args)?));
    report.checks.extend(judge_configuration(configured, Path::new(DEFAULT_CONFIG).exists()));
    report.ok = first_refusal(&report.checks).is_none();
    let text = if args.json { json(&report)? } else { lines(&report) };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write to standard output");
        }
        _ => {}
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Judges the options that the daemon would have without flags, and says how it would watch
/// TIME_WAIT; `has_file`: whether there is a configuration file.
fn judge_configuration(configured: anyhow::Result<DaemonArgs>, has_file: bool) -> Vec<Check> {
    let check = |name: &str, status, detail: String, mend: Option<&str>| Check {
        name: name.to_owned(),
        status,
        detail,
        mend: mend.map(str::to_owned),
    };
    let args = match configured {
        Ok(args) => args,
        Err(error) => {
            // Whoever asks may not be the one that the daemon runs as.
            let is_forbidden = matches!(
                error.downcast_ref(),
                Some(ConfigError::Read { reason, .. })
                    if reason.kind() == ErrorKind::PermissionDenied
            );
            let (status, mend) = if is_forbidden {
                (Status::Unknown, None)
            } else {
                (Status::Fail, Some("correct it: `tcpmon example-config` has every key explained"))
            };
            return vec![check("configuration", status, format!("{error:#}"), mend)];
        }
    };
    let source = if has_file { DEFAULT_CONFIG } else { "no file, so the defaults" };
    let watched = match args.time_wait {
        TimeWaitMode::Exact => "exact: by the timers of its sockets, each that enters and leaves",
        TimeWaitMode::Sampled => {
            "sampled: by snapshots and the kernel's counters; who entered, and how sockets left, \
             is not told"
        }
    };
    let mut checks = vec![
        check("configuration", Status::Ok, source.to_owned(), None),
        check("TIME_WAIT", Status::Ok, watched.to_owned(), None),
    ];
    if let Some(file) = args.web_config_file.as_deref() {
        let (status, detail, mend) = match Web::from_file(Some(file)) {
            Ok(_) => (Status::Ok, file.display().to_string(), None),
            Err(error) if error.is_forbidden() => (Status::Unknown, error.to_string(), None),
            Err(error) => (Status::Fail, error.to_string(), Some("correct that file")),
        };
        checks.push(check("web.config.file", status, detail, mend));
    }
    checks
}

fn json(report: &Report) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

/// One line for each check, with what to do below those that failed, and the verdict last.
fn lines(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Limited => "limited",
            Status::Fail => "FAIL",
            Status::Unknown => "unknown",
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{status:<7}  {:<width$}  {}", check.name, check.detail);
        if let Some(mend) = &check.mend {
            let _ = writeln!(text, "{:<7}  {:<width$}  -> {mend}", "", "");
        }
    }
    text.push('\n');
    let _ = match first_refusal(&report.checks) {
        None => writeln!(text, "tcpmon daemon would start here"),
        Some(refusal) => writeln!(text, "tcpmon daemon would not start: {}", refusal.cause),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::requirements::{BtfState, Capabilities, Lockdown, UserNamespace};
    use insta::assert_snapshot;

    fn machine() -> Facts {
        Facts {
            release: "6.1.0-31-amd64".into(),
            btf: BtfState::Usable,
            capabilities: Ok(Capabilities { effective: u64::MAX, bounding: u64::MAX }),
            user_namespace: UserNamespace::Initial,
            lockdown: Lockdown::Unknown("securityfs is not mounted on /sys/kernel/security".into()),
        }
    }

    fn probes(second: Result<(), String>) -> Vec<ProbeCheck> {
        vec![
            ProbeCheck {
                name: "tp_btf/inet_sock_set_state",
                purpose: "every transition",
                without: None,
                result: Ok(()),
            },
            ProbeCheck {
                name: "iter/task_file",
                purpose: "owners of older sockets",
                without: None,
                result: second,
            },
        ]
    }

    #[test]
    fn all_is_well() {
        let report = report(&machine(), || probes(Ok(())));
        assert_snapshot!(lines(&report), @r"
        ok       kernel                            6.1.0-31-amd64, at least 5.15
        ok       BTF                               /sys/kernel/btf/vmlinux has every field that the probes read
        ok       user namespace                    the initial one
        ok       capabilities                      CAP_BPF and CAP_PERFMON are held
        unknown  lockdown                          securityfs is not mounted on /sys/kernel/security
        ok       probe tp_btf/inet_sock_set_state  loads: every transition
        ok       probe iter/task_file              loads: owners of older sockets

        tcpmon daemon would start here
        ");
    }

    fn daemon(flags: &[&str]) -> anyhow::Result<DaemonArgs> {
        let argv = [&["tcpmon", "daemon"], flags].concat();
        super::super::daemon_args_of(argv.into_iter().map(Into::into).collect())
    }

    #[test]
    fn a_web_configuration_that_will_not_do_keeps_the_daemon_from_starting() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("web.yml");
        let judged = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&path, text).expect("a file");
            }
            let flag = format!("--web.config.file={}", path.display());
            let mut checks = judge_configuration(daemon(&[&flag]), false);
            checks.pop().expect("a check")
        };
        for (text, status, word) in [
            (None, Status::Fail, "cannot read"),
            (Some("tls_server_confg: {}"), Status::Fail, "tls_server_confg"),
            (Some("{}"), Status::Ok, "web.yml"),
        ] {
            let check = judged(text);
            assert_eq!(check.name, "web.config.file");
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.detail.contains(word) && !check.detail.contains('\n'), "{check:?}");
        }
    }

    #[test]
    fn the_configuration_is_judged_and_says_how_time_wait_is_watched() {
        for (mode, beginning) in [("exact", "exact: "), ("sampled", "sampled: ")] {
            let checks = judge_configuration(daemon(&["--time-wait", mode]), false);
            let [configuration, time_wait] = &checks[..] else { panic!("{checks:?}") };
            assert_eq!(configuration.status, Status::Ok);
            assert!(time_wait.detail.starts_with(beginning), "{time_wait:?}");
        }
        let error = ConfigError::File {
            path: DEFAULT_CONFIG.into(),
            line: 3,
            column: 1,
            message: "there is no option topp; did you mean top?".into(),
        };
        let [broken] = &judge_configuration(Err(error.into()), true)[..] else { panic!("one") };
        assert_eq!(broken.status, Status::Fail);
        assert!(broken.detail.contains("tcpmon.toml:3:1: ") && broken.mend.is_some(), "{broken:?}");
        let reason = io::Error::from(ErrorKind::PermissionDenied);
        let error = ConfigError::Read { path: DEFAULT_CONFIG.into(), reason };
        let [hidden] = &judge_configuration(Err(error.into()), true)[..] else { panic!("one") };
        assert_eq!((hidden.status, &hidden.mend), (Status::Unknown, &None));
    }

    #[test]
    fn a_probe_is_refused() {
        let report = report(&machine(), || probes(Err("Invalid argument (os error 22)".into())));
        assert_snapshot!(lines(&report), @r"
        ok       kernel                            6.1.0-31-amd64, at least 5.15
        ok       BTF                               /sys/kernel/btf/vmlinux has every field that the probes read
        ok       user namespace                    the initial one
        ok       capabilities                      CAP_BPF and CAP_PERFMON are held
        unknown  lockdown                          securityfs is not mounted on /sys/kernel/security
        ok       probe tp_btf/inet_sock_set_state  loads: every transition
        FAIL     probe iter/task_file              probe iter/task_file (owners of older sockets) does not load: Invalid argument (os error 22)
                                                   -> report this line, with the kernel's release

        tcpmon daemon would not start: probe iter/task_file (owners of older sockets) does not load: Invalid argument (os error 22)
        ");
    }

    #[test]
    fn an_old_kernel_and_an_ordinary_user() {
        let facts = Facts {
            release: "2.6.78".into(),
            btf: BtfState::Missing,
            capabilities: Ok(Capabilities { effective: 0, bounding: u64::MAX }),
            ..machine()
        };
        let report = report(&facts, || unreachable!("nothing may be loaded"));
        assert_snapshot!(lines(&report), @r"
        FAIL     kernel          kernel 2.6.78 has no BPF ring buffer
                                 -> tcpmon needs 5.15 or later
        FAIL     BTF             this kernel has no BTF (/sys/kernel/btf/vmlinux is missing)
                                 -> it was built without CONFIG_DEBUG_INFO_BTF: boot one with it, as all large distributions' are; if it has it, something is mounted over /sys
        ok       user namespace  the initial one
        FAIL     capabilities    loading probes needs CAP_BPF and CAP_PERFMON, and they are not held
                                 -> run as root, or give them to the program: setcap cap_bpf,cap_perfmon=ep /path/to/tcpmon
        unknown  lockdown        securityfs is not mounted on /sys/kernel/security
        unknown  probes          not tried: see kernel

        tcpmon daemon would not start: kernel 2.6.78 has no BPF ring buffer
        ");
        assert_snapshot!(json(&report).expect("JSON"), @r#"
        {
          "ok": false,
          "kernel_release": "2.6.78",
          "checks": [
            {
              "name": "kernel",
              "status": "fail",
              "detail": "kernel 2.6.78 has no BPF ring buffer",
              "mend": "tcpmon needs 5.15 or later"
            },
            {
              "name": "BTF",
              "status": "fail",
              "detail": "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing)",
              "mend": "it was built without CONFIG_DEBUG_INFO_BTF: boot one with it, as all large distributions' are; if it has it, something is mounted over /sys"
            },
            {
              "name": "user namespace",
              "status": "ok",
              "detail": "the initial one",
              "mend": null
            },
            {
              "name": "capabilities",
              "status": "fail",
              "detail": "loading probes needs CAP_BPF and CAP_PERFMON, and they are not held",
              "mend": "run as root, or give them to the program: setcap cap_bpf,cap_perfmon=ep /path/to/tcpmon"
            },
            {
              "name": "lockdown",
              "status": "unknown",
              "detail": "securityfs is not mounted on /sys/kernel/security",
              "mend": null
            },
            {
              "name": "probes",
              "status": "unknown",
              "detail": "not tried: see kernel",
              "mend": null
            }
          ]
        }
        "#);
    }
}
