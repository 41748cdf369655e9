//! The runtime's threads. Where the system gives it none, tokio panics instead of saying so.

use crate::kernel::privileges::{self, Role};
use std::{
    io, panic,
    sync::mpsc::{RecvError, channel},
    thread,
};
use tokio::runtime::{Builder, Runtime};

/// Threads that serve.
const WORKERS: usize = 2;

/// Starts the runtime.
///
/// # Errors
///
/// Where the process may not have its threads or descriptors.
pub(super) fn start() -> io::Result<Runtime> {
    let (tell, told) = channel();
    let tell_panic = tell.clone();
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let why = info.payload_as_str().unwrap_or("the runtime panicked");
        let _ = tell_panic.send(Err(io::Error::other(why.to_owned())));
    }));
    // On a thread of its own: without its second worker tokio ends the panic only once the first
    // has ended, which it never does.
    let begun = thread::Builder::new().spawn(move || {
        privileges::shed(Role::Other);
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .on_thread_start(|| privileges::shed(Role::Other))
            .enable_all()
            .build();
        let _ = tell.send(runtime);
    });
    let runtime = begun.and_then(|_| told.recv().unwrap_or_else(|RecvError| Err(gone())));
    panic::set_hook(usual);
    runtime
}

fn gone() -> io::Error {
    io::Error::other("the runtime did not start")
}

/// Whether there is a thread for the first work that blocks. Later ones wait for that one, which
/// always has something to do.
///
/// # Errors
///
/// Where the process may have no thread more.
pub(super) fn has_room() -> io::Result<()> {
    let trial = thread::Builder::new().spawn(|| ())?;
    // It does nothing that could panic.
    let _ = trial.join();
    Ok(())
}
