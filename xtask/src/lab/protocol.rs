//! What the lab tells its processes to do, and what they answer: one JSON object a line.
//!
//! Each command is answered when it is done, never before: that is what puts the steps of a
//! recipe in order without sleeping.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::recipe::ConnectBy;

/// A socket of a process of the lab, by the number the process gave it.
pub(super) type SocketId = usize;

/// What a process of the lab can do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Command {
    /// Make a network namespace, to be removed when the control connection ends.
    MakeNetns { name: String },
    /// Remove a network namespace now.
    RemoveNetns { name: String },
    /// Remove no namespace at the end.
    KeepNetns,
    /// Listen.
    Listen { address: SocketAddr, reuse_port: bool },
    /// Connect, and wait for the outcome.
    Connect { to: SocketAddr, by: ConnectBy },
    /// Connect from a given address, and wait for the outcome.
    ConnectFrom { from: SocketAddr, to: SocketAddr },
    /// Begin to connect from a given address: the SYN is sent when this is answered.
    BeginConnect { from: SocketAddr, to: SocketAddr },
    /// Wait for the outcome of `BeginConnect`.
    FinishConnect { socket: SocketId },
    /// Wait until what `BeginConnect` began is refused.
    AwaitRefusal { socket: SocketId },
    /// Accept a connection; wait for one if `wait`.
    Accept { listener: SocketId, wait: bool },
    /// Send some bytes.
    Send { socket: SocketId, bytes: usize },
    /// Receive so many bytes.
    Receive { socket: SocketId, bytes: usize },
    /// Wait for the peer's FIN.
    AwaitEnd { socket: SocketId },
    /// Wait for the peer's reset.
    AwaitReset { socket: SocketId },
    /// Send a FIN, go on receiving.
    ShutdownWrite { socket: SocketId },
    /// Close.
    Close { socket: SocketId },
    /// Close with a reset.
    Abort { socket: SocketId },
    /// Fork workers, which inherit every socket.
    Fork { comms: Vec<String> },
    /// Let a worker do something.
    Ask { worker: usize, command: Box<Command> },
    /// Connect so often, expecting that no local port is found.
    FailToConnect { to: SocketAddr, by: ConnectBy, times: u64 },
    /// Connect, accept, close, close, so often.
    Churn(ChurnSpec),
    /// Accept so many connections, one after the other, and close each at once.
    CloseMany { listener: SocketId, connections: u64 },
    /// Connect so often, from the sources, wait each time for the peer's FIN, and close.
    ConnectMany(ChurnSpec),
}

/// A load of connections to the same port of several addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ChurnSpec {
    pub(super) connections: u64,
    /// Taken in turn.
    pub(super) destinations: Vec<IpAddr>,
    /// Where clients come from, taken in turn, each port of each once; empty: as the kernel
    /// chooses, which may come back to a port.
    pub(super) sources: Vec<IpAddr>,
    pub(super) port: u16,
    /// So many a second at most; as fast as it goes without it.
    pub(super) pace: Option<u32>,
}

/// What came of a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub(super) enum Reply {
    /// It is done.
    Done,
    /// A namespace was made.
    Netns { inode: u64 },
    /// A listener.
    Listening { socket: SocketId },
    /// A connected socket, or one that is connecting.
    Connection { socket: SocketId, local: SocketAddr, remote: SocketAddr },
    /// The connect failed.
    NotConnected { errno: i32, port: u16 },
    /// No connection was waiting.
    Nothing,
    /// Workers were forked.
    Forked { pids: Vec<u32> },
    /// A load was run.
    Churned { connections: u64, seconds: f64 },
    /// It could not be done.
    Failed { why: String },
}

/// One end of a control connection.
pub(super) struct Line {
    reader: BufReader<UnixStream>,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    /// The stream below, for its timeouts.
    pub(super) fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    pub(super) fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        self.reader.get_mut().write_all(&text)
    }

    /// The next message; `None` when the other end is gone.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut text = String::new();
        if self.reader.read_line(&mut text)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_pass_and_the_end_is_told() {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        let (mut ours, mut theirs) = (Line::new(ours), Line::new(theirs));
        let ask = Command::Ask { worker: 2, command: Box::new(Command::Close { socket: 7 }) };
        ours.send(&ask).expect("sent");
        let got = theirs.receive::<Command>().expect("received");
        assert!(
            matches!(&got, Some(Command::Ask { worker: 2, command })
                if matches!(**command, Command::Close { socket: 7 })),
            "{got:?}"
        );
        drop(ours);
        assert!(theirs.receive::<Command>().expect("no error").is_none());
    }
}
