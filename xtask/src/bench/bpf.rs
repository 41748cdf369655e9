//! Commands of bpf(2), for what no program of their own does.

use std::{
    io,
    mem::size_of,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

/// A command that gives a descriptor.
///
/// # Safety
///
/// `attributes` is the part of `union bpf_attr` that the command reads (include/uapi/linux/bpf.h), and
/// what it points to is valid.
pub(super) unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: by the caller; the kernel reads no more than the size given, and writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
