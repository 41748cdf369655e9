//! The kernel's own account of a loaded program.

use crate::model::probe::ProbeStats;
use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// Reads `/proc/self/fdinfo` of a program (`bpf_prog_show_fdinfo()` in kernel/bpf/syscall.c).
///
/// # Errors
///
/// Where /proc cannot be read.
pub fn stats(program: BorrowedFd<'_>) -> io::Result<ProbeStats> {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    Ok(parse(&fs::read_to_string(path)?))
}

fn parse(fdinfo: &str) -> ProbeStats {
    let mut stats = ProbeStats::default();
    for line in fdinfo.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let Ok(value) = value.trim().parse() else { continue };
        match name {
            "run_time_ns" => stats.run_time = Duration::from_nanos(value),
            "run_cnt" => stats.runs = value,
            "recursion_misses" => stats.recursion_misses = value,
            _ => {}
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        let fdinfo = "pos:\t0\nprog_type:\t26\nrun_time_ns:\t1500\nrun_cnt:\t12\n\
                      recursion_misses:\t3\nverified_insns:\t900\n";
        assert_eq!(
            parse(fdinfo),
            ProbeStats { run_time: Duration::from_nanos(1500), runs: 12, recursion_misses: 3 }
        );
    }

    #[test]
    fn an_older_kernel_tells_less() {
        assert_eq!(parse("pos:\t0\nprog_type:\t26\n"), ProbeStats::default());
    }
}
