//! A process of the lab: does with sockets what it is told, one command at a time.
//!
//! It is the `xtask` program, called again; the control connection is its standard input. It ends
//! when that connection does, so nothing of a lab survives it, however it ended: the process that
//! made the namespaces (the keeper) removes them then.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, WaitOptions};

use super::bulk;
use super::netns;
use super::protocol::{Command, Line, Reply, SocketId};
use super::sockets::{self, Sockets};
use super::uring::Ring;

/// What a process of the lab has.
#[derive(Default)]
struct Worker {
    sockets: Sockets,
    ring: Option<Ring>,
    workers: Vec<(Pid, Line)>,
    namespaces: Vec<String>,
}

/// Becomes a process of the lab, called `comm`, in the namespace `netns` if given, says on the
/// control connection (standard input) that it is ready, and returns when that connection ends.
///
/// It fails only if there is no such connection: whatever else goes wrong is told on it, and when
/// it is broken there is nobody left to tell.
pub(super) fn become_worker(comm: &str, netns: Option<&Path>) -> io::Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut control = Line::new(control);
    let ready = netns.map_or(Ok(()), netns::enter_at).and_then(|()| set_comm(comm));
    let greeting = match &ready {
        Ok(()) => Reply::Done,
        Err(why) => Reply::Failed { why: why.to_string() },
    };
    if control.send(&greeting).is_ok() && ready.is_ok() {
        let mut worker = Worker::default();
        let _broken = worker.serve(&mut control);
        worker.tidy_up();
    }
    Ok(())
}

/// The arguments that make `xtask` such a process.
pub(super) fn arguments(comm: &str, netns: Option<&str>) -> Vec<PathBuf> {
    let mut arguments = vec!["lab".into(), "--as-worker".into(), comm.into()];
    if let Some(name) = netns {
        arguments.extend(["--in-netns".into(), netns::path_of(name)]);
    }
    arguments
}

fn set_comm(comm: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(comm)?;
    Ok(rustix::thread::set_name(&name)?)
}

impl Worker {
    fn serve(&mut self, control: &mut Line) -> io::Result<()> {
        while let Some(command) = control.receive()? {
            let reply =
                self.obey(command).unwrap_or_else(|why| Reply::Failed { why: why.to_string() });
            control.send(&reply)?;
        }
        Ok(())
    }

    fn tidy_up(&mut self) {
        for name in self.namespaces.drain(..) {
            netns::remove(&name);
        }
        for (pid, control) in self.workers.drain(..) {
            drop(control);
            let _gone = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
    }

    fn obey(&mut self, command: Command) -> io::Result<Reply> {
        match command {
            Command::MakeNetns { name } => {
                let inode = netns::make(&name).map_err(io::Error::other)?;
                self.namespaces.push(name);
                Ok(Reply::Netns { inode })
            }
            Command::RemoveNetns { name } => {
                self.namespaces.retain(|own| *own != name);
                netns::remove(&name);
                Ok(Reply::Done)
            }
            Command::KeepNetns => {
                self.namespaces.clear();
                Ok(Reply::Done)
            }
            Command::Listen { address, reuse_port } => {
                let listener = sockets::listen(address, reuse_port)?;
                Ok(Reply::Listening { socket: self.sockets.add(listener) })
            }
            Command::Connect { to, by } => match sockets::connect(to, by, &mut self.ring)? {
                Ok(socket) => self.connection(socket, to),
                Err(failure) => {
                    Ok(Reply::NotConnected { errno: failure.errno, port: failure.port })
                }
            },
            Command::ConnectFrom { from, to } => {
                let socket = sockets::connect_from(from, to)?;
                self.connection(socket, to)
            }
            Command::BeginConnect { from, to } => {
                let socket = sockets::begin_connect(from, to)?;
                self.connection(socket, to)
            }
            Command::FinishConnect { socket } => {
                sockets::finish_connect(self.sockets.get(socket)?)?;
                Ok(Reply::Done)
            }
            Command::AwaitRefusal { socket } => {
                sockets::await_refusal(self.sockets.get(socket)?)?;
                Ok(Reply::Done)
            }
            Command::Accept { listener, wait } => {
                match sockets::accept(self.sockets.get(listener)?, wait)? {
                    Some((socket, from)) => self.connection(socket, from),
                    None => Ok(Reply::Nothing),
                }
            }
            Command::Send { socket, bytes } => {
                sockets::send(self.sockets.get(socket)?, bytes)?;
                Ok(Reply::Done)
            }
            Command::Receive { socket, bytes } => {
                sockets::receive(self.sockets.get(socket)?, bytes)?;
                Ok(Reply::Done)
            }
            Command::AwaitEnd { socket } => {
                let socket = self.sockets.get(socket)?;
                sockets::await_end(socket)?;
                sockets::acknowledge(socket)?;
                Ok(Reply::Done)
            }
            Command::AwaitReset { socket } => {
                sockets::await_reset(self.sockets.get(socket)?)?;
                Ok(Reply::Done)
            }
            Command::ShutdownWrite { socket } => {
                let socket = self.sockets.get(socket)?.try_clone_to_owned()?;
                std::net::TcpStream::from(socket).shutdown(Shutdown::Write)?;
                Ok(Reply::Done)
            }
            Command::Close { socket } => {
                drop(self.sockets.take(socket)?);
                Ok(Reply::Done)
            }
            Command::Abort { socket } => {
                sockets::abort(self.sockets.take(socket)?)?;
                Ok(Reply::Done)
            }
            Command::Fork { comms } => self.fork(&comms),
            Command::Ask { worker, command } => self.ask(worker, &command),
            Command::FailToConnect { to, by, times } => {
                for _ in 0..times {
                    bulk::fail_to_connect(to, by, &mut self.ring)?;
                }
                Ok(Reply::Done)
            }
            Command::Churn(spec) => {
                let seconds = bulk::churn(&spec)?.as_secs_f64();
                Ok(Reply::Churned { connections: spec.connections, seconds })
            }
            Command::CloseMany { listener, connections } => {
                bulk::close_many(self.sockets.get(listener)?, connections)?;
                Ok(Reply::Done)
            }
            Command::ConnectMany(spec) => {
                bulk::connect_many(&spec)?;
                Ok(Reply::Done)
            }
        }
    }

    fn connection(
        &mut self,
        socket: std::os::fd::OwnedFd,
        remote: SocketAddr,
    ) -> io::Result<Reply> {
        let local = sockets::local_address(socket.as_fd())?;
        Ok(Reply::Connection { socket: self.sockets.add(socket), local, remote })
    }

    /// Forks one worker for each name; each inherits all sockets under their numbers.
    fn fork(&mut self, comms: &[String]) -> io::Result<Reply> {
        let mut pids = Vec::new();
        for comm in comms {
            let (ours, theirs) = UnixStream::pair()?;
            // SAFETY: this process has one thread, so the child finds every lock of the
            // allocator and of the standard library free.
            let pid = unsafe { libc::fork() };
            let Some(pid) = Pid::from_raw(pid.max(0)) else {
                if pid < 0 {
                    return Err(io::Error::last_os_error());
                }
                drop(ours);
                self.live_as_worker(comm, theirs);
            };
            pids.push(pid.as_raw_nonzero().get().unsigned_abs());
            self.workers.push((pid, Line::new(ours)));
        }
        Ok(Reply::Forked { pids })
    }

    /// The life of a forked worker.
    fn live_as_worker(&mut self, comm: &str, control: UnixStream) -> ! {
        // Its siblings' control connections must end with the parent, not with this worker; the
        // namespaces are the parent's to remove.
        self.workers.clear();
        self.namespaces.clear();
        let ended = set_comm(comm).and_then(|()| self.serve(&mut Line::new(control)));
        std::process::exit(i32::from(ended.is_err()))
    }

    fn ask(&mut self, worker: SocketId, command: &Command) -> io::Result<Reply> {
        let (_, control) = self
            .workers
            .get_mut(worker)
            .ok_or_else(|| io::Error::other(format!("there is no worker {worker}")))?;
        control.send(command)?;
        control.receive()?.ok_or_else(|| io::Error::other("the worker is gone"))
    }
}
