//! Running BPF iterators that write nothing: what they do is done to maps.

use std::fs::File;
use std::io::{self, Read as _};

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
