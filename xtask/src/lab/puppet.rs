//! A process of the lab, seen from the lab: told what to do, its answer awaited.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{LabError, Result};
use super::protocol::{Command, Line, Reply, SocketId};
use super::socket::Process;
use super::worker;

/// How long a single step may take: longer than any system call of a worker may.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// How long a process may take to end once its control connection has.
const FAREWELL: Duration = Duration::from_secs(6);

/// A connected socket of a process of the lab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) socket: SocketId,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// How a connect ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Connected(Connection),
    /// With this error, and this local port.
    Failed {
        errno: i32,
        port: u16,
    },
}

/// The process; it ends when dropped.
pub(super) struct Puppet {
    process: Process,
    child: Child,
    /// Taken at the end: closing it is what ends the process.
    control: Option<Line>,
}

impl Puppet {
    /// Starts a process called `comm`, in the namespace `netns` if given.
    pub(super) fn spawn(program: &Path, comm: &str, netns: Option<&str>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(LabError::io("make a socket pair"))?;
        ours.set_read_timeout(Some(STEP)).map_err(LabError::io("bound a wait"))?;
        let child = std::process::Command::new(program)
            .args(worker::arguments(comm, netns))
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Ctrl-C is for the lab alone: its end ends the processes, in order.
            .process_group(0)
            .spawn()
            .map_err(LabError::io(format!("start {}", program.display())))?;
        let process = Process { pid: child.id(), comm: comm.to_owned() };
        let mut puppet = Self { process, child, control: Some(Line::new(ours)) };
        match puppet.reply() {
            Ok(_ready) => Ok(puppet),
            Err(why) => Err(LabError::Step { who: puppet.name(), what: "start".into(), why }),
        }
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// For messages: name and pid.
    pub(super) fn name(&self) -> String {
        format!("{} (pid {})", self.process.comm, self.process.pid)
    }

    /// Tells it to do something, and awaits that it is done.
    pub(super) fn tell(&mut self, command: &Command) -> Result<Reply> {
        self.begin(command)?;
        self.finish(command)
    }

    /// Tells it to do something, and does not wait.
    pub(super) fn begin(&mut self, command: &Command) -> Result<()> {
        let sent = match self.control.as_mut() {
            Some(control) => control.send(command).map_err(|error| error.to_string()),
            None => Err("it has ended".to_owned()),
        };
        sent.map_err(|why| self.failed(command, why))
    }

    /// Awaits that what it was told to do is done.
    pub(super) fn finish(&mut self, command: &Command) -> Result<Reply> {
        self.reply().map_err(|why| self.failed(command, why))
    }

    fn failed(&self, command: &Command, why: String) -> LabError {
        LabError::Step { who: self.name(), what: format!("{command:?}"), why }
    }

    /// Its next answer; the error says in words why there is none, or what it could not do.
    fn reply(&mut self) -> std::result::Result<Reply, String> {
        match self.control.as_mut().map_or(Ok(None), Line::receive) {
            Ok(Some(Reply::Failed { why })) => Err(why),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err("it ended before its time".into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err("it took too long".into())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// As [`Self::tell`], for what may take longer than a step.
    pub(super) fn tell_patiently(&mut self, command: &Command, limit: Duration) -> Result<Reply> {
        self.set_patience(limit)?;
        let reply = self.tell(command);
        self.set_patience(STEP)?;
        reply
    }

    fn set_patience(&mut self, limit: Duration) -> Result<()> {
        match &self.control {
            Some(control) => {
                control.stream().set_read_timeout(Some(limit)).map_err(LabError::io("bound a wait"))
            }
            None => Ok(()),
        }
    }

    /// An answer that does not belong to the command: the two programs are of different builds.
    fn misfit<T>(&self, command: &Command, reply: &Reply) -> Result<T> {
        Err(LabError::Step {
            who: self.name(),
            what: format!("{command:?}"),
            why: format!("it answered {reply:?}: the lab's program may be of another build"),
        })
    }

    /// For commands that are simply done.
    pub(super) fn tell_done(&mut self, command: &Command) -> Result<()> {
        match self.tell(command)? {
            Reply::Done => Ok(()),
            other => self.misfit(command, &other),
        }
    }

    pub(super) fn make_netns(&mut self, name: &str) -> Result<u64> {
        let command = Command::MakeNetns { name: name.to_owned() };
        match self.tell(&command)? {
            Reply::Netns { inode } => Ok(inode),
            other => self.misfit(&command, &other),
        }
    }

    pub(super) fn listen(&mut self, address: SocketAddr, reuse_port: bool) -> Result<SocketId> {
        let command = Command::Listen { address, reuse_port };
        match self.tell(&command)? {
            Reply::Listening { socket } => Ok(socket),
            other => self.misfit(&command, &other),
        }
    }

    /// For `Connect`, `ConnectFrom` and `BeginConnect`.
    pub(super) fn connect(&mut self, command: &Command) -> Result<Outcome> {
        match self.tell(command)? {
            Reply::Connection { socket, local, remote } => {
                Ok(Outcome::Connected(Connection { socket, local, remote }))
            }
            Reply::NotConnected { errno, port } => Ok(Outcome::Failed { errno, port }),
            other => self.misfit(command, &other),
        }
    }

    /// Accepts; where `worker` is given, that forked worker does.
    pub(super) fn accept(
        &mut self,
        listener: SocketId,
        wait: bool,
        worker: Option<usize>,
    ) -> Result<Option<Connection>> {
        let command = addressed(Command::Accept { listener, wait }, worker);
        match self.tell(&command)? {
            Reply::Connection { socket, local, remote } => {
                Ok(Some(Connection { socket, local, remote }))
            }
            Reply::Nothing => Ok(None),
            other => self.misfit(&command, &other),
        }
    }

    pub(super) fn fork(&mut self, comms: Vec<String>) -> Result<Vec<Process>> {
        let command = Command::Fork { comms: comms.clone() };
        match self.tell(&command)? {
            Reply::Forked { pids } => {
                Ok(pids.into_iter().zip(comms).map(|(pid, comm)| Process { pid, comm }).collect())
            }
            other => self.misfit(&command, &other),
        }
    }

    /// Ends the process and waits for it.
    fn end(&mut self) {
        drop(self.control.take());
        let begun = Instant::now();
        while begun.elapsed() < FAREWELL {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command for the process itself, or for one of its forked workers.
pub(super) fn addressed(command: Command, worker: Option<usize>) -> Command {
    match worker {
        Some(worker) => Command::Ask { worker, command: Box::new(command) },
        None => command,
    }
}

/// The xtask program: as given, else as `TCPMON_LAB` says, else this very program, else the one
/// beside the test that is running (tests are built in `target/PROFILE/deps`).
pub(super) fn find_program(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_path_buf());
    }
    if let Some(path) = std::env::var_os("TCPMON_LAB") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().map_err(LabError::io("find this program's own file"))?;
    if this.file_name().is_some_and(|name| name == "xtask") {
        return Ok(this);
    }
    let beside: Vec<PathBuf> =
        this.ancestors().skip(1).take(2).map(|folder| folder.join("xtask")).collect();
    beside.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked: Vec<String> = beside.iter().map(|path| path.display().to_string()).collect();
        LabError::NoProgram { looked: looked.join(", ") }
    })
}
