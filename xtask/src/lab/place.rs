//! The place where recipes are carried out: namespaces, their settings, and who removes them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{LabError, Result};
use super::expectation::{Expectation, Namespace};
use super::interface;
use super::ledger::Checkpoint;
use super::netns;
use super::plan::AddressPlan;
use super::play;
use super::protocol::Command;
use super::puppet::{Puppet, find_program};
use super::recipe::{Addresses, Recipe};
use super::wire::Wire;

/// How a lab is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// With which addresses.
    pub addresses: Addresses,
    /// The `xtask` program, which plays the lab's processes. If `None`: what the environment
    /// variable `TCPMON_LAB` names, else this program itself, else the one beside the test.
    pub program: Option<PathBuf>,
    /// Called with one line for each step.
    pub narrate: Option<fn(&str)>,
}

/// Network namespaces of its own, in which recipes are carried out; gone when dropped, and also
/// when the process that holds it dies.
pub struct Lab {
    pub(super) options: Options,
    pub(super) program: PathBuf,
    pub(super) plan: AddressPlan,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) wire: Option<Wire>,
    /// For the recipe that removes one.
    doomed: Option<Namespace>,
    /// Inodes of all namespaces that there ever were.
    inodes: Vec<u64>,
    /// Services of a load that go on when it is over; they end with the next one.
    pub(super) lasting: Vec<Puppet>,
    next_port: u16,
    /// Connections a second of a load, at most.
    pace: Option<u32>,
    // Last, so that it ends last: it removes the namespaces.
    keeper: Puppet,
}

/// Numbers the labs and the namespaces of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Makes a namespace. Needs root.
    ///
    /// In it `tcp_tw_reuse` is 0: the default would let connections on loopback take over
    /// time-wait ports after a second, and no recipe would be certain.
    pub fn open(options: Options) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let program = find_program(options.program.as_deref())?;
        let keeper = Puppet::spawn(&program, "lab-keeper", None)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let plan = AddressPlan::new(std::process::id(), number);
        let mut lab = Self {
            options,
            program,
            plan,
            namespaces: Vec::new(),
            wire: None,
            doomed: None,
            inodes: Vec::new(),
            lasting: Vec::new(),
            next_port: plan.first_port(),
            pace: None,
            keeper,
        };
        let first = lab.make_namespace(number)?;
        lab.namespaces.push(first);
        Ok(lab)
    }

    /// The namespaces made so far; the client of every recipe is in the first.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// Makes what the recipe needs beyond the first namespace, and returns the namespaces it will
    /// use: one, or the client's and the server's. To call it is useful only where their names must
    /// be known before the recipe begins.
    pub fn prepare(&mut self, recipe: Recipe) -> Result<Vec<Namespace>> {
        if recipe == Recipe::NamespaceRemoved {
            let doomed = match self.doomed.take() {
                Some(doomed) => doomed,
                None => self.make_namespace(NEXT.fetch_add(1, Ordering::Relaxed))?,
            };
            return Ok(vec![self.doomed.insert(doomed).clone()]);
        }
        if !recipe.needs_wire() && recipe != Recipe::ThreeServices {
            return Ok(self.namespaces[..1].to_vec());
        }
        if self.namespaces.len() < 2 {
            let second = self.make_namespace(NEXT.fetch_add(1, Ordering::Relaxed))?;
            self.namespaces.push(second);
        }
        if self.wire.is_none() && recipe.needs_wire() {
            let names = [&*self.namespaces[0].name, &*self.namespaces[1].name];
            self.wire = Some(Wire::lay(names, self.plan, self.options.addresses)?);
        }
        Ok(self.namespaces.clone())
    }

    /// Carries out a recipe, `connections` times or as often as is usual for it, and tells what
    /// must have been seen. When it returns, every transition has happened.
    pub fn perform(&mut self, recipe: Recipe, connections: Option<u64>) -> Result<Expectation> {
        self.play(recipe, connections, None)
    }

    /// As [`Self::perform`], and calls `watch` at the beginning, at the end, and whenever in
    /// between the recipe is at rest: no transition happens while it runs.
    pub fn perform_watched(
        &mut self,
        recipe: Recipe,
        connections: Option<u64>,
        watch: &mut dyn FnMut(&Checkpoint),
    ) -> Result<Expectation> {
        let namespaces = self.prepare(recipe)?;
        watch(&Checkpoint::of("nothing has been done", &namespaces)?);
        let done = self.play(recipe, connections, Some(&mut *watch))?;
        if recipe != Recipe::NamespaceRemoved {
            watch(&Checkpoint::of("all has been done", &namespaces)?);
        }
        Ok(done)
    }

    fn play(
        &mut self,
        recipe: Recipe,
        connections: Option<u64>,
        watch: Option<&mut dyn FnMut(&Checkpoint)>,
    ) -> Result<Expectation> {
        let connections = connections.unwrap_or_else(|| recipe.default_connections());
        let namespaces = self.prepare(recipe)?;
        // The same watcher, for as long as the recipe lasts.
        let watch = watch.map(|watch| watch as &mut dyn FnMut(&Checkpoint));
        let done = play::play(self, recipe, connections, namespaces, watch)?;
        if recipe == Recipe::NamespaceRemoved
            && let Some(doomed) = self.doomed.take()
        {
            self.tell(&format!("the namespace {} is removed", doomed.name));
            self.keeper.tell_done(&Command::RemoveNetns { name: doomed.name })?;
        }
        Ok(done)
    }

    /// Has loads by one process make so many connections a second at most, instead of as many as
    /// they can.
    pub fn set_pace(&mut self, per_second: u32) {
        self.pace = Some(per_second);
    }

    /// What [`Self::set_pace`] said.
    pub(super) fn pace(&self) -> Option<u32> {
        self.pace
    }

    /// Leaves the namespaces in place when the lab ends.
    pub fn keep(&mut self) -> Result<()> {
        self.keeper.tell_done(&Command::KeepNetns)
    }

    /// The two ports that the next recipe will use for its servers.
    pub(super) fn next_ports(&self) -> [u16; 2] {
        [self.next_port, self.next_port + 1]
    }

    /// Two ports below every range of local ports, that no earlier recipe of this lab used: its
    /// time-wait sockets may still hold those.
    pub(super) fn take_ports(&mut self) -> [u16; 2] {
        let ports = self.next_ports();
        self.next_port = AddressPlan::port_after(ports[1]);
        ports
    }

    /// Where the server of the recipe listens.
    pub(super) fn server_address(&self, recipe: Recipe, port: u16) -> SocketAddr {
        let ip = match (recipe, self.options.addresses) {
            _ if recipe.needs_wire() => self.wire_address(1),
            // The kernel takes only this IPv6 address for loopback, whatever interface the others
            // are on (`tcp_twsk_unique()`, net/ipv4/tcp_ipv4.c).
            (Recipe::ReuseLoopback, Addresses::Ipv6) => Ipv6Addr::LOCALHOST.into(),
            (_, addresses) => self.plan.server(addresses),
        };
        SocketAddr::new(ip, port)
    }

    /// The address that the kernel gives a client of [`Self::server_address`].
    pub(super) fn client_address(&self, recipe: Recipe) -> IpAddr {
        match recipe {
            _ if recipe.needs_wire() => self.wire_address(0),
            Recipe::ReuseLoopback if self.options.addresses == Addresses::Ipv6 => {
                Ipv6Addr::LOCALHOST.into()
            }
            _ => self.plan.client(self.options.addresses),
        }
    }

    /// The address at one end of the wire, as sockets see it.
    pub fn wire_address(&self, end: u16) -> IpAddr {
        match (self.plan.wire(end, self.options.addresses), self.options.addresses) {
            (IpAddr::V4(ip), Addresses::Ipv4Mapped) => ip.to_ipv6_mapped().into(),
            (ip, _) => ip,
        }
    }

    /// Sets a sysctl of the first namespace, and returns what it was; `key` as under
    /// /proc/sys/net, with slashes.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<String> {
        netns::set_sysctl(&self.namespaces[0].name, key, value)
    }

    /// Runs `work` in the first namespace, on a thread of its own.
    pub fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        netns::inside(&self.namespaces[0].name, work)
    }

    /// One line to whoever listens.
    pub(super) fn tell(&self, line: &str) {
        if let Some(narrate) = self.options.narrate {
            narrate(line);
        }
    }

    /// Inodes of all namespaces that this lab has made, removed ones included.
    pub fn inodes(&self) -> &[u64] {
        &self.inodes
    }

    fn make_namespace(&mut self, number: u32) -> Result<Namespace> {
        let name = format!("{}{}-{number}", netns::PREFIX, std::process::id());
        let inode = self.keeper.make_netns(&name)?;
        self.inodes.push(inode);
        let _default = netns::set_sysctl(&name, "ipv4/tcp_tw_reuse", "0")?;
        if self.options.addresses == Addresses::Ipv6 {
            add_loopback_address(&name, self.plan.server(Addresses::Ipv6))?;
        }
        Ok(Namespace { name, inode })
    }
}

/// Gives the loopback interface of the namespace `name` the IPv6 address `ip`, if it has not got
/// it.
pub(super) fn add_loopback_address(name: &str, ip: IpAddr) -> Result<()> {
    let added = netns::inside(name, || interface::add_address("lo", ip, 128));
    added
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })
        .map_err(LabError::io(format!("give lo the address {ip} in {name} (is IPv6 off here?)")))
}

/// Removes namespaces that labs before left behind, `--keep` or not, and returns their names.
pub fn remove_orphans() -> Vec<String> {
    let orphans = netns::orphans();
    for name in &orphans {
        netns::remove(name);
    }
    orphans
}
