//! What the kernel's release says about what it can do.

/// The oldest kernel that tcpmon runs on.
pub(super) const OLDEST: (u32, u32) = (5, 15);

/// What each version brought that the probes cannot do without, the oldest first. The last entry
/// is [`OLDEST`].
const NEEDS: [((u32, u32), &str); 4] = [
    // kernel/bpf/ringbuf.c.
    ((5, 8), "has no BPF ring buffer"),
    // bpf_sock_from_file() in kernel/trace/bpf_trace.c.
    ((5, 11), "cannot tell the probes which socket an open file is"),
    // bpf_get_socket_ptr_cookie_proto in net/core/filter.c.
    ((5, 12), "does not give socket cookies to tracing programs"),
    (OLDEST, "is older than any that tcpmon is tested on"),
];

/// Reads version and patch level out of `uname -r`: `6.1.0-rc1`, `5.15.0-1034-azure`, `6.8+`.
///
/// `None` if it does not begin with two numbers with a dot between them, as a kernel built with
/// its own idea of a release may not.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    Some((number(major)?, number(&rest[..digits])?))
}

/// What a kernel of this version lacks; `None` if nothing.
pub(super) fn lacks(version: (u32, u32)) -> Option<&'static str> {
    NEEDS.iter().find(|(since, _)| version < *since).map(|(_, lack)| *lack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_as_kernels_are_called() {
        for (release, expected) in [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("5.15", Some((5, 15))),
            ("5.15.0-1034-azure", Some((5, 15))),
            ("6.1.0-rc1", Some((6, 1))),
            ("6.9-rc3", Some((6, 9))),
            ("6.8+", Some((6, 8))),
            ("2.6.78", Some((2, 6))),
            ("10.100.1", Some((10, 100))),
            ("6", None),
            ("", None),
            (".5", None),
            ("6.", None),
            ("+6.1", None),
            ("6.+1", None),
            ("v6.1", None),
            ("custom-6.1", None),
            ("99999999999.1", None),
            ("6.99999999999", None),
            ("６.1", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn the_first_lack_is_told() {
        for (version, expected) in [
            ((2, 6), Some("has no BPF ring buffer")),
            ((5, 4), Some("has no BPF ring buffer")),
            ((5, 8), Some("cannot tell the probes which socket an open file is")),
            ((5, 11), Some("does not give socket cookies to tracing programs")),
            ((5, 14), Some("is older than any that tcpmon is tested on")),
            ((5, 15), None),
            ((6, 1), None),
            ((10, 0), None),
        ] {
            assert_eq!(lacks(version), expected, "{version:?}");
        }
    }
}
