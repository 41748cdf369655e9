//! The least that a program on these tracepoints costs: programs that do nothing.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result};

use super::bpf::bpf;

/// Where tcpmon's probes are attached.
const TRACEPOINTS: [&CStr; 4] =
    [c"inet_sock_set_state", c"timer_start", c"timer_cancel", c"timer_expire_entry"];

/// One program that does nothing, attached to all of these until it is dropped.
pub(super) struct Floor {
    _links: Vec<OwnedFd>,
}

impl Floor {
    /// Loads and attaches it.
    pub(super) fn attach() -> Result<Self> {
        let program = load().context("cannot load a program that does nothing")?;
        let links = TRACEPOINTS.map(|tracepoint| {
            let name = tracepoint.to_string_lossy();
            attach(&program, tracepoint).with_context(|| format!("cannot attach it to {name}"))
        });
        Ok(Self { _links: links.into_iter().collect::<Result<_>>()? })
    }
}

/// The beginning of `union bpf_attr` as `BPF_PROG_LOAD` reads it (include/uapi/linux/bpf.h).
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The same as `BPF_RAW_TRACEPOINT_OPEN` reads it.
#[repr(C)]
struct Open {
    name: u64,
    program: RawFd,
    reserved: u32,
}

fn load() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
    /// `r0 = 0` and `exit`, each eight bytes long.
    const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let request = Load {
        kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
        instructions: 2,
        code: NOTHING.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    // SAFETY: as this command wants it; what it points to outlives the call.
    unsafe { bpf(BPF_PROG_LOAD, &request) }
}

fn attach(program: &OwnedFd, tracepoint: &CStr) -> io::Result<OwnedFd> {
    const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
    let name = tracepoint.as_ptr() as u64;
    let request = Open { name, program: program.as_raw_fd(), reserved: 0 };
    // SAFETY: as above.
    unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &request) }
}
