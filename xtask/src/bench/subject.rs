//! What is compared: the bare machine, tcpmon as it is used, and the tools people use today.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use serde::Serialize;

use crate::process::find_program;

/// What bpftrace does that prints every event, in the words of its own tools.
const PRINT: &str = r#"tracepoint:sock:inet_sock_set_state /args->protocol == 6/ {
  printf("%d %s %s:%d %s:%d %d -> %d\n", pid, comm, ntop(args->saddr), args->sport,
    ntop(args->daddr), args->dport, args->oldstate, args->newstate);
}"#;

/// The least that bpftrace can do.
const COUNT: &str = "tracepoint:sock:inet_sock_set_state /args->protocol == 6/ { @n = count(); }";

/// Mounts what tools of tracepoints look for, where only the tool sees it, and becomes the tool.
const WITH_TRACEFS: &str = "mount -t debugfs debugfs /sys/kernel/debug; \
                            mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Nothing attached.
    Bare,
    /// Nothing attached, once more: how much two equal runs differ on this machine.
    BareAgain,
    /// Programs that do nothing, where tcpmon's probes are attached.
    Floor,
    /// `tcpmon daemon`, nobody streams.
    Daemon,
    /// `tcpmon daemon --time-wait sampled`, nobody streams: without the probes on timers.
    Sampled,
    /// `tcpmon daemon` and one `tcpmon tail --json`.
    Tail,
    /// `tcpmon daemon` and one `tcpmon tail --json --state close_wait`.
    FilteredTail,
    /// bpftrace, one line an event.
    BpftracePrint,
    /// bpftrace, a counter.
    BpftraceCount,
    /// bcc's tcpstates.
    BccTcpstates,
    /// libbpf-tools' tcpstates.
    LibbpfTcpstates,
}

impl Subject {
    /// What the row is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bare => "nothing",
            Self::BareAgain => "nothing, once more (the noise)",
            Self::Floor => "programs that do nothing, on the same tracepoints",
            Self::Daemon => "tcpmon daemon, no subscriber",
            Self::Sampled => "tcpmon daemon --time-wait sampled",
            Self::Tail => "tcpmon daemon + tail --json",
            Self::FilteredTail => "tcpmon daemon + tail --json --state close_wait",
            Self::BpftracePrint => "bpftrace, prints every event",
            Self::BpftraceCount => "bpftrace, counts only",
            Self::BccTcpstates => "bcc tcpstates (every event)",
            Self::LibbpfTcpstates => "libbpf-tools tcpstates (every event)",
        }
    }

    /// Nothing is attached.
    pub(super) fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::BareAgain)
    }

    /// No program of its own runs: of its rounds, the pace is of interest.
    pub(super) fn is_idle(self) -> bool {
        !self.has_daemon() && !self.has_reader()
    }

    /// Another project's program.
    pub(super) fn is_peer(self) -> bool {
        self.package().is_some()
    }

    /// The Debian package of a peer.
    pub(super) fn package(self) -> Option<&'static str> {
        match self {
            Self::BpftracePrint | Self::BpftraceCount => Some("bpftrace"),
            Self::BccTcpstates => Some("bpfcc-tools"),
            Self::LibbpfTcpstates => Some("libbpf-tools"),
            _ => None,
        }
    }

    /// The further arguments of the `tcpmon tail` that belongs to it, if one does.
    pub(super) fn tail(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Tail => Some(&[]),
            Self::FilteredTail => Some(&["--state", "close_wait"]),
            _ => None,
        }
    }

    /// The further arguments of its daemon.
    pub(super) fn daemon(self) -> &'static [&'static str] {
        match self {
            Self::Sampled => &["--time-wait", "sampled"],
            _ => &[],
        }
    }

    /// Whether a program belongs to it that writes what happens, or counts it.
    pub(super) fn has_reader(self) -> bool {
        self.is_peer() || self.tail().is_some()
    }

    /// Whether the daemon belongs to it.
    pub(super) fn has_daemon(self) -> bool {
        matches!(self, Self::Daemon | Self::Sampled | Self::Tail | Self::FilteredTail)
    }

    /// The file of a peer's program; `None` where it is not installed.
    pub(super) fn program(self) -> Option<PathBuf> {
        match self {
            Self::BpftracePrint | Self::BpftraceCount => find_program("bpftrace"),
            // Debian renames bcc's tools; elsewhere they lie in a folder of their own.
            Self::BccTcpstates => find_program("tcpstates-bpfcc").or_else(|| {
                let path = PathBuf::from("/usr/share/bcc/tools/tcpstates");
                path.is_file().then_some(path)
            }),
            // Fedora renames those of libbpf-tools. A script of that name is bcc's.
            Self::LibbpfTcpstates => find_program("tcpstates")
                .filter(|path| is_elf(path))
                .or_else(|| find_program("bpf-tcpstates")),
            _ => None,
        }
    }

    /// How a peer is started; `None` where it is not installed.
    pub(super) fn command(self) -> Option<Command> {
        let program = self.program()?;
        let mut command = if Path::new("/sys/kernel/tracing/events").is_dir() {
            Command::new(program)
        } else {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]).arg(program);
            command
        };
        match self {
            Self::BpftracePrint => drop(command.args(["-e", PRINT])),
            Self::BpftraceCount => drop(command.args(["-e", COUNT])),
            _ => {}
        }
        Some(command)
    }
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_not_a_program_of_libbpf_tools() {
        assert!(is_elf(&std::env::current_exe().expect("own path")));
        assert!(!is_elf(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))));
        assert!(!is_elf(Path::new("/nonexistent")));
    }

    #[test]
    fn every_tail_has_its_daemon_and_no_peer_has() {
        for subject in Subject::value_variants() {
            assert!(subject.tail().is_none() || subject.has_daemon(), "{subject:?}");
            assert!(!(subject.is_peer() && subject.has_daemon()), "{subject:?}");
            assert!(subject.is_peer() || subject.program().is_none(), "{subject:?}");
        }
    }
}
