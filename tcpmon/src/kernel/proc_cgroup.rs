//! The service of a process, from `/proc/PID/cgroup`, while the process lives.
//!
//! The second way to a name, for cgroups that cannot be found in the file system, and for
//! hosts where systemd tracks services in a version 1 hierarchy of its own (`name=systemd`) that
//! the probes do not look at. And the way to the container that a network namespace belongs to.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::whole_file;
use crate::model::service::container_name;

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// The service of the process `pid` that started at `birth_ns` (`CLOCK_BOOTTIME`).
///
/// `None` where the process has ended, is another one that has the same pid, or is in no cgroup
/// that means anything. `proc` is where proc(5) is mounted, `name` what a cgroup's path means.
#[must_use]
pub(super) fn service_of_process(
    proc: &Path,
    pid: u32,
    birth_ns: u64,
    name: impl FnMut(&str) -> Option<Arc<str>>,
) -> Option<Arc<str>> {
    let folder = proc.join(pid.to_string());
    let cgroup = fs::read(folder.join("cgroup")).ok()?;
    // Only now: if the pid is still that process's, then it was when its cgroups were read.
    let stat = fs::read(folder.join("stat")).ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    if start_ticks(&stat)? != to_ticks(birth_ns, ticks_per_second) {
        return None;
    }
    named_in(&String::from_utf8_lossy(&cgroup), name)
}

/// The container that a process is in; `None` where the process has ended, or is in none.
///
/// No start is asked for: the caller found the process a moment ago, and looks again at the next
/// pass. `buffer` is room to read in.
#[must_use]
pub(super) fn container_of_process(proc: &Path, pid: u32, buffer: &mut Vec<u8>) -> Option<String> {
    let path = proc.join(pid.to_string()).join("cgroup");
    let lines = whole_file::read_text(&path, buffer).ok()?;
    named_in(&lines, container_name)
}

/// The start of a process in clock ticks since boot: field 22 of its `stat`.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    // Field 2 is the name in parentheses, which may itself hold spaces and parentheses.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// As the kernel rounds (`nsec_to_clock_t`, kernel/time/time.c).
fn to_ticks(ns: u64, ticks_per_second: u64) -> u64 {
    SECOND_NS.checked_div(ticks_per_second).and_then(|tick| ns.checked_div(tick)).unwrap_or(0)
}

/// What `name` makes of the best path that it makes anything of, in the lines of a
/// `/proc/PID/cgroup` (cgroups(7)).
///
/// systemd's own hierarchy knows best, then the unified one, then controllers' hierarchies, in
/// which a service has a cgroup only when its resources are accounted.
fn named_in<T>(lines: &str, mut name: impl FnMut(&str) -> Option<T>) -> Option<T> {
    let rank = |controllers: &str| match controllers {
        "name=systemd" => 0,
        "" => 1,
        "memory" => 2,
        "pids" => 3,
        _ => 4,
    };
    let mut paths: Vec<_> = lines
        .lines()
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            // A cgroup that was removed while a process was on its way out.
            Some((rank(controllers), path.strip_suffix(" (deleted)").unwrap_or(path)))
        })
        .collect();
    paths.sort_by_key(|&(rank, _)| rank);
    paths.into_iter().find_map(|(_, path)| name(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::service_name;
    use proptest::prelude::*;

    fn service_in(lines: &str) -> Option<Arc<str>> {
        named_in(lines, |path| service_name(path).map(Arc::from))
    }

    #[test]
    fn the_best_hierarchy_names_the_service() {
        for (lines, expected) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            ("0::/system.slice/nginx.service (deleted)\n", Some("nginx.service")),
            (
                "5:memory:/system.slice\n1:name=systemd:/system.slice/a.service\n0::/x.service\n",
                Some("a.service"),
            ),
            (
                "9:cpu,cpuacct:/b.service\n4:memory:/a.service\n1:name=systemd:/\n0::/\n",
                Some("a.service"),
            ),
            ("9:cpu,cpuacct:/b.service\n0::/\n", Some("b.service")),
            ("2:name=openrc:/openrc.sshd\n", Some("sshd")),
            ("0::/system.slice/a:b.service\n", Some("a:b.service")),
            ("0::/\n", None),
            ("nonsense\n", None),
            ("", None),
        ] {
            assert_eq!(service_in(lines).as_deref(), expected, "{lines}");
        }
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let rest = "S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 200";
        for name in ["worker", "a b", ") S 1 (", ""] {
            assert_eq!(start_ticks(format!("42 ({name}) {rest}").as_bytes()), Some(12_345));
        }
        assert_eq!(start_ticks(b"42 (x) S 1"), None);
        assert_eq!(start_ticks(b""), None);
    }

    /// A folder that looks like proc(5) with one process, started `ticks` after boot.
    fn proc_with(pid: u32, ticks: u64) -> tempfile::TempDir {
        let proc = tempfile::tempdir().expect("folder");
        let folder = proc.path().join(pid.to_string());
        fs::create_dir(&folder).expect("folder");
        fs::write(folder.join("cgroup"), "0::/system.slice/api.service\n").expect("cgroup");
        let stat = format!("{pid} (api) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0\n");
        fs::write(folder.join("stat"), stat).expect("stat");
        proc
    }

    #[test]
    fn a_reused_pid_is_never_taken() {
        let proc = proc_with(42, 500);
        let tick = SECOND_NS / rustix::param::clock_ticks_per_second();
        let name = |path: &str| service_name(path).map(Arc::from);
        let service = |pid, birth_ns| service_of_process(proc.path(), pid, birth_ns, name);
        assert_eq!(service(42, 500 * tick).as_deref(), Some("api.service"));
        assert_eq!(service(42, 501 * tick - 1).as_deref(), Some("api.service"));
        assert_eq!(service(42, 501 * tick), None);
        assert_eq!(service(42, 500 * tick - 1), None);
        assert_eq!(service(43, 500 * tick), None);
    }

    #[test]
    fn the_kernel_s_own_files_are_understood() {
        let stat = fs::read("/proc/self/stat").expect("stat");
        let ticks = start_ticks(&stat).expect("start");
        let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
        let seconds: f64 =
            uptime.split_whitespace().next().and_then(|text| text.parse().ok()).expect("uptime");
        let hz = rustix::param::clock_ticks_per_second();
        let started = std::time::Duration::from_secs(ticks / hz).as_secs_f64();
        assert!(started <= seconds && started > seconds - 3_600.0, "{started} of {seconds}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, ns: u64, hz: u64) {
            let _ = start_ticks(&bytes);
            let _ = to_ticks(ns, hz);
            let _ = service_in(&String::from_utf8_lossy(&bytes));
        }
    }
}
