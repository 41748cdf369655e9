//! What the kernel tells about a process: CPU time, memory, children, and its BPF programs.

use std::{fs, io, os::fd::OwnedFd, time::Duration};

use serde::Serialize;

use super::bpf::bpf;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident now (`VmRSS`).
    pub resident: u64,
    /// Resident at most since the process began (`VmHWM`).
    pub peak: u64,
}

/// The kernel's account of BPF programs, while it measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramStats {
    /// Time spent in runs.
    pub(super) run_time: Duration,
    /// How many runs.
    pub(super) runs: u64,
    /// Runs left out because the program would have interrupted itself; counted at all times.
    pub(super) misses: u64,
}

/// CPU time that a process has used, all threads together, ended ones included.
///
/// The process's own clock has nanoseconds, where /proc/PID/stat has ticks of 10 ms: a whole
/// second's work of a tool that costs little is a few ticks.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is writable, and nothing else is touched.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable, and nothing else is touched.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanoseconds = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanoseconds))
}

/// Memory of a process.
pub(crate) fn memory(pid: u32) -> io::Result<Memory> {
    Ok(parse_memory(&fs::read_to_string(format!("/proc/{pid}/status"))?))
}

fn parse_memory(status: &str) -> Memory {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 =
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Memory {
        resident: bytes("VmRSS").unwrap_or_default(),
        peak: bytes("VmHWM").unwrap_or_default(),
    }
}

/// All BPF programs of which a process has a file descriptor, added up.
pub(super) fn programs(pid: u32) -> io::Result<ProgramStats> {
    let mut sum = ProgramStats::default();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        // A descriptor may be closed between the listing and the look.
        let Some(stats) =
            fs::read_to_string(entry.path()).ok().and_then(|text| parse_program(&text))
        else {
            continue;
        };
        sum.run_time += stats.run_time;
        sum.runs += stats.runs;
        sum.misses += stats.misses;
    }
    Ok(sum)
}

/// Reads what `bpf_prog_show_fdinfo()` (kernel/bpf/syscall.c) writes; `None` for any other file.
fn parse_program(fdinfo: &str) -> Option<ProgramStats> {
    let value = |name: &str| -> Option<u64> {
        fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    Some(ProgramStats {
        run_time: Duration::from_nanos(value("run_time_ns:")?),
        runs: value("run_cnt:")?,
        // Since Linux 5.12.
        misses: value("recursion_misses:").unwrap_or_default(),
    })
}

/// Pids and names of the children of a process.
pub(super) fn children(parent: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let (comm, its_parent) =
            parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (its_parent == parent).then_some((pid, comm))
    })
    .collect()
}

/// Name and parent in `/proc/PID/stat`; the name may have blanks and brackets in it.
fn parse_stat(stat: &str) -> Option<(String, u32)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    Some((comm.to_owned(), rest.split_whitespace().nth(1)?.parse().ok()?))
}

/// The kernel measures the runs of all BPF programs as long as one of these is held; it ends with
/// the process, however that ends, which the sysctl `kernel.bpf_stats_enabled` would not.
pub(super) struct Measuring {
    _held: OwnedFd,
}

impl Measuring {
    /// Begins to measure (`BPF_ENABLE_STATS` in bpf(2), Linux 5.8).
    pub(super) fn begin() -> io::Result<Self> {
        const BPF_ENABLE_STATS: libc::c_int = 32;
        /// `bpf_attr.enable_stats`; type 0 is `BPF_STATS_RUN_TIME`.
        #[repr(C)]
        struct EnableStats {
            kind: u32,
        }
        let attributes = EnableStats { kind: 0 };
        // SAFETY: as this command wants it.
        unsafe { bpf(BPF_ENABLE_STATS, &attributes) }.map(|held| Self { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t    9 kB\nVmHWM:\t    3 kB\nVmRSS:\t    2 kB\n";
        assert_eq!(parse_memory(status), Memory { resident: 2048, peak: 3072 });
        assert_eq!(parse_memory("Name:\tkthreadd\n"), Memory::default());
        let own = memory(std::process::id()).expect("own status");
        assert!(own.peak >= own.resident && own.resident > 0, "{own:?}");
    }

    #[test]
    fn only_a_programs_fdinfo_has_runs() {
        let fdinfo = "pos:\t0\nprog_type:\t5\nprog_jited:\t1\nrun_time_ns:\t1500\nrun_cnt:\t12\n\
                      recursion_misses:\t3\n";
        assert_eq!(
            parse_program(fdinfo),
            Some(ProgramStats { run_time: Duration::from_nanos(1500), runs: 12, misses: 3 })
        );
        assert_eq!(parse_program("pos:\t0\nflags:\t02\nmap_type:\t27\n"), None);
    }

    #[test]
    fn a_name_may_look_like_the_end_of_the_name() {
        let stat = "42 (odd) name (x)) S 7 42 42 0 -1 4194304";
        assert_eq!(parse_stat(stat), Some(("odd) name (x)".to_owned(), 7)));
        assert_eq!(parse_stat("42"), None);
    }

    #[test]
    fn a_child_and_its_cpu_time_are_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; read -r wait"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let pid = child.id();
        assert!(children(std::process::id()).iter().any(|(child, _)| *child == pid));
        let begun = std::time::Instant::now();
        while cpu_time(pid).expect("a clock") < Duration::from_millis(2) {
            assert!(begun.elapsed() < Duration::from_secs(30), "its clock stands still");
        }
        drop(child.stdin.take());
        child.wait().expect("sh ends with its input");
    }
}
