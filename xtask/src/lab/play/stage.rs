//! The stage: a client, its servers, and the record of what they did.

use std::net::SocketAddr;

use tcpmon_common::TcpState;

use super::pair::{End, Life, Pair};
use crate::lab::edge::{LISTENER, edges};
use crate::lab::error::{LabError, Result};
use crate::lab::expectation::{Expectation, Namespace};
use crate::lab::ledger::Checkpoint;
use crate::lab::place::Lab;
use crate::lab::protocol::{Command, SocketId};
use crate::lab::puppet::{Connection, Outcome, Puppet, addressed};
use crate::lab::recipe::{ConnectBy, Recipe};
use crate::lab::socket::{Process, Role, Socket, Substate};
use crate::lab::table::Table;

/// Who wants to look on when the recipe is at rest.
pub(super) type Watch<'a> = Option<&'a mut dyn FnMut(&Checkpoint)>;

/// Steps of this many connections are told, the rest pass in silence.
const TOLD: u64 = 3;

pub(super) struct Stage<'lab> {
    pub(super) lab: &'lab mut Lab,
    pub(super) recipe: Recipe,
    /// The client's namespace, and the server's if that is another.
    pub(super) netns: Vec<Namespace>,
    watch: Watch<'lab>,
    /// Two ports of this recipe's own; the first is the server's.
    pub(super) ports: [u16; 2],
    pub(super) client: Puppet,
    pub(super) servers: Vec<Puppet>,
    pub(super) workers: Vec<Process>,
    sockets: Vec<Socket>,
    connections: u64,
}

impl<'lab> Stage<'lab> {
    /// A client and one server, in the namespaces that the recipe needs.
    pub(super) fn set(
        lab: &'lab mut Lab,
        recipe: Recipe,
        netns: Vec<Namespace>,
        watch: Watch<'lab>,
    ) -> Result<Self> {
        let ports = lab.take_ports();
        let client = Puppet::spawn(&lab.program, "lab-client", Some(&netns[0].name))?;
        let mut stage = Self {
            lab,
            recipe,
            netns,
            watch,
            ports,
            client,
            servers: Vec::new(),
            workers: Vec::new(),
            sockets: Vec::new(),
            connections: 0,
        };
        stage.add_server("lab-server")?;
        Ok(stage)
    }

    pub(super) fn add_server(&mut self, comm: &str) -> Result<()> {
        let netns = self.netns_of(End::Server).name.clone();
        self.servers.push(Puppet::spawn(&self.lab.program, comm, Some(&netns))?);
        Ok(())
    }

    /// Where that end is.
    pub(super) fn netns_of(&self, end: End) -> &Namespace {
        &self.netns[if end == End::Client { 0 } else { self.netns.len() - 1 }]
    }

    /// The recipe is at rest: whoever wants to look on may.
    pub(super) fn checkpoint(&mut self, what: &str) -> Result<()> {
        if let Some(watch) = self.watch.as_mut() {
            watch(&Checkpoint::of(what, &self.netns)?);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Expectation {
        let addresses = self.lab.options.addresses;
        Expectation::of_sockets(self.recipe, addresses, self.netns, self.sockets)
    }

    /// Where the server listens, or where nobody does.
    pub(super) fn server_address(&self) -> SocketAddr {
        self.lab.server_address(self.recipe, self.ports[0])
    }

    /// One line, unless there were enough of them.
    pub(super) fn tell(&self, line: &str) {
        if self.connections <= TOLD {
            self.lab.tell(line);
        } else if self.connections == TOLD + 1 && line.contains("connects") {
            self.lab.tell("... and so on");
        }
    }

    /// The server process `at` listens.
    pub(super) fn listen(&mut self, at: usize, reuse_port: bool) -> Result<SocketId> {
        let address = self.server_address();
        let listener = self.servers[at].listen(address, reuse_port)?;
        self.tell(&format!("{} listens on {address}", self.servers[at].name()));
        Ok(listener)
    }

    /// The server process `at` closes its listener, and with it all workers theirs.
    pub(super) fn stop_listening(&mut self, at: usize, listener: SocketId) -> Result<()> {
        let close = || Command::Close { socket: listener };
        if at == 0 {
            for worker in 0..self.workers.len() {
                self.servers[0].tell_done(&addressed(close(), Some(worker)))?;
            }
        }
        self.servers[at].tell_done(&close())?;
        let owner = self.servers[at].process().clone();
        let local = self.server_address();
        self.record(Role::Listener, local, None, owner, &Life::new(&[], LISTENER));
        Ok(())
    }

    /// The client connects.
    pub(super) fn connect(&mut self, to: SocketAddr) -> Result<Connection> {
        let command = Command::Connect { to, by: ConnectBy::Blocking };
        let connection = self.connect_by(&command, to)?;
        self.tell(&format!("{} connects from {} to {to}", self.client.name(), connection.local));
        Ok(connection)
    }

    /// The client connects from there, and whoever calls tells it.
    pub(super) fn connect_from(&mut self, from: SocketAddr, to: SocketAddr) -> Result<Connection> {
        self.connect_by(&Command::ConnectFrom { from, to }, to)
    }

    fn connect_by(&mut self, command: &Command, to: SocketAddr) -> Result<Connection> {
        self.connections += 1;
        match self.client.connect(command)? {
            Outcome::Connected(connection) => Ok(connection),
            Outcome::Failed { errno, .. } => Err(LabError::Step {
                who: self.client.name(),
                what: format!("connect to {to}"),
                why: std::io::Error::from_raw_os_error(errno).to_string(),
            }),
        }
    }

    /// The client connects, the server accepts (or the worker of it).
    pub(super) fn pair(&mut self, listener: SocketId, worker: Option<usize>) -> Result<Pair> {
        let client = self.connect(self.server_address())?;
        self.accepted(client, listener, worker)
    }

    /// The server accepts what the client has connected.
    pub(super) fn accepted(
        &mut self,
        client: Connection,
        listener: SocketId,
        worker: Option<usize>,
    ) -> Result<Pair> {
        match self.servers[0].accept(listener, true, worker)? {
            Some(server) => Ok(Pair { client, server, at: 0, worker }),
            None => Err(LabError::Step {
                who: self.servers[0].name(),
                what: "accept".into(),
                why: "no connection was there".into(),
            }),
        }
    }

    /// The client connects, and whichever server process got the connection accepts it.
    pub(super) fn pair_with_any(&mut self, listeners: &[SocketId]) -> Result<Pair> {
        let client = self.connect(self.server_address())?;
        // The last ACK of the handshake may still be under way.
        Table::of(self.client.process().pid).await_state(
            client.remote,
            client.local,
            TcpState::Established,
        )?;
        for (at, listener) in listeners.iter().enumerate() {
            if let Some(server) = self.servers[at].accept(*listener, false, None)? {
                self.tell(&format!("{} accepts", self.servers[at].name()));
                return Ok(Pair { client, server, at, worker: None });
            }
        }
        Err(LabError::Timeout {
            what: "one of the listeners to have the connection".into(),
            waited: std::time::Duration::ZERO,
            seen: "none has".into(),
        })
    }

    /// One end of a connection does something with its socket.
    pub(super) fn act(
        &mut self,
        pair: &Pair,
        end: End,
        command: impl FnOnce(SocketId) -> Command,
    ) -> Result<()> {
        let command = command(pair.end(end).socket);
        match end {
            End::Client => self.client.tell_done(&command),
            End::Server => self.servers[pair.at].tell_done(&addressed(command, pair.worker)),
        }
    }

    /// The kernel's table in the namespace of that end.
    pub(super) fn table(&self, end: End) -> Table {
        let puppet = match end {
            End::Client => &self.client,
            End::Server => &self.servers[0],
        };
        Table::of(puppet.process().pid)
    }

    /// Waits until that end is in `state`.
    pub(super) fn await_state(&self, pair: &Pair, end: End, state: TcpState) -> Result<()> {
        let socket = pair.end(end);
        self.table(end).await_state(socket.local, socket.remote, state)
    }

    /// Waits until that end, which closed first, has the ACK of its FIN, and returns how it goes
    /// into the time-wait table.
    pub(super) fn await_closed_first(&self, pair: &Pair, end: End) -> Result<Substate> {
        let socket = pair.end(end);
        self.table(end).await_closed_first(socket.local, socket.remote)
    }

    /// Waits until that end is in `TIME_WAIT`.
    pub(super) fn await_time_wait(&self, pair: &Pair, end: End) -> Result<()> {
        let socket = pair.end(end);
        self.table(end).await_time_wait(socket.local, socket.remote)
    }

    /// Waits until nothing is left of that end.
    pub(super) fn await_gone(&self, pair: &Pair, end: End) -> Result<()> {
        let socket = pair.end(end);
        self.table(end).await_gone(socket.local, socket.remote)
    }

    /// Records both ends of a connection to a listener: `client` and `server` tell their lives.
    pub(super) fn record_pair(&mut self, pair: &Pair, client: &Life<'_>, server: &Life<'_>) {
        self.record_end(pair, End::Client, Role::Active, client);
        self.record_end(pair, End::Server, Role::Passive, server);
    }

    /// Records one end of a connection.
    pub(super) fn record_end(&mut self, pair: &Pair, end: End, role: Role, life: &Life<'_>) {
        let owner = match end {
            End::Client => self.client.process().clone(),
            End::Server => self.servers[pair.at].process().clone(),
        };
        let Connection { local, remote, .. } = pair.end(end);
        self.record(role, local, Some(remote), owner, life);
        if end == End::Server
            && let (Some(worker), Some(last)) = (pair.worker, self.sockets.last_mut())
        {
            last.accepted_by = self.workers.get(worker).cloned();
        }
    }

    /// Records the client's `connect()` that failed; `port` 0 is one that found no port.
    pub(super) fn record_failure(&mut self, to: SocketAddr, port: u16, states: &[TcpState]) {
        let local = SocketAddr::new(self.lab.client_address(self.recipe), port);
        let owner = self.client.process().clone();
        self.record(Role::Active, local, Some(to), owner, &Life::new(&[], states));
        if let Some(last) = self.sockets.last_mut() {
            last.port_exhausted = port == 0;
        }
    }

    fn record(
        &mut self,
        role: Role,
        local: SocketAddr,
        remote: Option<SocketAddr>,
        owner: Process,
        life: &Life<'_>,
    ) {
        let is_clients = role == Role::Active && owner == *self.client.process();
        let end = if is_clients { End::Client } else { End::Server };
        self.sockets.push(Socket {
            role,
            family: self.lab.options.addresses.family().to_owned(),
            netns: self.netns_of(end).inode,
            local,
            remote,
            owner,
            accepted_by: None,
            transitions: edges(&[life.open, life.close].concat()),
            time_wait: life.time_wait,
            time_wait_end: life.end,
            time_wait_overflow: life.overflow,
            port_exhausted: false,
        });
    }
}
