//! Running BPF iterators that write nothing: what they do is done to maps.
//!
//! aya's link of an iterator makes one file and is gone; here a link makes as many as are wanted.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Numbers of include/uapi/linux/bpf.h.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
const BPF_TRACE_ITER: u32 = 28;

/// A loaded iterator, ready to be run any number of times.
#[derive(Debug)]
pub(super) struct BpfIterator {
    link: OwnedFd,
}

impl BpfIterator {
    /// Of a loaded program of type `iter/...`.
    pub(super) fn new(program: BorrowedFd<'_>) -> io::Result<Self> {
        /// The head of `bpf_attr.link_create`; the kernel takes what is not given for 0.
        #[repr(C)]
        struct LinkCreate {
            program: i32,
            target: u32,
            attach_type: u32,
            flags: u32,
        }
        let attributes = LinkCreate {
            program: program.as_raw_fd(),
            target: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
        };
        bpf(BPF_LINK_CREATE, &attributes).map(|link| Self { link })
    }

    /// Runs it over everything there is now. An iterator over sockets goes over those of the
    /// calling thread's network namespace (`bpf_iter_init_seq_net()` in fs/proc/proc_net.c).
    pub(super) fn run(&self) -> io::Result<()> {
        /// `bpf_attr.iter_create`.
        #[repr(C)]
        struct IterCreate {
            link: i32,
            flags: u32,
        }
        let attributes = IterCreate { link: self.link.as_fd().as_raw_fd(), flags: 0 };
        drain(bpf(BPF_ITER_CREATE, &attributes)?.into())
    }
}

/// Reads an iterator's file to its end.
pub(super) fn drain(mut pass: File) -> io::Result<()> {
    let mut nothing = [0u8; 64];
    loop {
        match pass.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // After about a million steps without output the kernel takes a breath
            // (`bpf_seq_read()` in kernel/bpf/bpf_iter.c).
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A command of bpf(2) that makes a file descriptor.
fn bpf<A>(command: libc::c_int, attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the attributes, of the size given, and writes nothing.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>())
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
