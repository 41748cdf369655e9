//! Reading the sysctls of the network namespace of the calling thread.
//!
//! What is under /proc/sys/net depends on who looks, not on the path: the kernel shows the
//! reader's own namespace (`net_ctl_header_lookup`, net/sysctl_net.c), so another's are read by
//! a thread that has entered it (`visit`).

use std::path::Path;

use super::whole_file;
pub use crate::model::sysctls::Sysctls;

impl Sysctls {
    /// The values in force in the namespace that this thread is in; what this kernel does not
    /// have, or does not let be read, is not known.
    #[must_use]
    pub fn of_this_thread() -> Self {
        let folder = Path::new("/proc/sys/net/ipv4");
        let mut buffer = Vec::new();
        Self::from_texts(|name| whole_file::read_text(folder.join(name), &mut buffer).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_s_namespace_has_sysctls() {
        let values = Sysctls::of_this_thread();
        assert!(values.ephemeral_ports().is_some_and(|ports| ports <= 65_536), "{values:?}");
        assert!(values.tcp_tw_reuse.is_some_and(|value| value <= 2), "{values:?}");
        assert!(values.tcp_fin_timeout.is_some() && values.tcp_timestamps.is_some(), "{values:?}");
        assert!(values.tcp_max_tw_buckets.is_some(), "{values:?}");
    }
}
