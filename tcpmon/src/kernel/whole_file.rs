//! Reading files under /proc whole, in one piece.
//!
//! Not by `std::fs::read`: it reads a file of size 0 in small pieces, and the file of a sysctl
//! gives what the first read has room for and then says that this was all (`proc_doulongvec` and
//! its kin in kernel/sysctl.c return nothing where the position is not 0). A list of reserved
//! ports would be cut after 32 bytes, in the middle of a number.

use rustix::{
    buffer::spare_capacity,
    fs::{Mode, OFlags},
    io::Errno,
};

/// How much a first read takes: most files under /proc and every sysctl but the longest.
const FIRST_BYTES: usize = 8 * 1024;

/// No file is read that is longer: a list of all odd ports has 191 KB.
const MOST_BYTES: usize = 1024 * 1024;

/// Reads a file whole into `buffer`, whose room it uses and whose content it replaces.
///
/// A file that fills the buffer is read again from its beginning with more room, so that what is
/// returned came from one read. For files that the kernel gives in one piece, that is: not for
/// tables such as `mountinfo`, which come a few lines at a time however much room there is.
///
/// # Errors
/// The file cannot be opened or read, or is longer than a megabyte (`FBIG`).
pub(super) fn read(path: impl rustix::path::Arg, buffer: &mut Vec<u8>) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut room = FIRST_BYTES;
    loop {
        buffer.clear();
        buffer.reserve_exact(room);
        room = buffer.capacity();
        let read = rustix::io::retry_on_intr(|| {
            buffer.clear();
            rustix::io::pread(&file, spare_capacity(buffer), 0)
        })?;
        if read < room {
            return Ok(());
        }
        room *= 4;
        if room > MOST_BYTES {
            return Err(Errno::FBIG);
        }
    }
}

/// As [`read`], as text; bytes that are no UTF-8 are replaced.
pub(super) fn read_text(
    path: impl rustix::path::Arg,
    buffer: &mut Vec<u8>,
) -> Result<String, Errno> {
    read(path, buffer)?;
    Ok(String::from_utf8_lossy(buffer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn long_and_short_files_come_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        let mut buffer = Vec::new();
        for bytes in [0, 1, FIRST_BYTES - 1, FIRST_BYTES, FIRST_BYTES + 1, 300_000, 5] {
            let content: Vec<u8> = (0..=250).cycle().take(bytes).collect();
            fs::write(&path, &content).expect("write");
            read(&path, &mut buffer).expect("read");
            assert!(buffer == content, "{bytes} bytes: got {}", buffer.len());
        }
        fs::write(&path, vec![0; MOST_BYTES + 1]).expect("write");
        assert_eq!(read(&path, &mut buffer), Err(Errno::FBIG));
        assert_eq!(read(folder.path().join("none"), &mut buffer), Err(Errno::NOENT));
    }

    #[test]
    fn the_kernel_s_files_come_whole() {
        let mut buffer = Vec::new();
        let status = read_text("/proc/self/cgroup", &mut buffer).expect("cgroup");
        assert_eq!(status, fs::read_to_string("/proc/self/cgroup").expect("cgroup"));
        read("/proc/sys/kernel/osrelease", &mut buffer).expect("osrelease");
        assert_eq!(buffer.last(), Some(&b'\n'));
    }
}
