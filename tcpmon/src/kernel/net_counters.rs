//! Reading what the kernel counts of TCP in the network namespace of the calling thread.

use rustix::io::Errno;

use super::whole_file;
pub use crate::model::net_counters::NetCounters;

impl NetCounters {
    /// What the kernel says now of the namespace that this thread is in.
    ///
    /// The four files are read one after the other, so that they may be some microseconds apart:
    /// under traffic `time_wait` and the counters need not fit each other exactly. What cannot be
    /// read, such as `sockstat6` where IPv6 is off, is not known; that is no error.
    ///
    /// # Errors
    /// Nothing at all can be read: /proc is not mounted, or hides `thread-self`.
    pub fn of_this_thread() -> Result<Self, CountersError> {
        let mut buffer = Vec::new();
        let sockstat = whole_file::read_text("/proc/thread-self/net/sockstat", &mut buffer)
            .map_err(|error| CountersError { error })?;
        let mut other = |path: &str| whole_file::read_text(path, &mut buffer).unwrap_or_default();
        let sockstat6 = other("/proc/thread-self/net/sockstat6");
        let netstat = other("/proc/thread-self/net/netstat");
        let snmp = other("/proc/thread-self/net/snmp");
        Ok(Self::from_texts(&sockstat, &sockstat6, &netstat, &snmp))
    }
}

/// The kernel's counters cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read /proc/thread-self/net/sockstat: {error}{}", remedy(*error))]
pub struct CountersError {
    error: Errno,
}

/// What to do about it, where that is known.
fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::NOENT => "; mount proc(5) on /proc",
        Errno::MFILE => "; raise LimitNOFILE= in the unit, or ulimit -n",
        Errno::NFILE => "; raise the sysctl fs.file-max",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_said_where_it_is_known() {
        for (error, end) in [
            (Errno::NOENT, "mount proc(5) on /proc"),
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::IO, "(os error 5)"),
        ] {
            let told = CountersError { error }.to_string();
            assert!(told.ends_with(end), "{told}");
        }
    }

    #[test]
    fn this_thread_s_namespace_has_counters() {
        let counters = NetCounters::of_this_thread().expect("counters");
        assert!(counters.time_wait.is_some() && counters.entered().is_some(), "{counters:?}");
        assert!(counters.recycled.is_some() && counters.overflow.is_some(), "{counters:?}");
        assert!(counters.active_opens.is_some() && counters.curr_estab.is_some(), "{counters:?}");
        assert!(counters.host_memory_pages.is_some(), "{counters:?}");
    }
}
