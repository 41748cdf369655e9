//! Where cgroup hierarchies and network namespaces are mounted, from `/proc/PID/mountinfo`
//! (proc(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupMount {
    /// Path of the cgroup that is at the mount point, within its hierarchy: `/` but for bind
    /// mounts and cgroup namespaces.
    pub(super) root: String,
    /// Where it is mounted.
    pub(super) point: PathBuf,
}

/// The hierarchies whose cgroups the probes tell, as far as they are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupMounts {
    /// Version 2: the only one, or beside version 1 (systemd's hybrid layout).
    pub(super) unified: Option<CgroupMount>,
    /// Version 1: that of the memory controller, else of the pids controller, as
    /// [`tcpmon_common::Offsets::css_set_v1_subsys`] has it.
    pub(super) v1: Option<CgroupMount>,
    /// There is some version 1 hierarchy, so a process may be in more than one cgroup.
    pub(super) any_v1: bool,
}

impl CgroupMounts {
    /// Reads the text of a mountinfo file; lines that are not understood are passed over.
    ///
    /// Of several mounts of one hierarchy the one that shows most of it is taken.
    #[must_use]
    pub(super) fn parse(mountinfo: &[u8]) -> Self {
        let mut mounts = Self::default();
        let mut pids = None;
        for line in mountinfo.split(|&byte| byte == b'\n') {
            let Some((kind, options, mount)) = cgroup_mount(line) else { continue };
            let has = |controller: &[u8]| options.split(|&b| b == b',').any(|o| o == controller);
            if kind == b"cgroup2" {
                keep_wider(&mut mounts.unified, mount);
                continue;
            }
            mounts.any_v1 = true;
            if has(b"memory") {
                keep_wider(&mut mounts.v1, mount);
            } else if has(b"pids") {
                keep_wider(&mut pids, mount);
            }
        }
        mounts.v1 = mounts.v1.or(pids);
        mounts
    }
}

/// The network namespaces that are mounted somewhere, by inode number, in the order of the table;
/// a place may be there twice. Mounts on files that have been removed since are left out.
#[must_use]
pub(super) fn net_namespaces(mountinfo: &[u8]) -> Vec<(u32, PathBuf)> {
    let mounts = mountinfo.split(|&byte| byte == b'\n').filter_map(Mount::parse);
    mounts
        .filter_map(|mount| {
            // `net:[4026532177]` (`nsfs_show_path`, fs/nsfs.c).
            let name = (mount.kind == b"nsfs").then_some(mount.root)?;
            let inode = name.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
            let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
            let point = (!mount.point.ends_with(b"//deleted")).then_some(mount.point)?;
            Some((inode, OsString::from_vec(unescape(point)).into()))
        })
        .collect()
}

/// What is of use of a line, as it is written.
struct Mount<'a> {
    root: &'a [u8],
    point: &'a [u8],
    kind: &'a [u8],
    options: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        // id parent major:minor root point options optional... - type source superoptions
        let mut fields = line.split(|&byte| byte == b' ');
        let root = fields.nth(3)?;
        let point = fields.next()?;
        let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = tail.next()?;
        let options = tail.nth(1).unwrap_or_default();
        Some(Self { root, point, kind, options })
    }
}

/// The file system type, the superblock's options and the mount, if the line is of a cgroup file
/// system.
fn cgroup_mount(line: &[u8]) -> Option<(&[u8], &[u8], CgroupMount)> {
    let Mount { root, point, kind, options } = Mount::parse(line)?;
    if kind != b"cgroup" && kind != b"cgroup2" {
        return None;
    }
    let mount = CgroupMount {
        root: String::from_utf8_lossy(&unescape(root)).into_owned(),
        point: OsString::from_vec(unescape(point)).into(),
    };
    Some((kind, options, mount))
}

fn keep_wider(kept: &mut Option<CgroupMount>, mount: CgroupMount) {
    // `/..` is above the root of our cgroup namespace: it shows more, not less.
    let depth = |mount: &CgroupMount| {
        mount.root.split('/').filter(|component| !matches!(*component, "" | "..")).count()
    };
    if kept.as_ref().is_none_or(|kept| depth(&mount) < depth(kept)) {
        *kept = Some(mount);
    }
}

/// Undoes the kernel's escapes (`mangle_path`, `fs/seq_file.c`): `\040` is a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escape = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &rest[4..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mount(root: &str, point: &str) -> CgroupMount {
        CgroupMount { root: root.into(), point: point.into() }
    }

    #[test]
    fn version_2_alone() {
        let mounts = CgroupMounts::parse(
            b"24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
              31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        assert_eq!((mounts.unified, mounts.v1), (Some(mount("/", "/sys/fs/cgroup")), None));
        assert!(!mounts.any_v1);
    }

    #[test]
    fn hybrid() {
        let mounts = CgroupMounts::parse(
            b"31 23 0:27 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n\
              32 31 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n\
              33 31 0:29 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n\
              34 31 0:30 / /sys/fs/cgroup/pids rw shared:12 master:3 - cgroup cgroup rw,pids\n\
              35 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        );
        assert_eq!(mounts.unified, Some(mount("/", "/sys/fs/cgroup/unified")));
        assert_eq!(mounts.v1, Some(mount("/", "/sys/fs/cgroup/memory")));
        assert!(mounts.any_v1);
    }

    #[test]
    fn pids_stands_in_for_memory() {
        let mounts = CgroupMounts::parse(
            b"34 31 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
              35 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
        );
        assert_eq!(mounts.v1, Some(mount("/", "/sys/fs/cgroup/pids")));
    }

    #[test]
    fn the_mount_that_shows_most_is_taken() {
        let mounts = CgroupMounts::parse(
            b"1 1 0:1 /docker/0123 /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
              2 1 0:1 /../.. /host/sys\\040fs/cgroup rw - cgroup2 cgroup rw\n\
              3 1 0:1 / /own rw - cgroup2 cgroup rw\n",
        );
        assert_eq!(mounts.unified, Some(mount("/../..", "/host/sys fs/cgroup")));
    }

    #[test]
    fn network_namespaces_wherever_they_are_mounted() {
        let found = net_namespaces(
            b"24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
              43 42 0:4 net:[4026532177] /run/netns/blue rw shared:2 - nsfs nsfs rw\n\
              44 42 0:4 net:[4026532178] /run/docker/netns/1\\040a rw - nsfs nsfs rw\n\
              45 42 0:4 mnt:[4026532179] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n\
              46 42 0:4 net:[4026532180] /run/netns/gone//deleted rw - nsfs nsfs rw\n\
              47 42 0:4 net:[99999999999] /big rw - nsfs nsfs rw\n\
              48 42 0:4 net:[7] /x rw - tmpfs tmpfs rw\n\
              49 42 0:4 net:[4026532177] /run/netns/blue rw shared:2 - nsfs nsfs rw\n",
        );
        let expected = [
            (4_026_532_177, PathBuf::from("/run/netns/blue")),
            (4_026_532_178, PathBuf::from("/run/docker/netns/1 a")),
            (4_026_532_177, PathBuf::from("/run/netns/blue")),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn this_machine_s_own_file_is_understood() {
        let text = std::fs::read("/proc/self/mountinfo").expect("mountinfo");
        let mounts = CgroupMounts::parse(&text);
        for mount in mounts.unified.iter().chain(&mounts.v1) {
            assert!(mount.point.join("cgroup.procs").exists(), "{mount:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: Vec<u8>) {
            let _ = CgroupMounts::parse(&text);
            let _ = net_namespaces(&text);
            let _ = unescape(&text);
        }

        #[test]
        fn no_likely_text_panics(
            text in "([0-9/ -]|cgroup2? |nsfs |net:\\[|\\]|\\\\[0-7]{0,3}|\n){0,40}",
        ) {
            let _ = CgroupMounts::parse(text.as_bytes());
            let _ = net_namespaces(text.as_bytes());
        }
    }
}
